"""Feed damaged and hostile files to everything that reads files, and report what was not answered properly.

    python tests/fuzz/run.py --seconds 60                 a minute for each kind of input
    python tests/fuzz/run.py --target image --seed 7      one kind, other variants
    python tests/fuzz/run.py --target image --case 1234   one variant again, with the traceback

Proper is a result, or an ``InputError``. Everything else is a finding: another exception, more than 10 seconds, a
crash of the process, over 7 GB of addresses, a file written outside of the case's folder, a program that is started.
Variant number N of a seed is always the same file. Findings are kept in --keep. Exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from fuzz.mutate import change  # noqa: E402
from fuzz.targets import TARGETS, Target  # noqa: E402
from lseg_utils.errors import InputError  # noqa: E402

HANG = 10.0  # seconds of processor time, which do not depend on how busy the machine is
# Addresses, more than after the imports. Pillow asks for as much as the length of a PNG's chunk says, up to 4 GB, and
# gets no more than there is in the file.
MEMORY = 7 << 30
# What Python reports before it does it, apart from opening a file: https://docs.python.org/3/library/audit_events.html
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "ctypes.dlopen")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class NotAnAnswer(BaseException):
    """A case did what no file may make the program do; no ``except Exception`` can catch it."""


def variant(seeds: list[Path], target: str, seed: int, number: int) -> tuple[str, bytes]:
    """(suffix, content) of case ``number``."""
    random = Random(f"{target}/{seed}/{number}")
    path = random.choice(seeds)
    if number < len(seeds):  # first the valid files themselves
        return seeds[number].suffix, seeds[number].read_bytes()
    return path.suffix, change(path.read_bytes(), [other.read_bytes() for other in seeds], random)


class Guard:
    """Watches a case: what it opens, starts and connects to, how long it takes."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        sys.addaudithook(self._event)
        signal.signal(signal.SIGPROF, self._late)

    @contextlib.contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Raise ``NotAnAnswer`` where the block does something that only an attack does."""
        signal.setitimer(signal.ITIMER_PROF, HANG)
        faulthandler.dump_traceback_later(6 * HANG, exit=True)  # what only waits, or runs no Python code
        self.folder = folder
        try:
            yield
        finally:
            self.folder = None
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in FORBIDDEN:
            raise NotAnAnswer(f"{event} {arguments}")
        if event == "open" and isinstance(arguments[0], str) and (arguments[2] or 0) & WRITING:
            place = Path(os.path.abspath(arguments[0]))
            if self.folder not in place.parents and place != Path(os.devnull):
                raise NotAnAnswer(f"writes {place}")

    def _late(self, *_: object) -> None:
        raise NotAnAnswer(f"takes more than {HANG:.0f} s")


def run_case(target: Target, guard: Guard, folder: Path, suffix: str, content: bytes) -> str:
    """Let ``target`` read one variant; "" if that was answered properly, else what happened."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / f"case{suffix}"
    path.write_bytes(content)
    try:
        with guard.watching(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except InputError as error:
        return "" if str(error).strip() else "an InputError without a text"
    except (Exception, NotAnAnswer):
        return traceback.format_exc()
    return ""


def work(name: str, seed: int, first: int, seconds: float, only: bool, folder: Path) -> None:
    """Run cases from ``first`` on, in this process; writes findings to ``folder``/findings, and the next number."""
    target, guard = TARGETS[name], Guard()
    made = folder / "seeds"
    made.mkdir(exist_ok=True)
    seeds = sorted(target.seeds(made))
    for path in seeds:
        with warnings.catch_warnings(), contextlib.suppress(InputError):  # imports everything, before the guard watches
            warnings.simplefilter("ignore")
            target.read(path)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    number, end = first, time.monotonic() + seconds
    while time.monotonic() < end:
        (folder / "number").write_text(str(number))
        suffix, content = variant(seeds, name, seed, number)
        if problem := run_case(target, guard, folder / "case", suffix, content):
            kept = folder / "findings" / f"{name}-{seed}-{number}{suffix}"
            kept.write_bytes(content)
            kept.with_name(kept.name + ".report").write_text(problem)
            if only:
                print(problem)
        number += 1
        if only:
            break
    (folder / "number").write_text(str(number))


def fuzz(name: str, seed: int, seconds: float, folder: Path, case: int | None = None) -> tuple[int, list[Path]]:
    """Run one target in processes of their own, a new one after every crash: (number of cases, findings)."""
    findings = folder / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    first, end = case or 0, time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        if left <= 0:
            break
        more = ["--case", str(case)] if case is not None else []
        line = [sys.executable, __file__, "--worker", str(folder), "--target", name, "--seed", str(seed), *more]
        done = subprocess.run([*line, "--first", str(first), "--seconds", str(left)], stderr=subprocess.PIPE, text=True)
        if not (folder / "number").exists():
            raise SystemExit(done.stderr)
        number = int((folder / "number").read_text())
        if done.returncode == 0:
            return number - (case or 0), sorted(findings.glob(f"{name}-*.report"))
        # The process died in this case: keep its file, and resume with the next.
        (crashed,) = (folder / "case").glob("case*")
        kept = findings / f"{name}-{seed}-{number}{crashed.suffix}"
        shutil.copy(crashed, kept)
        kept.with_name(kept.name + ".report").write_text(
            f"the process ended with {done.returncode}\n{done.stderr[-3000:]}"
        )
        first = number + 1
        if case is not None:
            break
    return first - (case or 0), sorted(findings.glob(f"{name}-*.report"))


def main() -> int:
    """Fuzz, print a line per target and every kind of finding once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="fuzz each target for this long (default: 60)")
    parser.add_argument("--target", choices=list(TARGETS), help="fuzz this one; default: all")
    parser.add_argument("--seed", type=int, default=0, help="choose other variants (default: 0)")
    parser.add_argument("--case", type=int, help="run only the variant of this number")
    parser.add_argument(
        "--keep", type=Path, default=REPOSITORY / "outputs" / "fuzz", help="keep findings in this folder"
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        first = options.first if options.case is None else options.case
        work(options.target, options.seed, first, options.seconds, options.case is not None, options.worker)
        return 0
    found = 0
    for name in [options.target] if options.target else TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            count, findings = fuzz(name, options.seed, options.seconds, Path(folder), options.case)
            print(f"{name}: {count:,} cases, {len(findings)} findings", flush=True)
            shown: dict[tuple[str, str], str] = {}  # exception and place -> the first of this kind
            for report in findings:
                options.keep.mkdir(parents=True, exist_ok=True)
                for path in (report, report.with_suffix("")):
                    shutil.copy(path, options.keep)
                kind, line = what_happened(report.read_text())
                shown.setdefault(kind, f"  {report.stem}: {line}")
            print("".join(f"{line}\n" for line in shown.values()), end="", flush=True)
            found += len(findings)
    return 1 if found else 0


def what_happened(report: str) -> tuple[tuple[str, str], str]:
    """((exception, the last line of ours that it went through), both as a line with the exception's text)."""
    lines = report.strip().splitlines()
    ours = [line.split(", in ")[0].strip() for line in lines if f'File "{REPOSITORY}' in line and "/.venv/" not in line]
    place = ours[-1].replace(f"{REPOSITORY}/", "") if ours else ""
    return (lines[-1].split(":")[0], place), f"{lines[-1][:160]} ({place})"


if __name__ == "__main__":
    sys.exit(main())
