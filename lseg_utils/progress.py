"""Progress bars that only the first of several processes shows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


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
    """A ``tqdm`` bar with the given options, silent on every process but the first."""
    return tqdm(iterable, disable=not is_rank_zero(), **options)
