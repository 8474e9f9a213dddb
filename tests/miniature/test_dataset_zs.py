"""The miniature in folds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
from data.episodes import FOLDS
from lseg_utils.errors import InputError
from miniature.dataset_zs import ZS_LABELS, make_fewshot_world
from miniature.drawing import COLOUR_RGB
from miniature.names import COLOURS, SHAPES, TEXTURES

TRAINING, TEST = 4, 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world; tests must not change it."""
    folder = tmp_path_factory.mktemp("worlds")
    make_fewshot_world(folder, seed=0, training=TRAINING, test=TEST)
    return folder


def dataset(root: Path, split: str, **options: object) -> data.FewShotDataset:
    return data.get_dataset("miniature_zs", root=root, split=split, **options)


@pytest.mark.parametrize("fold", FOLDS)
def test_every_colour_and_shape_of_a_test_is_trained_on_in_other_pairs(root: Path, fold: int) -> None:
    train, test = dataset(root, "train", fold=fold), dataset(root, "test", fold=fold)
    names = [{items.labels[c] for c in items.class_ids} for items in (train, test)]
    assert names[0] | names[1] == set(ZS_LABELS) and not names[0] & names[1]
    assert set(TEXTURES) <= names[0]
    assert {word for name in names[0] for word in name.split()} == {*COLOURS, *SHAPES, *TEXTURES}
    assert len(test) == TEST * len(test.class_ids) == len(set(test.episodes)) and set(test.weights) == {1}
    # of the textures' images one in four shows the compositions of this fold
    assert len(train) == TRAINING * (len(train.class_ids) - 4) + 4 * (TRAINING * 3 // 4)
    assert not {image for _, image in train.pairs} & {image for _, image in test.pairs}
    assert data.problems("miniature_zs", root, ("train", "val", "test"), fold=fold, nshot=1, held_out=3) == []


def test_the_four_tests_are_all_compositions_once(root: Path) -> None:
    tested = [c for fold in FOLDS for c in dataset(root, "test", fold=fold).class_ids]
    assert sorted(tested) == list(range(36))


def test_items_show_their_class(root: Path) -> None:
    for split in ("train", "test"):
        items = dataset(root, split, fold=1)
        assert items.crop_size == 64
        for index in range(0, len(items), 7):
            item = items[index]
            assert item["image"].shape == (3, 64, 64) and item["mask"].unique().tolist() in ([0, 1], [1])
            label = items.labels[item["class_id"]]
            if label.split()[0] in COLOUR_RGB:
                seen = (item["image"][:, item["mask"] == 1].mean(1) + 1) * 127.5
                colour = torch.tensor(COLOUR_RGB[label.split()[0]])
                others = torch.tensor([rgb for name, rgb in COLOUR_RGB.items() if name != label.split()[0]])
                assert (seen - colour).norm() < (seen - others).norm(dim=1).min()


def test_supports_are_training_images(root: Path) -> None:
    items = dataset(root, "test", nshot=1, seed=0)
    assert items[0]["support_images"].shape == (1, 3, 64, 64) and len(items) == len(dataset(root, "test"))
    with pytest.raises(InputError, match=r"needs 5 support images .* class 0 \(red circle\) has 4"):
        dataset(root, "test", nshot=5)


def test_textures_are_never_held_out(root: Path) -> None:
    val = dataset(root, "val", held_out=20)
    assert len(val.class_ids) == 20 and max(val.class_ids) < 36
    with pytest.raises(InputError, match="cannot hold out 36"):
        dataset(root, "val", held_out=[36])


def test_synonyms_are_another_label_list(root: Path) -> None:
    labels, synonyms = data.get_labels("miniature_zs", root=root), dataset(root, "test", label_src="synonyms").labels
    assert labels[0] == "red circle" and synonyms[0] == "crimson disc" and len(synonyms) == 40


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_world_is_a_function_of_its_seed_and_made_once(tmp_path: Path) -> None:
    (tmp_path / "a" / ".miniature_zs.aside" / "red_circle").mkdir(parents=True)  # left by a killed process
    folder, made = make_fewshot_world(tmp_path / "a", seed=5, training=1, test=1)
    same, _ = make_fewshot_world(tmp_path / "b", seed=5, training=1, test=1)
    other, _ = make_fewshot_world(tmp_path / "c", seed=6, training=1, test=1)
    assert made and pictures(folder) == pictures(same) != pictures(other)
    assert make_fewshot_world(tmp_path / "a", seed=5, training=1, test=1) == (folder, False)
    assert make_fewshot_world(tmp_path / "a", seed=6, training=1, test=1) == (folder, True)
    assert pictures(folder) == pictures(other)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["miniature_zs"]  # nothing left beside it


def test_somebody_else_s_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "miniature_zs").mkdir()
    with pytest.raises(InputError, match="was not made by miniature.prepare"):
        make_fewshot_world(tmp_path, seed=0, training=1, test=1)
    with pytest.raises(InputError, match="no finished world in .*miniature_zs.*run `python -m miniature"):
        data.get_labels("miniature_zs", root=tmp_path)


def test_no_world_says_what_makes_it(tmp_path: Path) -> None:
    (problem,) = data.problems("miniature_zs", tmp_path, ("test",))
    assert f"{tmp_path} has no folder miniature_zs/red_circle" in problem
    assert f"run `python -m miniature.prepare --data_path {tmp_path}`" in problem
    with pytest.raises(InputError) as caught:
        dataset(tmp_path, "test")
    assert str(caught.value) == problem


def test_a_class_that_was_deleted_is_missed(tmp_path: Path) -> None:
    folder, _ = make_fewshot_world(tmp_path, seed=0, training=1, test=1)
    shutil.rmtree(folder / "red_circle")
    (problem,) = data.problems("miniature_zs", tmp_path, ("test",))
    assert "has no folder red_circle" in problem


def test_masks_are_black_and_white_pngs_beside_jpegs(root: Path) -> None:
    paths = sorted((root / "miniature_zs" / "red_circle").iterdir())
    assert [path.name for path in paths[:2]] == ["1.jpg", "1.png"] and len(paths) == 2 * (TRAINING + TEST)
    with Image.open(paths[0]) as image, Image.open(paths[1]) as mask:
        assert (image.size, image.mode, image.format) == ((64, 64), "RGB", "JPEG")
        assert set(np.unique(np.array(mask))) == {0, 255}
    assert len(list((root / "miniature_zs" / "grass").iterdir())) == 2 * TRAINING
