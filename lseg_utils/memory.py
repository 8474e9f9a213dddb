"""How much memory is free, and advice for when it was not enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lseg_utils.errors import InputError


def free_bytes(device: torch.device) -> int:
    """Free memory of a CUDA device (what PyTorch has reserved but does not use counts as free), else of the machine."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux: half of the installed memory is a careful guess
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` reports a failed allocation, on a GPU or in the machine's memory."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def advised(error: BaseException, advice: str) -> InputError:
    """The ``InputError`` to raise instead of an out-of-memory error."""
    return InputError(f"out of memory ({str(error).splitlines()[0][:200]}): {advice}")


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turn an out-of-memory error into an ``InputError`` that ends with ``advice``."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise advised(error, advice) from error
