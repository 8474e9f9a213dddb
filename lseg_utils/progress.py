"""Progress bars that only the first of several processes shows, and that stay short where output goes to a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 30.0
MAX_LINE_SECONDS = 600.0


def is_rank_zero() -> bool:
    """Whether this process is the first of its group (or alone).

    Read from the launcher's environment (torchrun, srun and Lightning set it), because the dataset is checked
    before ``torch.distributed`` is initialised.
    """
    return process_rank() == 0


def process_rank() -> int:
    """This process's number in its group, from the launcher's environment; 0 alone.

    On a further node that no launcher has given a RANK (NODE_RANK above 0), it is at least 1.
    """
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("NODE_RANK", "0")) + int(os.environ.get("LOCAL_RANK", "0"))


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A ``tqdm`` bar with the given options, silent on every process but the first.

    If stderr is not a terminal, the bar prints a line after each 30 seconds, if another tenth of the work is done or
    ten minutes have passed, and a last one at the end (unless ``leave`` is False).
    """
    kind = tqdm if sys.stderr.isatty() else ProgressLines
    return kind(iterable, disable=not is_rank_zero(), **options)


class ProgressLines(tqdm):
    """A progress bar as a few whole lines of text."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._last = time.monotonic(), 0  # time and progress of the last line
        super().__init__(*args, ncols=0, mininterval=0, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print a line if one is due."""
        now, (last, done) = time.monotonic(), self._last
        far = self.total is None or 10 * (self.n - done) >= self.total
        if now - last >= (LINE_SECONDS if far else MAX_LINE_SECONDS):
            self._last = now, self.n
            print(self, file=self.fp, flush=True)

    def close(self) -> None:
        """Print the last line."""
        if not self.disable:
            if self.leave:
                print(self, file=self.fp, flush=True)
            self.disable = True
            self._decr_instances(self)
