"""Coloured label maps, overlays, legends and sheets: what has to be where."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from encoding_ext.palettes import palette
from lseg_utils.named_maps import overlay_with_legend
from lseg_utils.pictures import colourise, fit, legend, overlay, sheet

RED_GREEN = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
LABELS = np.array([[0, 1], [-1, 0]])


def pixels(picture) -> np.ndarray:
    return np.asarray(picture).astype(int)


def has_colour(picture, colour) -> bool:
    return bool((pixels(picture) == colour).all(axis=-1).any())


def test_colourise_paints_unlabelled_black():
    painted = colourise(LABELS, RED_GREEN)
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 0], [255, 0, 0]]]
    with pytest.raises(ValueError, match="do not fit 2 colours"):
        colourise(LABELS + 1, RED_GREEN)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_overlay_mixes_where_there_is_a_label(alpha):
    image = np.full((2, 2, 3), 100, np.uint8)
    mixed = pixels(overlay(image, LABELS, RED_GREEN, alpha))
    assert mixed[0, 0] == pytest.approx(np.array([100 + 155 * alpha, 100 * (1 - alpha), 100 * (1 - alpha)]), abs=0.5)
    assert mixed[1, 0].tolist() == [100, 100, 100]


def test_overlay_draws_lines_between_labels_of_a_large_picture():
    labels = np.zeros((10, 300), int)
    labels[:, 150:] = 1
    mixed = pixels(overlay(Image.new("RGB", (300, 10)), labels, RED_GREEN, 0.5))
    assert mixed[5, 149, 0] > mixed[5, 100, 0] and mixed[5, 150].tolist() == mixed[5, 200].tolist()


def test_overlay_of_a_tall_picture_has_no_seams():
    image = np.random.default_rng(0).integers(0, 256, (600, 2, 3), dtype=np.uint8)
    mixed = pixels(overlay(image, np.zeros((600, 2), int), RED_GREEN, 0.5))
    assert np.abs(mixed - (image + np.array([255, 0, 0])) / 2).max() <= 0.5


def test_overlay_of_another_size_is_refused():
    with pytest.raises(ValueError, match="resize"):
        overlay(np.zeros((3, 3, 3), np.uint8), LABELS, RED_GREEN)


def test_grey_and_palette_images_are_taken():
    for mode in ("L", "P", "RGBA"):
        assert overlay(Image.new(mode, (2, 2)), LABELS, RED_GREEN).mode == "RGB"


def test_legend_shows_each_colour_with_ink_beside_it():
    names = ["red", "green"]
    both, one = legend([0, 1], names, RED_GREEN), legend([1], names, RED_GREEN)
    assert has_colour(both, (255, 0, 0)) and has_colour(both, (0, 255, 0))
    assert not has_colour(one, (255, 0, 0)) and one.height < both.height
    assert pixels(both).sum(axis=-1).min() < 200  # letters


def test_legend_keeps_to_its_width_and_wraps_into_columns():
    names = [f"label number {i}" for i in range(30)]
    wide, narrow = (legend(range(30), names, palette(30), width) for width in (900, 300))
    assert (wide.width, narrow.width) == (900, 300) and wide.height < narrow.height
    long = legend([0], ["an endless name " * 20], RED_GREEN, width=200)
    assert long.width == 200 and (pixels(long)[:, -4:] == 255).all()  # cut, not running over the edge


def test_overlay_with_legend_names_what_occurs_largest_first_and_enlarges_small_images():
    labels = np.zeros((40, 40), int)
    labels[:5, :5] = 1
    picture = overlay_with_legend(np.zeros((40, 40, 3), np.uint8), labels, RED_GREEN, ["red", "green"], alpha=0.5)
    assert picture.width >= 384
    key = pixels(picture)[picture.width :]
    assert np.argwhere((key == (255, 0, 0)).all(-1))[0, 1] < np.argwhere((key == (0, 255, 0)).all(-1))[0, 1]


def test_overlay_with_legend_of_nothing_labelled():
    picture = overlay_with_legend(np.zeros((8, 400, 3), np.uint8), np.full((8, 400), -1), RED_GREEN, ["red", "green"])
    assert picture.width == 400


def test_fit_keeps_proportions_and_label_colours():
    assert fit(Image.new("RGB", (100, 50)), (60, 60)).size == (60, 30)
    assert fit(Image.new("RGB", (1, 1000)), (50, 50)).size == (1, 50)
    enlarged = fit(colourise(np.arange(4).reshape(2, 2) % 2, RED_GREEN), (31, 31))
    assert {tuple(colour) for colour in pixels(enlarged).reshape(-1, 3)} == {(255, 0, 0), (0, 255, 0)}


def test_sheet_places_every_picture_under_its_title():
    red, green = (np.full((10, 20, 3), colour, np.uint8) for colour in RED_GREEN)
    grid = sheet([[red, green], [None, red]], ["one", "two"], ["first", "second"], cell=(80, 40))
    spots = {name: np.argwhere((pixels(grid) == colour).all(-1)) for name, colour in zip("rg", RED_GREEN)}
    assert len(spots["r"]) == 2 * 80 * 40 and len(spots["g"]) == 80 * 40
    middle = spots["g"].mean(axis=0)
    row_of_green = spots["r"][spots["r"][:, 0] < middle[0] + 20]
    assert row_of_green.mean(axis=0)[1] < middle[1]  # red stands left of green in the first row
    assert spots["r"][:, 0].max() > spots["g"][:, 0].max()  # and in the second row


def test_sheet_grows_with_heading_footer_and_row_titles():
    rows = [[Image.new("RGB", (8, 8))]]
    plain = sheet(rows, ["title"], cell=(64, 64))
    footer = Image.new("RGB", (300, 50), (1, 2, 3))
    full = sheet(rows, ["title"], ["row"], cell=(64, 64), heading="heading", footer=footer)
    assert full.height >= plain.height + 50 and full.width == 300
    assert pixels(full)[-1, 0].tolist() == [1, 2, 3]


def test_sheet_needs_matching_titles():
    picture = Image.new("RGB", (8, 8))
    for rows, titles, row_titles in (([[picture]], ["a", "b"], None), ([[picture]], ["a"], ["x", "y"])):
        with pytest.raises(ValueError, match="one title for each column"):
            sheet(rows, titles, row_titles)
