"""The checkpoints that the authors of LSeg released: list them, check a downloaded file (python -m modules.zoo)."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.results import text_table

from .checkpoints import describe_misfits
from .identify import Report, identify
from .released import DATA, RELEASED, released_file

WHERE_FROM = f"To download the official ones: the model zoo in the README of {DATA['repository']}"
USAGE = {"list": "", "check": "FILE ...", "file": "DATASET BACKBONE"}


def build_parser() -> Parser:
    """The command and its options."""
    parser = Parser(__doc__)
    parser.prog = "python -m modules.zoo"
    parser.add_argument(
        "command",
        nargs="?",
        default="list",
        metavar="{list,check,file}",
        help="list: the table. check FILE ...: what the files are, whether they are whole, how they are tested. "
        "file DATASET BACKBONE: the name of the file for --fold",
    )
    parser.add_argument("arguments", nargs="*", help="of the command")
    parser.add_argument("--fold", type=int, default=0, help="of the command file")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--trust_checkpoint", action="store_true", help="run code found in a checked file: risky")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 if a checked file does not fit its network."""
    options = build_parser().parse(argv)
    if options.command not in USAGE:
        similar = difflib.get_close_matches(options.command, USAGE, n=1)
        hint = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(USAGE)}"
        raise InputError(f"there is no command {options.command}; {hint}")
    count = len(options.arguments)
    if not {"list": count == 0, "check": count > 0, "file": count == 2}[options.command]:
        raise InputError(f"write it as: python -m modules.zoo {options.command} {USAGE[options.command]}".rstrip())
    if options.command == "check":
        return check(options)
    if options.command == "file":
        print(released_file(*options.arguments, options.fold))
    else:
        print(json.dumps(DATA, indent=1, ensure_ascii=False) if options.json else table())
    return 0


def check(options: argparse.Namespace) -> int:
    """Report on each file; what cannot be reported on is named at the end."""
    reports, problems = [], []
    for file in options.arguments:
        try:
            refuse_pattern(file)
            reports.append(identify(Path(file).expanduser(), options.trust_checkpoint))
        except InputError as error:
            problems.append(str(error))
    if options.json:
        print(json.dumps([asdict(report) for report in reports], indent=1, ensure_ascii=False))
    elif reports:
        print("\n\n".join(describe(report) for report in reports))
    raise_all(problems)
    return int(any(report.misfits for report in reports))


def refuse_pattern(file: str) -> None:
    """``InputError`` for ``*.ckpt``, which a shell hands over as it is where nothing matches."""
    if any(sign in file for sign in "*?[") and not Path(file).expanduser().exists():
        raise InputError(f"no file matches {file}; put files there, or name those of another folder. {WHERE_FROM}")


def table() -> str:
    """The released checkpoints, their published figures, and what to know about them."""
    rows = [
        (
            entry.file,
            entry.backbone,
            entry.place,
            "" if entry.miou is None else f"{entry.miou:.1f}",
            entry.sha256 or "not known yet",
            entry.link or "",
        )
        for entry in RELEASED
    ]
    header = ("file", "backbone", "trained for", "published mIoU", "SHA-256", "link")
    notes = {entry.file: entry.note for entry in RELEASED if entry.note} | DATA["not_released"]
    return "\n".join(
        [
            text_table(header, rows),
            "",
            *(f"{file}: {note}" for file, note in notes.items()),
            *(f"beware: {slip['text']}" for slip in DATA["readme_slips"]),
            WHERE_FROM,
        ]
    )


def describe(report: Report) -> str:
    """The report for people."""
    backbone, features = report.architecture["backbone"], report.architecture["features"]
    state = "does not fit" if report.misfits else "all names and shapes fit"
    lines = [
        f"{report.file} ({report.bytes:,} bytes)",
        f"SHA-256: {report.sha256}",
        f"network: {backbone}, decoder of {features} features; {state}",
        *describe_misfits(report.misfits),
    ]
    if report.trained:
        lines.append("written by this project: " + ", ".join(_said(*item) for item in report.trained.items()))
    elif not report.misfits:
        lines.append(f"can be: {', '.join(report.can_be) or 'none of the released checkpoints'}")
    lines += [f"note: {note}" for note in report.notes]
    if report.commands:
        lines += ["to test it:", *(f"  {command}" for command in report.commands)]
    return "\n".join(lines)


def _said(key: str, value: Any) -> str:
    """A fact of a checkpoint; its metric is a dict of all that was measured when it was written."""
    if key == "metric":
        return ", ".join(f"{name} {number:.4g}" for name, number in value.items())
    return f"{key} {value}"


if __name__ == "__main__":
    run_script(main)
