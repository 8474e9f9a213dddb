"""Counts of an earlier run are used for the same pictures, masks, predictions and templates only."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lseg_utils.errors import InputError
from openvocab.models import SavedPredictions
from openvocab.suite import Pictures, picture_by_picture
from openvocab.wording import Wording


class Blank:
    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.long)


def count(names: list[str], folder: Path, class_of: tuple[int, ...] = (0,)) -> list[str]:
    pictures = Pictures(Blank(), names, class_of)
    records = picture_by_picture(pictures, lambda index, image, truth: {}, {"a": 1}, folder, 0, "test")
    return [record["name"] for record in records]


def test_other_pictures_or_other_classes_are_refused(tmp_path: Path) -> None:
    assert count(["b", "c"], tmp_path) == count(["b", "c"], tmp_path) == ["b", "c"]
    with pytest.raises(InputError, match="pictures_sha256"):
        count(["a", "b", "c"], tmp_path)
    with pytest.raises(InputError, match="pictures_sha256"):
        count(["b", "c"], tmp_path, class_of=(-1,))


def test_predictions_that_were_written_again_have_another_fingerprint(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    saved = SavedPredictions(tmp_path, "A-150")
    before = saved.fingerprint(["a"])
    assert saved.fingerprint(["a"]) == before
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert saved.fingerprint(["a"]) != before


def test_templates_are_described_by_their_sentences(tmp_path: Path) -> None:
    described = []
    for sentence in ("a photo of a {}.", "a drawing of a {}."):
        (tmp_path / "templates.txt").write_text(sentence + "\n")
        described.append(Wording(templates=str(tmp_path / "templates.txt")).describe()["templates"])
    assert described[0] != described[1]
