"""docs/sample.png, with which app and notebook begin."""

from __future__ import annotations

import numpy as np
from PIL import Image

from apps.web.places import SAMPLE, SAMPLE_LABELS
from miniature.names import LABELS
from miniature.sample import BACKGROUND, THINGS, draw_sample, main


def test_the_picture_in_docs_is_the_one_that_is_drawn(tmp_path):
    main([str(tmp_path / "drawn.png")])
    with Image.open(SAMPLE) as stored, Image.open(tmp_path / "drawn.png") as drawn:
        assert stored.size == drawn.size
        difference = np.asarray(stored.convert("RGB")).astype(int) - np.asarray(drawn.convert("RGB"))
    assert abs(difference).mean() < 1  # other versions of NumPy may draw other noise


def test_its_labels_are_what_is_in_it():
    assert {BACKGROUND, *(thing.label for thing in THINGS)} == {*SAMPLE_LABELS} <= {*LABELS}
    red, green, blue = np.asarray(draw_sample())[102, 232].astype(int)  # the lifebuoy
    assert red > 150 > 2 * max(green, blue)
