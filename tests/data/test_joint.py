"""Several datasets in one training: names and weights, label tables, what an epoch shows to whom."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from data.joint import JointChoice, split_sets
from data.label_table import LabelTable
from data.lightning import TrainingData
from data.loading import JointSampler
from encoding_ext.transforms import image_to_tensor
from joint_sets import COLOURS, SHAPES, make_set, make_two
from lseg_utils.errors import InputError
from lseg_utils.label_sets import LabelSet, all_texts


def table_of(tmp_path: Path, text: str) -> LabelTable:
    (tmp_path / "table.yaml").write_text(text)
    return LabelTable(tmp_path / "table.yaml")


def choice_of(tmp_path: Path, text: str | None = None, **options: object) -> JointChoice:
    return JointChoice.of(text or make_two(tmp_path), workers=0, **options)


# ------------------------------------------------------------------------------------------ names and weights


def test_weights_stand_after_colons():
    assert split_sets("ade20k, cityscapes:2,my.yaml:0.5") == [("ade20k", 1), ("cityscapes", 2), ("my.yaml", 0.5)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ade20k:0,cityscapes:0", ["all weights are 0"]),
        ("ade20k:-1,cityscapes", ["ade20k:-1", "at least 0"]),
        ("ade20k:two,cityscapes", ["'two' is not a number", "ade20k:2"]),
        ("ade20k,ade20k:2", ["ade20k twice"]),
    ],
)
def test_weights_that_mean_nothing(text, pieces):
    with pytest.raises(InputError) as caught:
        split_sets(text)
    assert all(piece in str(caught.value) for piece in pieces), caught.value


def test_unknown_datasets_are_named_together_with_the_nearest(tmp_path):
    with pytest.raises(InputError) as caught:
        choice_of(tmp_path, "ade20,citscapes:2")
    assert all(piece in str(caught.value) for piece in ("'ade20'", "ade20k", "'citscapes'", "cityscapes"))


def test_a_list_of_labels_is_used_where_a_dataset_has_it(tmp_path):
    choice = choice_of(tmp_path, f"ade20k,{make_set(tmp_path, 'own', COLOURS)}", label_src="corrected")
    assert "coffee table" in choice.label_sets[0].labels and choice.label_sets[1].labels == COLOURS
    with pytest.raises(InputError, match="none of own, cityscapes has such a list"):
        choice_of(tmp_path, f"{tmp_path / 'own.yaml'},cityscapes", label_src="corrected")


def test_sets_without_a_common_label_are_told(tmp_path):
    (sentence, other) = choice_of(tmp_path).unshared()
    assert "colours" in sentence and "shapes" in other and "conflicts" in sentence


# ------------------------------------------------------------------------------------------------ label tables


def test_a_table_renames_drops_and_unites(tmp_path):
    text = "street:\n  rename: {auto: car, lorry: Car}\n  drop: [void]\n  unions: {animal: [dog, cat]}\n"
    table = table_of(tmp_path, text)
    found, numbers = table.settle("street", ["road", "auto", "void", "animal", "lorry"])
    assert found.labels == ("road", "car", "animal") and found.unions == {"animal": ("dog", "cat")}
    assert numbers == (0, 1, -1, 2, 1)  # two labels of the same name are one
    assert all_texts([found]) == ["road", "car", "dog", "cat"]
    assert LabelTable().settle("x", ["screen", "wall", "screen"])[1] == (0, 1, 0)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("street: {rename: {raod: path}}", ["table.yaml, line 1", "'raod'", "road"]),
        ("street: {drop: [sky]}", ["'sky'"]),
        ("street: {drop: [road, car]}", ["every label"]),
        ("street: {unions: {bus: [a, b]}}", ["'bus'"]),
        ("street: {unions: {road: [car, b]}}", ["'car' belongs to the labels"]),
        ("street: {dorp: [road]}", ["'dorp'", "drop"]),
    ],
)
def test_a_table_that_does_not_fit(text, pieces, tmp_path):
    with pytest.raises(InputError) as caught:
        table_of(tmp_path, text).settle("street", ["road", "car"])
    assert all(piece in str(caught.value) for piece in pieces), caught.value


def test_an_entry_for_no_dataset(tmp_path):
    with pytest.raises(InputError, match="'steet'.*street"):
        table_of(tmp_path, "steet: {drop: [road]}").check_names(["street"])
    table_of(tmp_path, "cityscapes: {drop: [road]}").check_names(["street"])  # of another training


# ------------------------------------------------------------------------------------------------------ epochs


def shown(sampler: JointSampler, epoch: int = 0) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def sampler_of(sizes=(10, 4, 3), weights=(1, 2, 0), batch=2, **options) -> JointSampler:
    return JointSampler(sizes, weights, seed=5, batch_size=batch, **options)


def test_an_epoch_shows_each_image_as_often_as_its_weight_and_never_looks_the_same_twice():
    first, second = shown(sampler_of()), shown(sampler_of(), epoch=1)
    assert Counter(index for _, index in first) == Counter({i: 1 for i in range(10)} | {i: 2 for i in range(10, 14)})
    assert len(set(first + second)) == 36, "no (visit, index) repeats, on which the augmentation depends"
    assert first != second and first == shown(sampler_of())


def test_fractions_show_all_images_equally_often_over_the_epochs():
    sampler = sampler_of(sizes=(10, 7), weights=(0.3, 1.5), batch=1)
    seen = [index for epoch in range(10) for _, index in shown(sampler, epoch)]
    counts = Counter(seen)
    assert all(counts[i] == 3 for i in range(10)) and {counts[i] for i in range(10, 17)} <= {14, 15}


def test_datasets_are_spread_evenly_over_an_epoch():
    order = [index >= 900 for _, index in shown(sampler_of(sizes=(900, 100), weights=(1, 3), batch=1))]
    assert all(20 <= sum(order[start : start + 100]) <= 30 for start in range(0, 1200, 100))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_steps_of_one_process_and_each_gets_its_share_of_each_dataset(world):
    sizes, weights = (60, 24), (1, 2)
    one = shown(sampler_of(sizes, weights, batch=4 * world))
    shares = [shown(sampler_of(sizes, weights, batch=4, rank=rank, world=world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    for step in range(len(one) // (4 * world)):
        together = [place for share in shares for place in share[4 * step : 4 * step + 4]]
        assert sorted(together) == sorted(one[4 * world * step :][: 4 * world])
        of_the_first = [sum(index < 60 for _, index in share[4 * step : 4 * step + 4]) for share in shares]
        assert max(of_the_first) - min(of_the_first) <= 1


def test_a_few_images_for_many_processes_are_repeated():
    shares = [shown(sampler_of((2, 1), (1, 1), batch=4, rank=rank, world=2)) for rank in range(2)]
    assert [len(share) for share in shares] == [2, 2] and {i for share in shares for _, i in share} == {0, 1, 2}


# ------------------------------------------------------------------------------------------------------ images


def loaders(choice: JointChoice) -> tuple[list[dict], list[dict]]:
    """The batches of the first epoch and of its validation, one image each."""
    data = TrainingData(choice, image_to_tensor((0.5,) * 3, (0.5,) * 3), batch_size=1, seed=0)
    return list(data.train_dataloader()), list(data.val_dataloader())


def test_masks_have_the_numbers_of_their_own_label_set(tmp_path):
    text = make_two(tmp_path)
    table = tmp_path / "table.yaml"
    table.write_text("colours: {drop: [red]}\nshapes: {rename: {red disc: sky}}\n")
    train, val = loaders(choice_of(tmp_path, text, table=table))
    assert len(train) == 6 + 2 * 4 and len(val) == 4
    for batch in train + val:
        assert batch["mask"].max() < (2, 3)[batch["source"]] and batch["mask"].min() == -1
    assert sum(int((batch["mask"] == 2).sum()) for batch in train) > 0
    # Without the table: sky is 3, red disc 0; both are now 0.
    plain = loaders(choice_of(tmp_path, text))[1]
    for before, after in zip(plain, val, strict=True):
        expected = {0: [-1, 0, 1, -1], 1: [0, 1, 2, 0, -1]}[int(before["source"])]
        assert torch.equal(torch.tensor(expected)[before["mask"]], after["mask"])


def test_label_sampling_keeps_the_labels_of_the_image_and_others(tmp_path):
    many = [f"thing {number}" for number in range(50)]
    first, second = make_set(tmp_path, "many", many, side=16), make_set(tmp_path, "colours", COLOURS)
    train, val = loaders(choice_of(tmp_path, f"{first},{second}", label_sampling=7, crop_size=32))
    drawn = []
    for batch in train:
        count = (50, 3)[batch["source"]]
        compared, present = batch["compared"][0], batch["mask"][batch["mask"] >= 0].unique()
        assert compared[present].all() and not compared[count:].any()
        assert int(compared.sum()) == min(len(present) + 7, count)
        drawn.append(frozenset(np.flatnonzero(compared.numpy())))
    assert len(set(drawn)) > len(drawn) // 2 and "compared" not in val[0]
    again = loaders(choice_of(tmp_path, f"{first},{second}", label_sampling=7, crop_size=32))[0]
    assert all(torch.equal(a["compared"], b["compared"]) for a, b in zip(train, again, strict=True))


def test_the_two_sets_of_the_tests_are_unlike():
    sets = [LabelSet("colours", COLOURS), LabelSet("shapes", SHAPES)]
    assert all_texts(sets) == [*COLOURS, *SHAPES]
