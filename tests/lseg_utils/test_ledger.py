"""A ledger of finished work: read back by the same run, refused to another, and never garbled by a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from lseg_utils.errors import InputError
from lseg_utils.ledger import Ledger

HEADER = {"fold": 0, "name": "Füße"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "ledger.jsonl"


def test_records_come_back_in_order_and_grow(path: Path) -> None:
    ledger = Ledger(path, HEADER)
    assert ledger.records == [] and not path.parent.exists()
    ledger.append([1, "ü"], {"a": None})
    ledger.append(3)
    again = Ledger(path, HEADER)
    assert again.records == ledger.records == [[1, "ü"], {"a": None}, 3]
    again.append(4)
    assert Ledger(path, HEADER).records == [[1, "ü"], {"a": None}, 3, 4]


def test_another_header_is_refused_with_the_differences(path: Path) -> None:
    Ledger(path, {**HEADER, "size": 5}).append(1)
    with pytest.raises(InputError, match=r"ledger\.jsonl") as caught:
        Ledger(path, {**HEADER, "fold": 1})
    for fact in ("fold: 0 there, 1 now", "size: 5 there, null now"):
        assert fact in str(caught.value)
    assert "Füße" not in str(caught.value)


def test_a_file_that_is_not_a_ledger_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("[1, 2]\n")
    with pytest.raises(InputError, match=r"ledger\.jsonl"):
        Ledger(path, HEADER)


@pytest.mark.parametrize("lost", range(1, 30))
def test_a_line_that_a_kill_cut_off_does_not_count_and_is_not_glued_to_the_next(path: Path, lost: int) -> None:
    Ledger(path, HEADER).append("first", "second")
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    kept = Ledger(path, HEADER).records
    assert kept == (["first"] if lost <= len('"second"\n') else [])
    Ledger(path, HEADER).append("third")
    assert Ledger(path, HEADER).records == [*kept, "third"]


def test_what_follows_a_damaged_line_does_not_count(path: Path) -> None:
    Ledger(path, HEADER).append("first", "second", "third")
    path.write_bytes(path.read_bytes().replace(b'"second"', b"\0\0\0\0\0\0\0\0"))
    assert Ledger(path, HEADER).records == ["first"]


def test_a_line_that_is_nested_without_end_is_damaged(path: Path) -> None:
    Ledger(path, HEADER).append("first")
    path.write_bytes(path.read_bytes() + b"[" * 100_000 + b"\n")
    assert Ledger(path, HEADER).records == ["first"]
