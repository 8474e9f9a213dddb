"""The one exception for everything a user can put right, and the wrapper that shows it without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable


class InputError(ValueError):
    """Something outside the program is wrong: a file, a value, a missing download.

    Its text is an instruction: what is wrong, with which file or value, and what to do about it.
    """


def raise_all(problems: Iterable[str], *checks: Callable[[], object]) -> None:
    """Raise one ``InputError`` with all ``problems`` and all that the ``checks`` raise; return if nothing is wrong."""
    found = list(problems)
    for check in checks:
        try:
            check()
        except InputError as error:
            found.append(str(error))
    if found:
        raise InputError("\n".join(found))


def clean_message(error: BaseException) -> str:
    """The instruction alone, also where a DataLoader worker has wrapped it in its own traceback."""
    return str(error).rsplit("InputError: ", 1)[-1].strip()


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and leave the process: 0 on success, 2 after an ``InputError``, 130 after Ctrl-C."""
    try:
        code = main()
    except InputError as error:
        print(f"error: {clean_message(error)}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("stopped by the keyboard; run the same command again to go on", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
