"""Processes of one run end together: when one fails or vanishes, all show the reason and end; none waits for it.

A collective operation can wait half an hour for a process that is gone, and a launcher sees only its own node. So a
thread in every process reads, once a second, the key-value store through which the processes connected. A process that
fails leaves its message there. One that was killed leaves none, but stops counting, which its neighbour notices.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from lseg_utils.errors import exit_code, message_for_user

if TYPE_CHECKING:
    import torch.distributed as dist

BEAT = 1.0  # seconds between two readings of the store
SILENCE = float(os.environ.get("LSEG_SILENCE", "45"))  # seconds without a sign of life that mean a process is gone
CONNECT = timedelta(minutes=10)  # for the first process to open the store

RESUME = "the same command resumes where the run was last saved"
VANISHED = f"lost contact with another process of this run (killed, out of memory, or its machine went down); {RESUME}"


class Watch(threading.Thread):
    """The thread of process ``rank`` of ``world``. It ends the whole process (exit code 1) when another one failed.

    Needs MASTER_ADDR and MASTER_PORT in the environment: where the store is, or will be.

    launcher: id of the process that started this one and that it must not outlive, if there is one.
    children: processes ``rank + 1`` ... of the run, where this process has started them.
    """

    def __init__(
        self, rank: int, world: int, launcher: int | None = None, children: Sequence[subprocess.Popen] = ()
    ) -> None:
        import torch.distributed  # noqa: F401  here, in the main thread: two threads must not import it at once

        super().__init__(name="watch", daemon=True)
        self.rank, self.world, self.launcher, self.children = rank, world, launcher, children
        self._store: dist.Store | None = None
        self._connected, self._over, self._last_word = threading.Event(), threading.Event(), threading.Lock()
        self._neighbour = (b"", time.monotonic())  # its last count, and when that was new

    def run(self) -> None:
        """Read the store and count in it once a second until :meth:`stop`."""
        try:
            self._store = _connect()
            self._connected.set()
            self._answered = time.monotonic()
            threading.Thread(target=self._mind_silence, name="watch of the store", daemon=True).start()
            beats = 0
            while not self._over.wait(BEAT):
                beats += 1
                self._store.set(f"beats of {self.rank}", str(beats))
                self._look()
                self._answered = time.monotonic()
        except RuntimeError:  # the store is gone, and with it the process that ran it
            if not self._over.is_set():
                self.end(f"error: process {self.rank} ends: {VANISHED}\n", code=1)

    def stop(self) -> None:
        """Stop reading: what happens to the others no longer matters to this process."""
        self._over.set()
        self.join(timeout=2 * BEAT)

    def announce(self, message: str, rank: int | None = None) -> tuple[int, str]:
        """Report that ``rank`` (default: this process) failed; returns the first that did, with its message."""
        self._over.set()
        mine = self.rank if rank is None else rank, message
        if not self._connected.wait(timeout=5 * BEAT):
            return mine
        try:
            return _parse(self._store.compare_set("failed", "", "{}\n{}".format(*mine)))
        except RuntimeError:
            return mine

    def end(self, text: str, code: int, linger: float = 0.0) -> NoReturn:
        """Show ``text`` and end this process at once: destructors and exit handlers might wait for the others."""
        if not self._last_word.acquire(blocking=False):
            time.sleep(SILENCE)  # the other thread is about to end the process
        print(f"\n{text}" if text else "", end="", file=sys.stderr)  # below a progress bar
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        time.sleep(linger)
        os._exit(code)

    def because_of(self, rank: int, message: str) -> str:
        """What this process prints when ``rank`` has failed."""
        line, *more = message.splitlines() or [""]
        shown = line if len(line) <= 300 else f"{line[:300]} ..."
        more_there = " ... (that process prints it in full)" if more else ""
        return f"error: process {self.rank} ends, because process {rank} has failed: {shown}{more_there}\n"

    def _mind_silence(self) -> None:
        """End when the store does not answer: its machine or the network is down."""
        while not self._over.wait(BEAT):
            if time.monotonic() - self._answered > SILENCE:
                self.end(f"error: process {self.rank} ends: {VANISHED}\n", code=1)

    def _look(self) -> None:
        if self._store.check(["failed"]):
            failed = _parse(self._store.get("failed"))
            if not self._over.is_set():
                # Later than that process, so that launchers take its end as the cause, not the end of this one.
                self.end(self.because_of(*failed), code=1, linger=3 * BEAT)
        elif missing := self._missing():
            number, how = missing
            failed = self.announce(f"{how}; {RESUME}", number)
            self.end(self.because_of(*failed), code=1, linger=2 * BEAT)

    def _missing(self) -> tuple[int, str] | None:
        """The number of a process that is gone, and how it ended."""
        if self.launcher not in (None, os.getppid()):
            return self.rank, "the process that started it has ended"
        for number, child in enumerate(self.children, start=self.rank + 1):
            if code := child.poll():
                return number, f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        number, (count, since) = (self.rank + 1) % self.world, self._neighbour
        key = f"beats of {number}"
        latest = self._store.get(key) if self._store.check([key]) else b""
        if latest != count:
            self._neighbour = latest, time.monotonic()
        elif latest and time.monotonic() - since > SILENCE:
            return number, f"no sign of life for {SILENCE:.0f} s"
        return None


def end_with_the_others(watch: Watch, error: BaseException) -> NoReturn:
    """End this process because of ``error``, with its message shown once and left for the other processes."""
    message = message_for_user(error)
    text = f"error: {message}\n"
    if _lost_connection(error):
        time.sleep(2 * BEAT)  # the thread may find out which process it was, and then ends this one
        message, text = VANISHED, f"error: process {watch.rank} ends: {VANISHED}\n"
    elif message is None:
        message = f"{type(error).__name__}: {error}"
        text = "".join(traceback.format_exception(error))
    rank, first = watch.announce(message)
    if rank != watch.rank:
        text = "" if first == message else watch.because_of(rank, first)
    watch.end(text, exit_code(error), linger=2 * BEAT)  # the store may be in this process: let the others read it


def _connect() -> dist.Store:
    import torch.distributed as dist

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=CONNECT)
    # torchrun keeps its store when it starts failed processes again (--max_restarts).
    return dist.PrefixStore(f"watch {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _parse(record: bytes) -> tuple[int, str]:
    rank, message = record.decode().split("\n", 1)
    return int(rank), message


def _lost_connection(error: BaseException) -> bool:
    """Whether this is how gloo or NCCL report that another process is gone."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
