"""Free memory, and advice where it was not enough."""

from __future__ import annotations

import pytest
import torch

from lseg_utils.errors import InputError
from lseg_utils.memory import free_bytes, memory_advice


def test_free_memory_is_a_plausible_number():
    assert 10**7 < free_bytes(torch.device("cpu")) < 10**14


def test_running_out_of_memory_becomes_an_instruction():
    expected = pytest.raises(InputError, match=r"out of memory \(.*allocate memory.*give a smaller --batch_size")
    with expected, memory_advice("give a smaller --batch_size"):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="cannot be multiplied"), memory_advice("x"):
        torch.ones(2, 3) @ torch.ones(2, 3)
