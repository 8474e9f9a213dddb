"""One run at a time in a folder: a lock that the system releases when the process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from lseg_utils.errors import InputError

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: str | Path, flag: str) -> Iterator[None]:
    """Keep other processes out of ``folder`` during the block; a missing folder is created.

    The lock belongs to this process alone: child processes do not inherit it, and a killed process leaves nothing
    that a later run would have to clean up. On a file system without locks the block runs without one.

    Args:
        folder: what only one process may write to.
        flag: the command-line option that names the folder, for the message.

    Raises:
        InputError: another process has the lock; the message gives its number, host, script and start.
    """
    path = Path(folder) / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise InputError(
                    f"{folder} is in use by {holder}; wait until it has finished, stop it, or choose another {flag}"
                ) from None
            yield  # this file system has no locks
            return
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            break
        file.close()  # its last holder deleted it after we had opened it
    script = Path(sys.argv[0]).name or "python"
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} ({script}, started {datetime.now():%Y-%m-%d %H:%M})\n")
    file.flush()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is released: later, it could be another run's
        file.close()
