"""The second world, its coarse labels, and the table of joint training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from data import get_labels
from data.label_table import LabelTable
from lseg_utils.label_sets import all_texts
from miniature.joint import TABLE, TRAININGS, columns, main, spread
from miniature.names import COLOURS, LABELS, TEXTURES, UNSEEN
from miniature.world import make_second_world, make_world


def masks(folder, split: str = "training") -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "annotations" / split).iterdir())])


def test_the_second_world_shows_all_compositions_and_the_first_stays_as_it_was(tmp_path):
    first, _ = make_world(tmp_path, seed=3, training=12, validation=2)
    second, made = make_second_world(tmp_path, seed=3, training=60, validation=2)
    assert made and not make_second_world(tmp_path, seed=3, training=60, validation=2)[1]
    unseen = [LABELS.index(label) + 1 for label in UNSEEN]
    assert not np.isin(masks(first), unseen).any() and set(unseen) <= set(np.unique(masks(second)))
    assert not np.array_equal(masks(first), masks(second)[:12])
    assert masks(first).shape == (12, 64, 64)


def test_the_table_makes_both_worlds_coarse_labels_sums_of_the_40_fine_ones():
    table = LabelTable(TABLE)
    shapes, colours = (table.settle(name, get_labels(name))[0] for name in ("miniature_shapes", "miniature_colours"))
    assert len(shapes.labels) == 31 and shapes.texts_of("ground") == TEXTURES
    assert colours.labels == (*COLOURS, *TEXTURES) and "red circle" in colours.texts_of("red")
    assert set(all_texts([colours])) == set(LABELS) and set(all_texts([shapes])) == set(LABELS) - set(UNSEEN)


def test_the_table_has_mean_and_deviation_of_the_seeds_that_have_a_figure():
    found = [{"all": 10.0, "seen": 1.0, "unseen": 3.0, "shapes": 5.0}, {"all": 20.0, "seen": 1.0, "unseen": 5.0}]
    assert [spread(values) for values in columns(found)] == ["15.0 (7.1)", "1.0 (0.0)", "4.0 (1.4)", "5.0", ""]


@pytest.mark.slow
def test_everything_runs_and_resumes(tmp_path, capsys):
    options = "--seeds 0 --training 8 --validation 4 --epochs 1 --clip_steps 2".split()
    main(["--folder", str(tmp_path), *options])
    output = capsys.readouterr().out
    assert all(title in output for title, *_ in TRAININGS.values())
    before = json.loads((tmp_path / "table_tiny_resnet.json").read_text())["results"]
    assert all(0 <= found["all"] <= 100 for (found,) in before.values())
    main(["--folder", str(tmp_path), *options])
    assert json.loads((tmp_path / "table_tiny_resnet.json").read_text())["results"] == before
