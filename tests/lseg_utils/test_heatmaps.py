"""Heat maps and named label maps: what colour is where, and what is written or left out."""

from __future__ import annotations

import numpy as np
import pytest

from lseg_utils.heatmaps import MARK, NO_VALUE, HeatScale, heat_colours, heat_map
from lseg_utils.named_maps import named_map, thickest_place

BLACK_TO_RED = HeatScale(0, 10, ((0, 0, 0), (200, 0, 0)), ticks=(0, 10))
COLOURS = np.array([[200, 0, 0], [0, 200, 0]], np.uint8)


def places_of(picture, colour) -> np.ndarray:
    """(row, column) of the pixels of just this colour."""
    return np.argwhere((np.asarray(picture) == colour).all(axis=-1))


def test_colours_lie_on_straight_lines_and_end_at_the_ends():
    found = heat_colours(np.array([0.0, 5.0, 10.0, -3.0, 99.0, np.nan]), BLACK_TO_RED)
    assert found[:, 0].tolist() == [0, 100, 200, 0, 200, NO_VALUE[0]]


def test_each_cell_has_its_colour_in_its_place():
    picture = heat_map(np.array([[2.5, 5.0], [7.5, 5.0]]), ["a", "b"], ["c", "d"], BLACK_TO_RED, cell=20)
    # The colour bar, to the right, goes through all colours in lines of few pixels.
    upper, lower = (places_of(picture, (red, 0, 0)) for red in (50, 150))
    cells = [places[places[:, 1] < np.asarray(picture).shape[1] - 60] for places in (upper, lower)]
    assert [len(cell) for cell in cells] == [400, 400]
    assert (cells[1] - cells[0] == (20, 0)).all()


def test_marked_cells_are_framed_and_no_others():
    values = np.full((2, 2), 5.0)
    assert not len(places_of(heat_map(values, "ab", "cd", BLACK_TO_RED, cell=20), MARK))
    framed = places_of(heat_map(values, "ab", "cd", BLACK_TO_RED, cell=20, marked=[(1, 0)]), MARK)
    assert (np.ptp(framed, axis=0) == 17).all()  # a pixel inside the cell on either side


def test_long_column_names_are_written_upwards():
    values = np.zeros((1, 2))
    short, long = (heat_map(values, ["r"], names, BLACK_TO_RED, cell=20) for names in (("a", "b"), ("a", "b" * 20)))
    assert long.height > short.height + 50 and long.width == short.width


def test_names_must_match_the_values():
    with pytest.raises(ValueError, match="as many names"):
        heat_map(np.zeros((2, 2)), ["a"], ["b", "c"], BLACK_TO_RED)


def test_thickest_place_is_the_middle_of_the_thickest_part():
    region = np.zeros((9, 14), bool)
    region[1:6, 1:6] = True  # its middle is (3, 3)
    region[3, 6:13] = True
    assert thickest_place(region) == (3, 3)


def test_a_named_map_keeps_the_colours_and_names_only_what_has_room():
    labels = np.zeros((20, 40), int)
    labels[0, 0], labels[19, :10] = 1, -1  # label 1 is too small for a name
    picture = named_map(labels, COLOURS, ["ab", "cd"], factor=3)
    pixels = np.asarray(picture)
    assert picture.size == (120, 60)
    assert (pixels[0:3, 0:3] == COLOURS[1]).all() and (pixels[57:, :30] == 0).all()
    written = np.argwhere((pixels != COLOURS[0]).any(axis=-1))
    written = written[(written[:, 0] > 2) & (written[:, 0] < 57)]
    assert len(written) and (np.ptp(written, axis=0) < 40).all()
    assert np.array_equal(pixels, np.asarray(named_map(labels, COLOURS, ["ab", "another name"], factor=3)))


def test_names_do_not_run_into_each_other():
    labels = np.zeros((10, 10), int)
    labels[4:7, 4:7] = 1  # in the middle of the larger label, where a long name would cover this one
    alone = named_map(labels, COLOURS, ["a very long name", ""], factor=4)
    both = named_map(labels, COLOURS, ["a very long name", "other"], factor=4)
    assert np.array_equal(np.asarray(alone), np.asarray(both))
