"""The result of a segmentation: areas, colours, overlay, legend and files, on a mask made by hand."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from encoding_ext.label_colours import label_colours
from lseg_utils.errors import InputError
from modules.inference.segmentation import area_table
from modules.predictor import Segmentation

MASK = np.array([[2, 2, 0], [2, 2, 2]])


def result(mask: np.ndarray = MASK, labels: int = 3) -> Segmentation:
    image = np.full((*mask.shape, 3), 100, np.uint8)
    return Segmentation(image, [f"thing {i}" for i in range(labels)], mask, np.ones(mask.shape, np.float32))


def test_areas_are_shares_of_all_labels_largest_first():
    areas = result().areas()
    assert list(areas) == ["thing 2", "thing 0", "thing 1"]
    assert areas == pytest.approx({"thing 2": 5 / 6, "thing 0": 1 / 6, "thing 1": 0})


def test_facts_are_plain_data_about_the_labels_that_occur():
    facts = json.loads(json.dumps(result().facts()))
    assert (facts["width"], facts["height"]) == (3, 2)
    assert [(area["number"], area["label"], area["pixels"]) for area in facts["areas"]] == [
        (2, "thing 2", 5),
        (0, "thing 0", 1),
    ]
    assert [area["share"] for area in facts["areas"]] == pytest.approx([5 / 6, 1 / 6])
    assert result().pixel_counts() == {2: 5, 0: 1} and area_table({}, []) == []


def test_pictures_of_the_mask_contain_the_labels_numbers():
    assert np.array_equal(np.asarray(result().label_picture()), MASK)
    assert np.array_equal(np.asarray(result().mask_picture()), MASK + 1)
    large = np.asarray(result(MASK + 500, labels=503).label_picture())
    assert np.array_equal(large, MASK + 500)


def test_other_colours_reach_every_picture():
    other = result()
    other.colours = np.array([(1, 2, 3), (4, 5, 6), (7, 8, 9)], np.uint8)
    assert np.array_equal(other.overlay(1), other.colours[MASK])
    assert np.array_equal(np.asarray(other.mask_picture().convert("RGB")), other.colours[MASK])
    assert (7, 8, 9) in {colour for _, colour in other.legend().getcolors()}


def test_a_notebook_shows_the_overlay_with_its_legend():
    with Image.open(io.BytesIO(result()._repr_png_())) as picture:
        assert picture.format == "PNG" and picture.height > picture.width / 3 * 2


def test_a_result_is_shown_by_its_size_and_labels():
    assert repr(result()) == "Segmentation(height=2, width=3, 3 labels: ['thing 0', 'thing 1', 'thing 2'])"
    assert "10000 labels" in repr(result(labels=10_000)) and len(repr(result(labels=10_000))) < 150


def test_areas_of_a_label_twice_are_added():
    twice = result()
    twice.labels = ["cat", "dog", "cat"]
    assert twice.areas() == {"cat": pytest.approx(1.0), "dog": 0}


def test_overlay_mixes_image_and_colours():
    colours = label_colours(result().labels)[MASK].astype(float)
    assert result().overlay(0).tolist() == result().image.tolist()
    np.testing.assert_allclose(result().overlay(1), colours, atol=0.5)
    np.testing.assert_allclose(result().overlay(0.25), 75 + colours / 4, atol=0.51)
    assert result().overlay().dtype == np.uint8


def test_names_are_written_into_large_overlays_unless_they_are_not_wanted():
    mask = np.repeat(np.repeat(MASK, 150, axis=0), 150, axis=1)  # (300, 450)
    large = Segmentation(np.full((300, 450, 3), 100, np.uint8), ["a", "b", "c"], mask, np.ones(mask.shape, np.float32))
    plain, named = large.overlay(names=False), large.overlay()
    assert plain.shape == named.shape and (plain != named).any(axis=-1).sum() > 50
    assert (large.overlay(0) == large.image).all()
    small = result()
    assert np.array_equal(small.overlay(), small.overlay(names=False))


def test_legend_has_the_colours_that_occur_and_no_others():
    pixels = np.asarray(result().legend()).reshape(-1, 3)
    present = [(pixels == colour).all(axis=1).any() for colour in label_colours(result().labels)]
    assert present == [True, False, True]


def test_more_labels_than_colours_can_be_shown():
    many = result(labels=10_000)
    assert many.colours.shape == (10_000, 3)
    assert many.overlay(1).shape == (2, 3, 3) and many.legend().width > 0


def test_save_to_a_folder(tmp_path):
    files = result().save(tmp_path / "new" / "cat")
    assert sorted(file.name for file in files) == ["labels.json", "legend.png", "mask.png", "overlay.png"]
    assert sorted((tmp_path / "new" / "cat").iterdir()) == sorted(files)  # nothing half-written beside them
    with Image.open(tmp_path / "new" / "cat" / "mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), MASK + 1)
    assert json.loads((tmp_path / "new" / "cat" / "labels.json").read_text())["labels"] == result().labels


def test_a_dot_in_a_name_makes_no_picture(tmp_path):
    assert {file.parent for file in result().save(tmp_path / "v1.2")} == {tmp_path / "v1.2"}


def test_save_to_a_picture(tmp_path):
    assert result().save(tmp_path / "cat.jpg") == [tmp_path / "cat.jpg"]
    with Image.open(tmp_path / "cat.jpg") as picture:
        assert picture.format == "JPEG" and picture.width > 3


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file"):
        result().save(tmp_path / "file" / "below")
    (tmp_path / "cat.png").mkdir()
    with pytest.raises(InputError, match="cat.png"):
        result().save(tmp_path / "cat.png")
    assert [path.name for path in tmp_path.glob("*cat*")] == ["cat.png"]


def test_scores_need_embeddings_and_a_number():
    with pytest.raises(InputError, match="keep_embeddings"):
        result().scores()
    with pytest.raises(InputError, match="top_k.* 0"):
        result().scores(0)


def test_extreme_shapes_can_be_drawn(tmp_path):
    for shape in ((1, 1), (1, 3000), (3000, 1)):
        thin = result(np.zeros(shape, int))
        assert thin.overlay().shape == (*shape, 3)
        thin.save(tmp_path / "thin.png")
