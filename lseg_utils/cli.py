"""Command lines that accept ``--some-flag`` and ``--some_flag`` alike, and suggest what a misspelt one means."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

_FLAG = re.compile(r"^--[A-Za-z][\w-]*(?==|$)")


def normalise_flags(argv: Iterable[str]) -> list[str]:
    """Spell every long flag with underscores: ``--foo-bar=a-b`` becomes ``--foo_bar=a-b``.

    Values stay as they are, and so does everything after a bare ``--``. For parsers whose options are declared with
    underscores: the official scripts of LSeg mix both spellings.
    """
    arguments = list(argv)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [_FLAG.sub(lambda match: "--" + match[0][2:].replace("-", "_"), text) for text in arguments[:end]]
    return flags + arguments[end:]


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the defaults, except None and False: the help text tells what they do."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Accepts ``--some-flag`` and ``--some_flag`` alike but no abbreviations, and shows defaults in its help."""

    def __init__(self, description: str, **more: Any) -> None:
        super().__init__(description=description, formatter_class=_HelpFormatter, allow_abbrev=False, **more)

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The parsed ``argv`` (default: the process's own arguments)."""
        options, unknown = self.parse_known_args(normalise_flags(sys.argv[1:] if argv is None else argv))
        known, problems = [name for action in self._actions for name in action.option_strings], []
        for text in unknown:
            flag = text.split("=")[0]
            similar = difflib.get_close_matches(flag, known, n=1)
            hint = f"; did you mean {similar[0]}?" if similar else ""
            is_flag = flag.startswith("-")
            problems.append(f"unknown option {flag}{hint}" if is_flag else f"the value {text!r} belongs to no option")
        if problems:
            self.error("; ".join(problems))
        return options

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and the message; the usage of a script with fifty options would bury it."""
        self.exit(2, f"error: {message}\n`{self.prog} --help` lists the options\n")


@contextmanager
def doubts_as_notes() -> Iterator[None]:
    """Print warnings of the block as notes."""
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        yield
    for doubt in doubts:
        print(f"note: {doubt.message}")


def chosen(kind: type[T], options: argparse.Namespace, **more: object) -> T:
    """A dataclass whose fields are the options of the same names, or ``more``; fields without an option: defaults."""
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in vars(options).items() if name in names} | more)
