"""Writing aside and renaming; what is said of folders that cannot be written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lseg_utils.errors import InputError
from lseg_utils.files import check_free_space, sha1_of, unwritable, write_aside

REPOSITORY = Path(__file__).resolve().parents[2]


def test_write_aside_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "a.txt"
    for text in ("one", "two"):
        with write_aside(target) as aside:
            assert aside.parent == target.parent and aside.suffix == ".txt"
            aside.write_text(text)
        assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


def test_a_failing_block_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), write_aside(target) as aside:
        aside.write_text("half")
        raise KeyError("x")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_an_instruction_and_the_old_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(InputError, match="no room left.*a.txt"), write_aside(target) as aside:
        aside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    program = f"""
import os, signal
from lseg_utils.files import write_aside
with write_aside({str(target)!r}) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": "."})
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    with write_aside(target) as aside:
        aside.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_sha1_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha1_of(tmp_path / "a") == "a9993e364706816aba3e25717850c26c9cd0d89d"


def test_free_space_is_asked_of_the_disk_also_where_the_folder_is_not_made_yet(tmp_path: Path) -> None:
    check_free_space(tmp_path / "not" / "there", 1, "a test")
    with pytest.raises(InputError, match="a test needs 1000000000.00 GB in .*there"):
        check_free_space(tmp_path / "not" / "there", 10**18, "a test")


def test_a_folder_that_cannot_be_made_is_named_with_its_option(tmp_path: Path) -> None:
    assert unwritable(tmp_path / "new" / "folder", "--there") == ""
    assert (tmp_path / "new" / "folder").is_dir() and not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").write_text("not a folder")
    text = unwritable(tmp_path / "file" / "folder", "--there")
    assert str(tmp_path / "file" / "folder") in text and "--there" in text
