"""Command lines that take ``--some-flag`` and ``--some_flag`` alike."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence

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


class Parser(argparse.ArgumentParser):
    """Takes ``--some-flag`` and ``--some_flag`` alike, never abbreviations, and shows defaults in its help."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
        )

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The parsed ``argv`` (default: the process's own arguments)."""
        return self.parse_args(normalise_flags(sys.argv[1:] if argv is None else argv))
