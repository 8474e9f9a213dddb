"""Joining a group: alone nothing happens, and more processes than GPUs are answered with an instruction."""

from __future__ import annotations

import pytest
import torch

from lseg_utils.distributed import from_first, join_group, sum_over_processes
from lseg_utils.errors import InputError


def test_alone_there_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_group(torch.device("cpu")) == torch.device("cpu")
    assert not torch.distributed.is_initialized()
    counts = torch.tensor([1, 2])
    total = sum_over_processes(counts)
    assert total.tolist() == [1, 2] and total.data_ptr() != counts.data_ptr()
    assert from_first("x") == "x"


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="2 GPUs here.*--nproc_per_node 2"):
        join_group(torch.device("cuda"))
    assert not torch.distributed.is_initialized()
