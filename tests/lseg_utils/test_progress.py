"""Which of several processes shows bars and notes: the first one, whoever started them."""

from __future__ import annotations

import pytest

from lseg_utils.progress import is_rank_zero


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # torchrun, the second node
        ({"LOCAL_RANK": "1"}, False),  # started by Lightning
        ({"NODE_RANK": "1"}, False),  # Lightning's first process of the second node
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, False),  # srun
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "LOCAL_RANK": "2"}, False),  # ours, in a job of one task
    ],
)
def test_the_first_process(variables, first, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_rank_zero() == first
