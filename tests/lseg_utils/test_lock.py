"""Only one process works in a folder; a dead one does not stand in the way."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lseg_utils.errors import InputError
from lseg_utils.lock import LOCK_FILE, locked
from scripts import REPOSITORY

HOLDER = """
import sys
from lseg_utils.lock import locked
with locked(sys.argv[1], "--output_dir"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen]:
    """A process that holds the lock of ``folder`` until its standard input ends."""
    line = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(line, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with another_process(tmp_path / "out") as process, pytest.raises(InputError) as error:
        locked(tmp_path / "out", "--output_dir").__enter__()
    assert f"process {process.pid} on " in str(error.value) and "--output_dir" in str(error.value)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.kill()
        process.wait()
        assert (tmp_path / LOCK_FILE).exists()
        with locked(tmp_path, "--output_dir"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_after_an_error_the_folder_is_free(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path, "--output_dir"):
        raise KeyError
    with another_process(tmp_path):
        pass


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path, "--output_dir"):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    with another_process(tmp_path):
        assert child.is_alive()
    child.kill()
    child.join()
