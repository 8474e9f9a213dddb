"""Which process shows progress, and that it is a few whole lines where output goes to a file."""

from __future__ import annotations

import pytest

from lseg_utils import progress
from lseg_utils.progress import is_rank_zero, progress_bar


class Clock:
    """``time.monotonic`` by hand."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_short_work_is_one_line(clock, capsys):
    for number in (bar := progress_bar(range(100), desc="counting", unit="image")):
        bar.set_postfix(number=number)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("counting: 100%") and "100/100" in line and "number=99" in line and "\r" not in line


def test_long_work_is_a_line_per_tenth_or_ten_minutes(clock, capsys):
    with progress_bar(total=100) as bar:
        for _ in range(100):
            clock.now += 25  # a tenth takes longer than the 30 seconds that are at least between two lines
            bar.update()
    assert len(capsys.readouterr().err.splitlines()) == 10 + 1
    with progress_bar(total=100) as bar:
        for _ in range(4):
            clock.now += 400
            bar.update()
    assert len(capsys.readouterr().err.splitlines()) == 2 + 1


def test_a_bar_that_does_not_stay_and_those_of_other_processes_print_nothing(clock, capsys, monkeypatch):
    list(progress_bar(range(3), leave=False))
    monkeypatch.setenv("RANK", "1")
    list(progress_bar(range(3)))
    assert not capsys.readouterr().err


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
