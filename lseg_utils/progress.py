"""Progress bars that only the first of several processes shows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def is_rank_zero() -> bool:
    """Whether this process is the first of its group (or alone).

    Read from the launcher's environment (torchrun and Lightning both set it), because the dataset is checked
    before ``torch.distributed`` is initialised.
    """
    return process_rank() == 0


def process_rank() -> int:
    """This process's number in its group, from the launcher's environment; 0 alone."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A ``tqdm`` bar with the given options, silent on every process but the first."""
    return tqdm(iterable, disable=not is_rank_zero(), **options)
