"""The zero-shot benchmarks on tiny trees in their real layouts."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
import fewshot_trees as trees
from data.episodes import FOLDS, class_ids, official_pairs, splits_in, test_episodes
from data.loading import SeededDataset, make_loader
from lseg_utils.errors import InputError
from paper.stand_in import write_small_splits

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "zero_shot_training.json").read_text())


@pytest.fixture(scope="module")
def pascal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test and training pictures of Pascal's fold 0; tests must not change it."""
    root = trees.make_pascal(tmp_path_factory.mktemp("pascal"))
    return trees.make_pascal(root, role="train")


@pytest.fixture
def lists_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets without a file on disk: an item names its class and image, and shows nothing."""
    monkeypatch.setattr("data.fewshot.FewShotDataset._files", lambda *_: {})
    monkeypatch.setattr("data.fewshot.FewShotDataset._read", lambda *_: (torch.zeros(1), torch.zeros(1)))


def dataset(name: str, root: Path, split: str = "test", **options: object) -> data.FewShotDataset:
    return data.get_dataset(name, root=root, split=split, **{"crop_size": 32, **options})


@pytest.mark.parametrize("name", ["pascal", "coco", "fss"])
def test_an_item_of_each_layout(name: str, tmp_path: Path) -> None:
    items = data.get_dataset(name, root=trees.make_tree(name, tmp_path, fold=0), split="test")
    item = items[0]
    assert item["image"].shape == (3, 480, 480) and item["image"].dtype == torch.float32
    assert item["mask"].shape == (480, 480) and item["mask"].dtype == torch.int64
    assert set(item["mask"].unique().tolist()) == ({-1, 0, 1} if name == "pascal" else {0, 1})
    assert set(item) == {"image", "mask", "class_id", "weight", "note"} and item["note"] == ""
    assert (item["class_id"], Path(items.name_of(0)).stem) == (items.pairs[0][0], Path(items.pairs[0][1]).stem)
    assert data.problems(name, tmp_path, ("test",)) == []


def test_masks_of_each_class_by_hand(tmp_path: Path) -> None:
    shown: dict[str, list[int]] = {}
    for class_id, name in official_pairs("pascal", 0, "test"):
        shown.setdefault(name, []).append(class_id)
    name = next(name for name, ids in shown.items() if len(ids) == 2)
    items = dataset("pascal", trees.make_pascal(tmp_path), crop_size=trees.WIDTH)
    for place, class_id in enumerate(sorted(shown[name])):
        mask = items[items.pairs.index((class_id, name))]["mask"]
        expected = torch.zeros(trees.WIDTH, dtype=torch.int64)
        left, right = trees.stripes(2)[place]
        expected[left:right] = 1
        expected[[edge for edge, _ in trees.stripes(2)]] = -1  # the borders of both classes
        assert torch.equal(mask, expected.expand(trees.WIDTH, -1))


def test_masks_are_resized_to_the_nearest_of_the_original(tmp_path: Path) -> None:
    root = trees.make_fss(tmp_path)
    items = dataset("fss", root, crop_size=10)
    rows = np.array([[255, 0, 127], [128, 0, 255]], dtype=np.uint8)
    Image.fromarray(rows).save(trees.replace(Path(items.name_of(0)).with_suffix(".png")))
    # pixel i of 10 comes from floor(i * side / 10)
    columns, lines = [i * 3 // 10 for i in range(10)], [i * 2 // 10 for i in range(10)]
    expected = torch.from_numpy((rows >= 128).astype(np.int64))[lines][:, columns]
    assert torch.equal(items[0]["mask"], expected)


def test_images_are_squeezed_by_pil(pascal: Path) -> None:
    items = dataset("pascal", pascal)
    with Image.open(items.name_of(5)) as picture:
        square = np.array(picture.resize((32, 32), Image.Resampling.BILINEAR))
    expected = torch.from_numpy(square).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(items[5]["image"], expected, atol=1e-6, rtol=0)
    imagenet = dataset("pascal", pascal, transform=lambda image: torch.tensor(image.size))
    assert imagenet[0]["image"].tolist() == [32, 32]


def test_a_test_has_distinct_pairs_with_their_number(pascal: Path) -> None:
    items, official = dataset("pascal", pascal), test_episodes("pascal", 0)
    assert items.episodes == official and items.pairs == list(dict.fromkeys(official))
    assert (len(items), sum(items.weights)) == (346, 1000)
    assert all(items.weights[i] == official.count(pair) for i, pair in enumerate(items.pairs))
    assert (items[0]["weight"], items[345]["weight"]) == (3, 2)  # 1000 = 2 * 346 + 308
    assert (items.fold, items.nshot, items.class_ids, items.num_class) == (0, 0, (0, 1, 2, 3, 4), 20)


def test_the_test_of_coco_counts_to_a_thousand_too(tmp_path: Path) -> None:
    items = dataset("coco", trees.make_coco(tmp_path, fold=2), fold=2)
    assert (len(items), sum(items.weights), len(items.labels)) == (914, 1000, 80)


def test_fss_counts_with_and_without_a_shot(lists_only: None, tmp_path: Path) -> None:
    none, one, five = (dataset("fss", tmp_path, nshot=nshot) for nshot in (0, 1, 5))
    for shot, items in ((0, none), (1, one), (5, five)):
        assert len(items) == GOLDEN["fss_test_episodes"][f"shot{shot}"]
    assert set(none.weights) == set(one.weights) == {1}
    assert [len(dataset("fss", tmp_path, split)) for split in ("train", "val")] == [5200, 2400]
    assert len(none.labels) == 1000 and none.labels[none.pairs[0][0]] == none.pairs[0][1].split("/")[0]
    assert {one.pairs[i][1].endswith("/1.jpg") for i in range(len(one))} == {False}


def test_all_files_of_fss_are_found(tmp_path: Path) -> None:
    roles = ("train", "val", "test")
    write_small_splits(tmp_path / "splits")
    with splits_in(tmp_path / "splits"):
        assert data.problems("fss", trees.make_fss(tmp_path, roles), roles, nshot=5) == []
        assert len(list(tmp_path.rglob("*.jpg"))) == 60  # of two categories in each role


def test_the_only_support_of_fss_is_image_1(tmp_path: Path) -> None:
    items = dataset("fss", trees.make_fss(tmp_path), nshot=1)
    first = Path(items.name_of(0)).parent / "1.jpg"
    Image.new("RGB", (8, 8), (255, 255, 255)).save(trees.replace(first))
    assert (items[0]["support_images"] == 1).all() and not (items[0]["image"] == 1).all()


def supports_of(items: data.FewShotDataset, index: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    original = items._read
    with monkeypatch.context() as patch:
        patch.setattr(items, "_read", lambda name, *others: read.append(name) or original(name, *others))
        item = items.sample(index, np.random.default_rng(seed))
    shots = items.nshot
    assert item["support_images"].shape == (shots, 3, 32, 32) and item["support_masks"].shape == (shots, 32, 32)
    assert read[0] == items.pairs[index][1]
    return read[1:]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("nshot", [1, 5])
def test_supports_are_other_images_of_the_class(
    pascal: Path, split: str, nshot: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = dataset("pascal", pascal, split, nshot=nshot)
    role = "train" if split == "train" else "test"
    for index in range(0, len(items), len(items) // 10):
        class_id, name = items.pairs[index]
        drawn = supports_of(items, index, 0, monkeypatch)
        assert len(set(drawn)) == nshot and name not in drawn
        assert {(class_id, other) for other in drawn} <= set(official_pairs("pascal", 0, role))
        assert drawn == supports_of(items, index, 0, monkeypatch)
    assert supports_of(items, 0, 1, monkeypatch) != supports_of(items, 0, 2, monkeypatch)


def test_never_the_query_even_where_little_else_is_there(pascal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = trees.few_pairs("pascal", 0, "train", each=2)
    monkeypatch.setattr("data.episodes.official_pairs", lambda *_: pairs)
    items = dataset("pascal", pascal, "train", nshot=1)
    for index, (class_id, name) in enumerate(pairs):
        for seed in range(5):
            (drawn,) = supports_of(items, index, seed, monkeypatch)
            assert drawn != name and (class_id, drawn) in pairs


@pytest.mark.parametrize("name", ["pascal", pytest.param("coco", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("held_out", [0, 1, 4])
def test_no_class_or_image_of_the_test_is_trained_on_or_chooses(
    name: str, fold: int, held_out: int, lists_only: None, tmp_path: Path
) -> None:
    options = {"fold": fold, "held_out": held_out}
    train, val, test = (dataset(name, tmp_path, split, **options) for split in ("train", "val", "test"))
    assert not set(train.class_ids) & set(test.class_ids)
    assert not {image for _, image in train.pairs} & {image for _, image in test.pairs}
    assert {c for c, _ in train.pairs} == set(train.class_ids)
    assert not {image for _, image in train.pairs} & {image for _, image in val.pairs}
    if not held_out:
        assert val.pairs == test.pairs and val.weights == test.weights
        return
    assert len(val.class_ids) == held_out and {c for c, _ in val.pairs} == set(val.class_ids)
    assert val.class_ids == val.held_out == train.held_out and 0 < len(val) <= 1000
    assert set(train.class_ids) | set(val.class_ids) == set(class_ids(name, fold, "train"))
    assert not set(train.class_ids) & set(val.class_ids)
    assert not {image for _, image in val.pairs} & {image for _, image in test.pairs}
    assert val.class_ids == dataset(name, tmp_path, "val", fold=fold, held_out=val.class_ids).class_ids


def test_held_out_classes_are_spread_evenly_or_named(pascal: Path) -> None:
    assert dataset("pascal", pascal, "val", held_out=3).class_ids == (7, 12, 17)  # of 5..19
    named = dataset("pascal", pascal, "val", held_out=[19, 6])
    assert named.class_ids == (6, 19) and {c for c, _ in named.pairs} == {6, 19}
    assert len(dataset("pascal", pascal, "train")) == len(official_pairs("pascal", 0, "train"))


def batches_of(items: data.FewShotDataset, **options: object) -> dict[int, dict[str, torch.Tensor]]:
    loader = make_loader(items, seed=4, **{"batch_size": 1, "shuffle": True, **options})
    loader.sampler.set_epoch(1)
    seen = {}
    for batch in loader:
        for place, index in enumerate(batch["index"].tolist()):
            seen[index] = {key: value[place] for key, value in batch.items() if isinstance(value, torch.Tensor)}
    return seen


def test_samples_depend_on_neither_workers_nor_batches(pascal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = trees.few_pairs("pascal", 0, "train", each=3)
    monkeypatch.setattr("data.episodes.official_pairs", lambda *_: pairs)
    items = dataset("pascal", pascal, "train", nshot=1)
    plain = batches_of(items)
    assert sorted(plain) == list(range(45))
    assert set(plain[0]) == {"image", "mask", "class_id", "weight", "support_images", "support_masks", "index"}
    for options in ({"num_workers": 2, "batch_size": 7}, {"shuffle": False, "batch_size": 4}):
        other = batches_of(items, **options)
        assert (list(other) == list(plain)) == options.get("shuffle", True)
        for index, item in plain.items():
            assert all(torch.equal(item[key], other[index][key]) for key in item)
    assert plain[7]["class_id"] == pairs[7][0]


@pytest.mark.parametrize("fold", FOLDS)
def test_training_on_coco_draws_classes_uniformly(fold: int, lists_only: None, tmp_path: Path) -> None:
    golden, items = GOLDEN["coco"][f"fold{fold}"], dataset("coco", tmp_path, "train", fold=fold)
    assert len(items) == golden["items_per_epoch"]
    assert len(items.pairs) == golden["pairs_class_image"] and len(items.class_ids) == golden["classes"]
    loaded, drawn = SeededDataset(items, seed=0), 6000
    sampled = [loaded[0, index] for index in range(drawn)]
    pairs = [items.pairs[item["index"]] for item in sampled]
    assert [class_id for class_id, _ in pairs] == [item["class_id"] for item in sampled]
    expected = drawn * golden["share_of_each_class"]
    counts = Counter(class_id for class_id, _ in pairs)
    # Each count is binomial with a standard deviation of 10; pairs drawn uniformly would give up to 1,800 persons.
    assert set(counts) == set(items.class_ids) and max(abs(n - expected) for n in counts.values()) < 45
    rare = min(Counter(class_id for class_id, _ in items.pairs).items(), key=itemgetter(1))[0]
    assert len({image for c, image in pairs if c == rare}) > 20  # each time another image of it


def test_what_coco_draws_depends_on_seed_epoch_and_index_only(lists_only: None, tmp_path: Path) -> None:
    items = dataset("coco", tmp_path, "train", held_out=3)
    assert set(items.class_ids).isdisjoint(items.held_out) and len(items.class_ids) == 57
    assert len(items) == len({image for c, image in items.pairs}) < GOLDEN["coco"]["fold0"]["items_per_epoch"]

    def drawn(seed: int, epoch: int) -> list[int]:
        return [SeededDataset(items, seed)[epoch, index]["index"] for index in range(50)]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(0, 1) and drawn(0, 0) != drawn(1, 0)


@pytest.mark.parametrize("name", ["pascal", "fss"])
def test_other_benchmarks_train_on_each_pair_once(name: str, lists_only: None, tmp_path: Path) -> None:
    train = dataset(name, tmp_path, "train")
    assert [train.sample(i, np.random.default_rng(0))["class_id"] for i in (0, 7)] == [
        train.pairs[i][0] for i in (0, 7)
    ]
    assert train.pairs == official_pairs(name, 0, "train") and len(train) == len(train.pairs)


@pytest.mark.parametrize("nshot", [1, 5])
@pytest.mark.parametrize(("name", "length"), [("pascal", 1000), ("coco", 1000), ("fss", None)])
def test_fine_tuning_learns_from_supports_of_the_test_classes(
    name: str, length: int | None, nshot: int, lists_only: None, tmp_path: Path
) -> None:
    items = dataset(name, tmp_path, GOLDEN["finetune_mode"]["split"].replace("test", "finetune"), nshot=nshot)
    if name == "pascal":
        assert list(items.class_ids) == GOLDEN["finetune_mode"]["pascal_fold0_classes"]
    assert items.class_ids == class_ids(name, 0, "test")
    assert len(items) == (length or GOLDEN["fss_test_episodes"][f"shot{nshot}"])
    allowed = set(official_pairs(name, 0, "test"))
    for index in range(0, len(items), 97):
        item = items.sample(index, np.random.default_rng(index))
        assert "image" not in item and len(item["support_images"]) == nshot
        assert item["class_id"] == items.episodes[index][0]
        assert items.pairs[item["index"]] in allowed and items.pairs[item["index"]] != items.episodes[index]


def test_fine_tuning_needs_shots_and_loads_batches(pascal: Path) -> None:
    with pytest.raises(InputError, match="nshot=1 or nshot=5"):
        dataset("pascal", pascal, "finetune")
    assert data.problems("pascal", pascal, ("finetune",), nshot=5) == []
    batch = next(iter(make_loader(dataset("pascal", pascal, "finetune", nshot=5), 3, seed=0, shuffle=True)))
    assert batch["support_images"].shape == (3, 5, 3, 32, 32) and set(batch["class_id"].tolist()) <= set(range(5))


def test_damaged_images_are_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = trees.few_pairs("coco", 0, "train", each=2)
    trees.make_coco(tmp_path, role="train", pairs=pairs)
    monkeypatch.setattr("data.episodes.official_pairs", lambda *_: pairs)
    items = dataset("coco", tmp_path, "train", on_bad_image="skip")
    loaded = SeededDataset(items, seed=0)
    first = loaded[0, 0]
    trees.replace(Path(items.name_of(first["index"]))).write_bytes(b"no image")
    again = loaded[0, 0]
    assert Path(items.name_of(first["index"])).name in again["skipped"] and again["index"] != first["index"]


def test_a_dataset_can_be_sent_to_a_worker(pascal: Path) -> None:
    items = dataset("pascal", pascal, nshot=1, seed=3)
    item, sent = items[2], pickle.loads(pickle.dumps(items))[2]
    assert torch.equal(item["support_images"], sent["support_images"]) and item["class_id"] == sent["class_id"]


def test_labels_are_the_benchmark_s_or_a_file_s(pascal: Path, tmp_path: Path) -> None:
    assert dataset("pascal", pascal).labels[:2] == ["aeroplane", "bicycle"]
    mine = tmp_path / "mine.txt"
    mine.write_text("\n".join(f"thing {n}" for n in range(20)))
    assert dataset("pascal", pascal, label_src=str(mine)).labels[19] == "thing 19"


def test_default_root_is_the_official_one() -> None:
    repository = Path(data.__file__).resolve().parents[1]
    assert data.FEWSHOT_ROOT == repository / "data" / "Dataset_HSN"
    assert data.DEFAULT_ROOT == repository.parent / "datasets"
