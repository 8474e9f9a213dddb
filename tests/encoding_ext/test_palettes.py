"""Palettes and the masks saved with them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from encoding_ext.palettes import ade20k_palette, palette
from lseg_utils.pictures import palette_picture, save_picture


def test_ade20k_colours_are_the_official_ones():
    colours = ade20k_palette()
    assert colours.shape == (150, 3) and colours.dtype == np.uint8
    assert colours[[0, 2, 149]].tolist() == [[120, 120, 120], [6, 230, 230], [92, 0, 255]]  # wall, sky, flag


def test_longer_palettes_go_on_where_shorter_ones_end():
    long = palette(300)
    assert (long[:150] == ade20k_palette()).all() and (palette(40) == ade20k_palette()[:40]).all()
    assert (palette(200) == long[:200]).all()
    assert palette(0).shape == (0, 3)


def test_added_colours_differ_from_each_other_from_the_official_ones_and_from_black():
    colours = np.concatenate([np.zeros((1, 3), int), palette(847).astype(int)])
    distance = np.abs(colours[151:, None] - colours[None]).sum(axis=2)
    distance[np.arange(697), np.arange(151, 848)] = 999
    assert distance.min() >= 15


@pytest.mark.parametrize("number", [-1, 4001])
def test_impossible_palettes_are_refused(number):
    with pytest.raises(ValueError, match=str(number)):
        palette(number)


LABELS = np.array([[-1, 0, 1], [149, 2, -1]])


@pytest.mark.parametrize("dtype", [np.int64, np.int16])
def test_a_saved_mask_holds_label_plus_one_and_its_colours(tmp_path, dtype):
    save_picture(tmp_path / "mask.png", palette_picture(LABELS.astype(dtype), palette(150)))
    picture = Image.open(tmp_path / "mask.png")
    assert picture.mode == "P"
    assert np.asarray(picture).tolist() == (LABELS + 1).tolist()
    shown = np.asarray(picture.convert("RGB"))
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert (shown[LABELS >= 0] == ade20k_palette()[LABELS[LABELS >= 0]]).all()


def test_255_labels_still_have_colours_and_256_need_16_bits(tmp_path):
    for number, kinds in ((255, {"P"}), (256, {"I;16", "I"})):
        labels = np.array([[-1, number - 1]])
        save_picture(tmp_path / "mask.png", palette_picture(labels, palette(number)))
        picture = Image.open(tmp_path / "mask.png")
        assert picture.mode in kinds
        assert np.asarray(picture).tolist() == [[0, number]]


def test_labels_without_a_colour_are_refused():
    for labels, text in (
        (np.array([[3]]), "-1..2"),
        (np.array([[-2]]), "-1..2"),
        (np.array([[0.5]]), "float64"),
        (np.zeros((1, 1, 1), int), r"\(1, 1, 1\)"),
    ):
        with pytest.raises(ValueError, match=text):
            palette_picture(labels, palette(3))


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "picture.png"
    save_picture(target, Image.new("RGB", (2, 2)))
    before = target.read_bytes()

    class Failing:
        def save(self, path):
            path.write_bytes(b"half")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        save_picture(target, Failing())
    assert target.read_bytes() == before and list(tmp_path.iterdir()) == [target]
