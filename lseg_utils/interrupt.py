"""Ctrl-C while a script starts: one line instead of a traceback, exit code 130.

The scripts import this file first. It changes nothing in other programs that use this package.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

MESSAGE = "interrupted from the keyboard; run the same command again to resume"

_main_runs = False


def main_runs() -> None:
    """Called by ``run_script``: from now on, only an interrupted import ends the process at once."""
    global _main_runs
    _main_runs = True


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise ``KeyboardInterrupt`` as usual, but never inside an import.

    Compiled libraries that are being imported print it, swallow it or abort.
    """
    importing = False
    while frame and not importing:
        importing = frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    if _main_runs and not importing:
        raise KeyboardInterrupt
    print(f"\nerror: {MESSAGE}", file=sys.stderr, flush=True)
    os._exit(130)


_repository = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_script = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or "")
if _script.startswith(_repository + os.sep) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupt)
