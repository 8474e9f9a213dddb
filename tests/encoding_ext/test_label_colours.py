"""Colours after the meaning of labels: they fit, they differ, and they stay with their label."""

import numpy as np
import pytest

from encoding_ext.label_colours import MIN_DISTANCE, _distances, label_colours
from encoding_ext.palettes import palette


def test_a_label_gets_the_colour_that_it_names_or_that_the_thing_has():
    yellow, grass, sky, red, other = label_colours(["yellow circle", "grass", "sky", "red cars", "other"]).astype(int)
    assert yellow[0] > yellow[2] + 100 and yellow[1] > yellow[2] + 100
    assert grass.argmax() == 1 and sky.argmax() == 2 and red.argmax() == 0 and np.ptp(other) < 20


@pytest.mark.parametrize("scheme", ["natural", "colour_blind"])
def test_colours_of_a_list_differ_and_none_is_black(scheme):
    labels = [f"thing {number}" for number in range(30)] + ["grass", "lawn", "field", "red disc", "red box", "crimson"]
    colours = label_colours(labels, scheme).astype(float)
    apart = _distances(colours[:, None], colours[None]) + 1e9 * np.eye(len(labels))
    assert apart.min() > MIN_DISTANCE / 2
    assert (colours.max(axis=1) > 40).all()


def test_a_label_keeps_its_colour_when_the_list_changes():
    short, long = ["cat", "sofa", "grass"], ["grass", "window", "cat", "lamp", "sofa"]
    before, after = (dict(zip(labels, label_colours(labels).tolist())) for labels in (short, long))
    assert all(before[label] == after[label] for label in short)


def test_other_schemes_and_long_lists():
    assert np.array_equal(label_colours(["a", "b"], "ade20k"), palette(2))
    assert label_colours([], "natural").shape == (0, 3)
    assert label_colours([str(number) for number in range(5000)]).shape == (5000, 3)
    assert label_colours([str(number) for number in range(5000)], "ade20k").shape == (5000, 3)
    with pytest.raises(ValueError, match="neon"):
        label_colours(["a"], "neon")
