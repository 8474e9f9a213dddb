"""The journal of a prediction: what is damaged is reported with its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.predict.journal import Journal, read_run
from lseg_utils.errors import InputError

SETTINGS = {"embeddings": None}


@pytest.mark.parametrize("record", ["3", "[]", "{}", '{"name": "a"}', '{"name": ["a"], "source": "a", "parts": []}'])
def test_a_record_of_another_kind_is_reported(record: str, tmp_path: Path) -> None:
    Journal(tmp_path, SETTINGS, {})
    (tmp_path / "ledger.jsonl").write_text(f'{{"settings": "run.json"}}\n{record}\n')
    with pytest.raises(InputError, match=r"ledger\.jsonl is damaged"):
        Journal(tmp_path, SETTINGS, {})


def test_a_description_that_is_nested_without_end_is_reported(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"run\.json"):
        read_run(tmp_path)
