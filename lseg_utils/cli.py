"""Command lines that accept ``--some-flag`` and ``--some_flag`` alike, and suggest what a misspelt one means."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from lseg_utils.errors import did_you_mean

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
    """Adds the defaults, except None, False and what is empty: the help text says what they do."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        plain = default is None or default is False or default in ("", [], ())
        return action.help if plain else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Accepts ``--some-flag`` and ``--some_flag`` alike but no abbreviations, and shows defaults in its help."""

    def __init__(self, description: str, **more: Any) -> None:
        super().__init__(description=description, formatter_class=_HelpFormatter, allow_abbrev=False, **more)
        self._unknown: Sequence[str] = ()

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The parsed ``argv`` (default: the process's own arguments)."""
        arguments = normalise_flags(sys.argv[1:] if argv is None else argv)
        if not self._subparsers:  # whose options only they tell
            end = arguments.index("--") if "--" in arguments else len(arguments)
            flags = [text for text in arguments[:end] if _FLAG.match(text)]
            self._unknown = [text for text in flags if text.split("=")[0] not in self._option_string_actions]
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            self._unknown = unknown
            self.error()
        return options

    def error(self, message: str = "") -> NoReturn:
        """Exit with status 2, the message and all unknown options, at the first of which argparse may not have arrived.

        The usage of a script with fifty options would bury them.
        """
        problems = [message] if message else []
        for text in self._unknown:
            flag = text.split("=")[0]
            hint = did_you_mean(flag, self._option_string_actions)
            is_flag = flag.startswith("-")
            problems.append(
                f"unknown option {flag}{hint}" if is_flag else f"the value {text!r} does not belong to an option"
            )
        message = "; ".join(problems)
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
