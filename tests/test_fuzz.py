"""A few hostile files of each kind in every run; LSEG_FUZZ_SECONDS=60 fuzzes each kind for a minute."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from random import Random

import pytest

from fuzz.mutate import change
from fuzz.run import Guard, NotAnAnswer, run_case, variant
from fuzz.targets import TARGETS, Target
from lseg_utils.errors import InputError
from scripts import REPOSITORY

SECONDS = float(os.environ.get("LSEG_FUZZ_SECONDS", "0"))
QUICK = 12  # variants of each kind, besides the valid files


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("checkpoint", "video")])
def test_some_variants_are_answered(name: str, guard: Guard, tmp_path: Path) -> None:
    target, made = TARGETS[name], tmp_path / "seeds"
    made.mkdir()
    seeds = sorted(target.seeds(made))
    for path in seeds:
        with contextlib.suppress(InputError):  # imports what it needs before the guard watches
            target.read(path)
    for number in range(len(seeds), len(seeds) + QUICK):
        problem = run_case(target, guard, tmp_path / "case", *variant(seeds, name, 0, number))
        assert not problem, f"python tests/fuzz/run.py --target {name} --case {number}\n{problem}"


@pytest.mark.skipif(not SECONDS, reason="set LSEG_FUZZ_SECONDS")
@pytest.mark.parametrize("name", TARGETS)
def test_for_a_while(name: str, tmp_path: Path) -> None:
    line = [sys.executable, REPOSITORY / "tests/fuzz/run.py", "--target", name, "--keep", tmp_path]
    done = subprocess.run([*line, "--seconds", str(SECONDS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------------------------- the harness itself


def outside(path: Path) -> None:
    (path.parents[1] / "outside").write_text("x")


def program(path: Path) -> None:
    subprocess.run(["true"], check=True)


def other_error(path: Path) -> None:
    raise KeyError("x")


def silent(path: Path) -> None:
    raise InputError(" ")


def endless(path: Path) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "fact"),
    [(outside, "writes"), (program, "Popen"), (other_error, "KeyError"), (silent, "without"), (endless, "more than")],
)
def test_what_is_no_answer_is_found(read, fact: str, guard: Guard, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fuzz.run.HANG", 0.2)
    assert fact in run_case(Target(lambda folder: [], read), guard, tmp_path / "case", ".x", b"abc")
    assert not (tmp_path / "outside").exists() and issubclass(NotAnAnswer, BaseException)


def test_a_case_is_the_same_file_whenever_it_is_made(tmp_path: Path) -> None:
    seeds = sorted(TARGETS["labels"].seeds(tmp_path))
    first = [variant(seeds, "labels", 3, number) for number in range(40)]
    assert first == [variant(seeds, "labels", 3, number) for number in range(40)]
    assert len({content for _, content in first}) > 30
    assert first != [variant(seeds, "labels", 4, number) for number in range(40)]


def test_variants_of_archives_have_right_checksums(tmp_path: Path) -> None:
    """Else every one of them would be refused before its pickle is read."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/data.pkl", bytes([0x80, 2]) + b"}q.")
    content, whole = (tmp_path / "a.zip").read_bytes(), 0
    for number in range(60):
        changed = io.BytesIO(change(content, [content], Random(number)))
        with contextlib.suppress(zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OSError):
            whole += zipfile.ZipFile(changed).testzip() is None
    assert whole > 30
