"""What predict_lseg.py is run on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from predict_script import tiny_weights
from predicting import picture


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a tiny network."""
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good pictures, one of them in a subfolder."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name, size in {"a.png": (50, 70), "b.png": (1, 1), "sub/c.jpg": (64, 33)}.items():
        Image.fromarray(picture(*size)).save(folder / name)
    return folder
