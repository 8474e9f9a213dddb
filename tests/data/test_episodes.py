"""The official test sequences, by their golden hashes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import data
from data.episodes import FOLDS, class_ids, official_pairs, test_episodes
from lseg_utils.errors import InputError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "episodes.json").read_text())


@pytest.mark.parametrize("key", sorted(GOLDEN))
def test_the_sequence_is_the_official_one(key: str) -> None:
    name, fold = key.split("_fold")
    episodes = data.test_episodes(name, int(fold))
    lines = "\n".join(f"{class_id} {image}" for class_id, image in episodes)
    assert hashlib.sha256(lines.encode()).hexdigest() == GOLDEN[key]["sha256"]
    assert (len(episodes), len(set(episodes))) == (GOLDEN[key]["n"], GOLDEN[key]["distinct"])
    first = GOLDEN[key]["first"]
    assert [list(episode) for episode in episodes[: len(first)]] == first


def test_the_sequence_leaves_the_global_random_numbers_alone() -> None:
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    test_episodes("coco", 0)
    assert np.random.random() == expected


def test_shots_change_the_sequence_only_where_supports_are_drawn_from_it() -> None:
    assert test_episodes("pascal", 0, 5) == test_episodes("pascal", 0)
    without, one = test_episodes("coco", 0), test_episodes("coco", 0, 1)
    assert one[0] == without[0] and one[1:] != without[1:]
    assert len(one) == 1000 and {c for c, _ in one} <= set(class_ids("coco", 0, "test"))


def test_fss_has_each_image_once_and_without_the_support_where_there_is_one() -> None:
    assert len(set(test_episodes("fss", 0))) == len(test_episodes("fss", 3)) == 2400
    one = test_episodes("fss", 0, 1)
    assert len(set(one)) == 2160 and not any(image.endswith("/1.jpg") for _, image in one)
    assert test_episodes("fss", 0, 5) == test_episodes("fss", 0)


def test_the_classes_of_a_fold() -> None:
    assert class_ids("pascal", 1, "test") == (5, 6, 7, 8, 9) == class_ids("pascal", 1, "val")
    assert class_ids("coco", 2, "test")[:3] == (2, 6, 10)
    for name, total, tested in (("pascal", 20, 5), ("coco", 80, 20)):
        for fold in FOLDS:
            train, test = set(class_ids(name, fold, "train")), set(class_ids(name, fold, "test"))
            assert len(test) == tested and train | test == set(range(total)) and not train & test
    assert [len(class_ids("fss", 0, role)) for role in ("train", "val", "test")] == [520, 240, 240]
    assert class_ids("fss", 2, "test")[0] == 760


@pytest.mark.parametrize("name", ["pascal", "coco", "fss"])
@pytest.mark.parametrize("fold", FOLDS)
def test_lists_show_the_classes_of_their_role_and_no_test_image_is_trained_on(name: str, fold: int) -> None:
    listed = {role: official_pairs(name, fold, role) for role in ("train", "test")}
    for role, pairs in listed.items():
        assert {c for c, _ in pairs} == set(class_ids(name, fold, role))
        assert len(set(pairs)) == len(pairs)
    assert not {image for _, image in listed["train"]} & {image for _, image in listed["test"]}


def test_a_class_index_is_the_place_in_the_label_file() -> None:
    labels = data.get_labels("fss")
    for role in ("train", "val", "test"):
        assert all(labels[c] == image.split("/")[0] for c, image in official_pairs("fss", 0, role))
    assert len(official_pairs("fss", 0, "train")) == 5200
    assert data.get_labels("pascal")[test_episodes("pascal", 3)[0][0]] == "train"  # 2007_000042 shows trains
    assert len(data.get_labels("coco")) == 80


def test_wrong_choices_are_told_all_at_once() -> None:
    with pytest.raises(InputError) as caught:
        data.test_episodes("voc", 4, 2)
    for piece in ("'voc'; choose one of pascal, coco, fss", "no fold 4; give --fold 0, 1, 2 or 3", "nshot is 2"):
        assert piece in str(caught.value)
    with pytest.raises(InputError, match="no fold -1"):
        class_ids("coco", -1, "test")
