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


def message_for_user(error: BaseException) -> str | None:
    """What to show instead of a traceback; None for an error that only a developer can put right."""
    worker = _loss_of_a_worker(error)
    if worker is not None:
        return (
            f"a process that loads images has ended ({str(worker).strip()}): was it killed, or memory short? Fewer "
            "--workers need less. The same command goes on where the run was last saved"
        )
    if isinstance(error, InputError):
        return clean_message(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped by the keyboard; run the same command again to go on"
    return None


def _loss_of_a_worker(error: BaseException | None) -> BaseException | None:
    """What PyTorch raises when a DataLoader worker has been killed, if ``error`` is it or was raised because of it.

    PyTorch raises it out of a signal handler, so inside whatever line the program is at: code that handles its own
    errors there may have wrapped it in one of them.
    """
    while error is not None:
        if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
            return error
        error = error.__cause__ or error.__context__
    return None


def exit_code(error: BaseException) -> int:
    """2 where the user gets a message, 130 after Ctrl-C, 1 after any other error."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 1 if message_for_user(error) is None else 2


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and leave the process, with :func:`exit_code` and without traceback where possible."""
    try:
        code = main()
    except (Exception, KeyboardInterrupt) as error:
        message = message_for_user(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        code = exit_code(error)
    sys.exit(code or 0)
