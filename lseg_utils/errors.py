"""The exception for everything that a user can fix, and the wrapper that shows it without a traceback."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lseg_utils import interrupt


class InputError(ValueError):
    """Something outside the program is wrong: a file, a value, a missing download.

    Its text is an instruction: what is wrong, with which file or value, and what to do about it.
    """


def raise_all(problems: Iterable[str], *checks: Callable[[], Any]) -> list[Any]:
    """What the ``checks`` return, or one ``InputError`` with all ``problems`` and all that the checks raise."""
    found, results = list(problems), []
    for check in checks:
        try:
            results.append(check())
        except InputError as error:
            found.append(str(error))
    if found:
        raise InputError("\n".join(dict.fromkeys(found)))  # two checks may find the same
    return results


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """ " (did you mean X?)" where one of the ``known`` words is close to ``word`` or begins with it, else ""."""
    plain = {name.lower().lstrip("-"): name for name in known}  # dashes of options would make all of them similar
    text = str(word).lower().lstrip("-")
    longer = [name for name in plain if len(text) >= 3 and name.startswith(text)]
    similar = difflib.get_close_matches(text, plain, n=1, cutoff=0.7) or longer
    return f" (did you mean {plain[similar[0]]}?)" if similar else ""


def few(names: Sequence[str], shown: int = 5) -> str:
    """The first names of a list, separated by commas, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def clean_message(error: BaseException) -> str:
    """The instruction without the traceback that a DataLoader worker wraps it in."""
    return str(error).rsplit("InputError: ", 1)[-1].strip()


def message_for_user(error: BaseException) -> str | None:
    """The message to show instead of a traceback; None for an error that only a developer can fix."""
    # PyTorch reports a killed DataLoader worker in a signal handler, thus inside whatever line is being executed: code
    # that handles its own errors there may have wrapped the report in one of them.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RuntimeError) and "DataLoader worker" in str(cause):
            return (
                f"a data-loading worker died ({str(cause).strip()}), probably killed or out of memory. Try fewer "
                "--workers; the same command resumes where the run was last saved"
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, InputError):
        return clean_message(error)
    return interrupt.MESSAGE if isinstance(error, KeyboardInterrupt) else None


def exit_code(error: BaseException) -> int:
    """2 where the user gets a message, 130 after Ctrl-C, 1 after any other error."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 1 if message_for_user(error) is None else 2


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit with :func:`exit_code`, without a traceback where possible."""
    interrupt.main_runs()
    try:
        code = main()
    except (Exception, KeyboardInterrupt) as error:
        message = message_for_user(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        code = exit_code(error)
    sys.exit(code or 0)
