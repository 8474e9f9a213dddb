"""Loaders: the same samples in the same order whatever the number of workers and processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import data
from ade_tree import image_path, make_tree, truncate
from data.loading import EpochSampler, SeededDataset, make_loader
from lseg_utils.errors import InputError, clean_message

pytestmark = pytest.mark.filterwarnings("ignore:.*officially")


@pytest.fixture
def train(tmp_path: Path) -> data.DescribedDataset:
    return data.get_dataset("ade20k", root=make_tree(tmp_path, train=7), base_size=20, crop_size=16)


def indices(sampler: EpochSampler) -> list[int]:
    return [index for _, index in sampler]


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    sampler = EpochSampler(20, seed=1, shuffle=True)
    first = list(sampler)
    assert list(sampler) == first and {epoch for epoch, _ in first} == {0}
    sampler.set_epoch(1)
    second = list(sampler)
    assert {epoch for epoch, _ in second} == {1}
    assert [i for _, i in second] != [i for _, i in first]
    assert sorted(i for _, i in second) == list(range(20))
    assert indices(EpochSampler(20, seed=2, shuffle=True)) != [i for _, i in first]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_training_shares_are_equal_and_cover_everything(world: int) -> None:
    shares = [indices(EpochSampler(10, 0, True, rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-10 // world)}
    assert {index for share in shares for index in share} == set(range(10))
    alone = indices(EpochSampler(10, 0, True))
    assert [share[0] for share in shares] == alone[:world]  # the same order, dealt out


def test_drop_last_leaves_out_instead_of_repeating() -> None:
    shares = [indices(EpochSampler(10, 0, True, rank, 4, drop_last=True)) for rank in range(4)]
    assert [len(share) for share in shares] == [2, 2, 2, 2]
    assert len({index for share in shares for index in share}) == 8


def test_more_processes_than_images_still_share_equally() -> None:
    assert [len(EpochSampler(2, 0, True, rank, 5)) for rank in range(5)] == [1] * 5


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_test_sees_every_image_exactly_once(world: int) -> None:
    samplers = [EpochSampler(7, 0, False, rank, world) for rank in range(world)]
    shares = [indices(sampler) for sampler in samplers]
    assert sorted(index for share in shares for index in share) == list(range(7))
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]


def epoch_of(loader: torch.utils.data.DataLoader, epoch: int) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    loader.sampler.set_epoch(epoch)
    seen = {}
    for batch in loader:
        for index, image, mask in zip(batch["index"].tolist(), batch["image"], batch["mask"]):
            seen[index] = (image, mask)
    return seen


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(x, y) for i in a for x, y in zip(a[i], b[i]))


def test_samples_depend_on_neither_workers_nor_batches_nor_processes_nor_history(
    train: data.DescribedDataset,
) -> None:
    plain = make_loader(train, 1, seed=4, shuffle=True)
    zero, one = epoch_of(plain, 0), epoch_of(plain, 1)
    assert len(zero) == len(one) == 7 and not same(zero, one)
    workers = make_loader(train, 3, seed=4, shuffle=True, num_workers=2)
    assert same(epoch_of(workers, 0), zero) and same(epoch_of(workers, 1), one)
    resumed = make_loader(train, 2, seed=4, shuffle=True)
    assert same(epoch_of(resumed, 1), one)
    shares = [epoch_of(make_loader(train, 2, seed=4, shuffle=True, rank=rank, world=2), 1) for rank in range(2)]
    assert same(shares[0] | shares[1], one)
    assert not same(epoch_of(make_loader(train, 1, seed=5, shuffle=True), 0), zero)


def test_a_loader_leaves_the_global_random_numbers_alone(train: data.DescribedDataset) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    epoch_of(make_loader(train, 2, seed=4, shuffle=True), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_drop_last_leaves_out_the_incomplete_batch(train: data.DescribedDataset) -> None:
    def sizes(batch_size: int, **place: int) -> list[int]:
        loader = make_loader(train, batch_size, seed=0, shuffle=True, drop_last=True, **place)
        return [len(batch["index"]) for batch in loader]

    assert sizes(3) == [3, 3]
    assert sizes(8) == [7]  # all there is
    assert sizes(2, rank=8, world=9) == [1]


def test_a_test_loader_gives_names(train: data.DescribedDataset) -> None:
    images = data.get_dataset("ade20k", root=train.root, split="val", mode="test")
    batches = list(make_loader(images, 1, seed=0, shuffle=False))
    assert [batch["name"] for batch in batches] == [["a0.jpg"], ["a1.jpg"], ["a2.jpg"]]
    assert batches[0]["image"].shape == (1, 3, 30, 40)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_stops_by_default_and_is_named(train: data.DescribedDataset, workers: int) -> None:
    truncate(image_path(train.root, "train", "a4"))
    with pytest.raises(InputError) as caught:
        list(make_loader(train, 2, seed=0, shuffle=True, num_workers=workers))
    assert clean_message(caught.value).startswith(str(image_path(train.root, "train", "a4")))


def test_a_bad_image_may_be_skipped_and_is_reported(train: data.DescribedDataset) -> None:
    truncate(image_path(train.root, "train", "a4"))
    batches = list(make_loader(train, 2, seed=0, shuffle=False, on_bad_image="skip"))
    assert [index for batch in batches for index in batch["index"].tolist()] == [0, 1, 2, 3, 5, 5, 6]
    texts = [text for batch in batches for text in batch["skipped"]]
    assert [bool(text) for text in texts] == [False] * 4 + [True] + [False] * 2
    assert "a4.jpg cannot be read" in texts[4]


def test_the_choice_of_the_dataset_holds_where_the_loader_has_none(tmp_path: Path) -> None:
    root = make_tree(tmp_path, train=2)
    truncate(image_path(root, "train", "a0"))
    skipping = data.get_dataset("ade20k", root=root, base_size=20, crop_size=16, on_bad_image="skip")
    assert SeededDataset(skipping, seed=0)[0, 0]["index"] == 1
