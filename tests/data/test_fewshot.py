from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
import fewshot_trees as trees
from ade_tree import truncate
from data.episodes import FOLDS, class_ids, official_pairs, test_episodes
from data.loading import make_loader
from encoding_ext.errors import InputError, clean_message


@pytest.fixture(scope="module")
def pascal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test and training pictures of Pascal's fold 0; tests must not change it."""
    root = trees.make_pascal(tmp_path_factory.mktemp("pascal"))
    return trees.make_pascal(root, role="train")


@pytest.fixture(scope="module")
def fss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 1,000 categories; tests must not change it."""
    return trees.make_fss(tmp_path_factory.mktemp("fss"), ("train", "val", "test"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Test pictures of Pascal's fold 0, to be spoilt."""
    return trees.make_pascal(tmp_path / "Dataset_HSN")


def dataset(name: str, root: Path, split: str = "test", **options: object) -> data.FewShotDataset:
    return data.get_dataset(name, root=root, split=split, **{"crop_size": 32, **options})


@pytest.mark.parametrize("name", ["pascal", "coco", "fss"])
def test_an_item_of_each_layout(name: str, tmp_path: Path) -> None:
    items = data.get_dataset(name, root=trees.make_tree(name, tmp_path, fold=0), split="test")
    item = items[0]
    assert item["image"].shape == (3, 480, 480) and item["image"].dtype == torch.float32
    assert item["mask"].shape == (480, 480) and item["mask"].dtype == torch.int64
    assert set(item["mask"].unique().tolist()) == ({-1, 0, 1} if name == "pascal" else {0, 1})
    assert set(item) == {"image", "mask", "class_id", "weight"}
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
    assert all(items.count_of(i) == official.count(pair) for i, pair in enumerate(items.pairs))
    assert (items[0]["weight"], items[345]["weight"]) == (3, 2)  # 1000 = 2 * 346 + 308
    assert (items.fold, items.nshot, items.class_ids, items.num_class) == (0, 0, (0, 1, 2, 3, 4), 20)


def test_the_test_of_coco_counts_to_a_thousand_too(tmp_path: Path) -> None:
    items = dataset("coco", trees.make_coco(tmp_path, fold=2), fold=2)
    assert (len(items), sum(items.weights), len(items.labels)) == (914, 1000, 80)


def test_fss_counts_with_and_without_a_shot(fss: Path) -> None:
    none, one = dataset("fss", fss), dataset("fss", fss, nshot=1)
    assert (len(none), len(one)) == (2400, 2160)
    assert set(none.weights) == set(one.weights) == {1}
    assert [len(dataset("fss", fss, split)) for split in ("train", "val")] == [5200, 2400]
    assert len(none.labels) == 1000 and none.labels[none.pairs[0][0]] == none.pairs[0][1].split("/")[0]
    assert {one.pairs[i][1].endswith("/1.jpg") for i in range(len(one))} == {False}
    assert data.problems("fss", fss, ("train", "val", "test"), nshot=5) == []


def test_the_support_of_fss_is_image_1(tmp_path: Path) -> None:
    items = dataset("fss", trees.make_fss(tmp_path), nshot=1)
    first = Path(items.name_of(0)).parent / "1.jpg"
    Image.new("RGB", (8, 8), (255, 255, 255)).save(trees.replace(first))
    assert (items[0]["support_images"] == 1).all() and not (items[0]["image"] == 1).all()


def supports_of(items: data.FewShotDataset, index: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    original = items._read
    with monkeypatch.context() as patch:
        patch.setattr(items, "_read", lambda name, class_id: read.append(name) or original(name, class_id))
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


@pytest.mark.parametrize("name", ["pascal", "coco"])
@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("held_out", [0, 1, 4])
def test_no_class_or_image_of_the_test_is_trained_on_or_chooses(
    name: str, fold: int, held_out: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("data.fewshot.missing_files", lambda paths: [])  # the lists alone matter here
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


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (15, "cannot hold out 15 of 15 training classes; give 0 to 14"),
        (-1, "cannot hold out -1"),
        ((5, 0, 21), "cannot hold out 0, 21: not among this fold's training classes"),
        (tuple(range(5, 20)), "cannot hold out every training class"),
    ],
)
def test_held_out_classes_that_cannot_be(pascal: Path, held_out: int | tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataset("pascal", pascal, "train", held_out=held_out)
    with pytest.raises(InputError, match=message):
        data.problems("pascal", pascal, ("train",), held_out=held_out)


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


# ---- what can be wrong


@pytest.mark.parametrize(
    ("name", "looked_for", "remedy"),
    [
        ("pascal", ("VOC2012/JPEGImages", "VOC2012/SegmentationClassAug"), ("VOCtrainval_11-May-2012.tar", "HSNet")),
        ("coco", ("COCO2014/val2014", "COCO2014/annotations/val2014"), ("val2014.zip", "HSNet")),
        ("fss", ("FSS-1000/abe's_flyingfish", "and 235 more"), ("FSS-1000", "HSNet")),
    ],
)
def test_a_missing_dataset_is_one_message_with_the_way_out(
    name: str, looked_for: tuple[str, ...], remedy: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "something").mkdir()
    (problem,) = data.problems(name, tmp_path, ("test",))
    for piece in (f"{name}, fold 0, test", f"{tmp_path}, which holds something", *looked_for, *remedy):
        assert piece in problem
    with pytest.raises(InputError) as caught:
        dataset(name, tmp_path)
    assert str(caught.value) == problem
    (both,) = data.problems(name, tmp_path, ("train", "val"))  # still one message
    assert "train and val" in both


def test_half_an_unpacked_dataset_says_what_lacks(own: Path) -> None:
    masks = own / "VOC2012" / "SegmentationClassAug"
    shutil.move(masks, own / "VOC2012" / "SegmentationClass")
    (problem,) = data.problems("pascal", own, ("test",))
    there = f"in {own / 'VOC2012'}, which holds JPEGImages, SegmentationClass"
    assert f"{there}, there is no folder SegmentationClassAug" in problem
    shutil.move(own / "VOC2012" / "SegmentationClass", masks)
    for name in ("2007_000033.png", "2007_000061.png"):
        (masks / name).unlink()
    (problem,) = data.problems("pascal", own, ("test",))
    assert f"{masks} lacks 2 of 345 files: 2007_000033.png, 2007_000061.png" in problem and "HSNet" in problem
    with pytest.raises(InputError, match="lacks 2 of 345 files"):
        dataset("pascal", own)


def test_a_category_with_nine_images_is_incomplete(tmp_path: Path) -> None:
    (trees.make_fss(tmp_path) / "FSS-1000" / "bus" / "7.jpg").unlink()
    (problem,) = data.problems("fss", tmp_path, ("test",))
    assert f"{tmp_path / 'FSS-1000' / 'bus'} lacks 1 of 20 files: 7.jpg" in problem


def test_only_what_is_needed_is_asked_for(own: Path) -> None:
    assert data.problems("pascal", own, ("test", "val")) == []
    assert "fold 0, train" in data.problems("pascal", own, ("train",))[0]
    assert "fold 1, test" in data.problems("pascal", own, ("test",), fold=1)[0]


def test_a_support_that_is_missing_is_asked_for_too(tmp_path: Path) -> None:
    trees.make_coco(tmp_path)  # the episodes' images only
    assert data.problems("coco", tmp_path, ("test",)) == []
    (problem,) = data.problems("coco", tmp_path, ("test",), nshot=1)
    assert "lacks" in problem
    with pytest.raises(InputError, match="lacks"):
        dataset("coco", tmp_path, nshot=1)


def test_a_damaged_file_is_found_by_the_check_or_when_read(own: Path) -> None:
    items = dataset("pascal", own)
    trees.replace(Path(items.name_of(4))).write_bytes(b"no picture")
    (problem,) = data.problems("pascal", own, ("test",))
    assert items.name_of(4) in problem and "not a readable picture" in problem and "fetch it again" in problem
    truncate(trees.replace(Path(items.name_of(6))))
    for index in (4, 6):
        with pytest.raises(InputError, match=f"{Path(items.name_of(index)).name} cannot be read"):
            items[index]
    mask = own / "VOC2012" / "SegmentationClassAug" / f"{items.pairs[8][1]}.png"
    truncate(trees.replace(mask))
    with pytest.raises(InputError) as caught:
        list(make_loader(items, 2, seed=0, shuffle=False, num_workers=1))
    assert clean_message(caught.value).startswith(items.name_of(4))


def test_training_may_pass_over_damaged_images_but_a_test_may_not(
    pascal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = trees.few_pairs("pascal", 0, "train", each=1)
    monkeypatch.setattr("data.episodes.official_pairs", lambda *_: pairs)
    root = trees.make_pascal(tmp_path, pairs=pairs)
    items = dataset("pascal", root, "train", on_bad_image="skip")
    truncate(trees.replace(Path(items.name_of(3))))
    batches = list(make_loader(items, 1, seed=0, shuffle=False))
    assert [int(batch["index"]) for batch in batches][:5] == [0, 1, 2, 4, 4]
    assert Path(items.name_of(3)).name in batches[3]["skipped"][0]
    with pytest.raises(InputError, match="may not leave out images"):
        dataset("pascal", pascal, "test", on_bad_image="skip")


def save_mask(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(trees.replace(path))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("pascal", (20, 21, 254, 255), r"holds the values 21, 254; masks of pascal hold 0 \(nothing\), 1..20, 255"),
        ("coco", (80, 81, 255), r"holds the values 81, 255; masks of coco hold 0 \(nothing\), 1..80;"),
        ("fss", (0, 1), "no pixel of 128 or more, only values up to 1"),
    ],
)
def test_mask_values_outside_the_protocol_are_named(
    name: str, values: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    items = dataset(name, trees.make_tree(name, tmp_path))
    path = items.files_of(tmp_path, items.pairs[0][1])[1]
    mask = np.zeros((trees.HEIGHT, trees.WIDTH), dtype=np.uint8)
    mask[0, : len(values)] = values
    save_mask(path, mask)
    with pytest.raises(InputError, match=message) as caught:
        items[0]
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("name", ["pascal", "coco"])
def test_a_mask_of_colours_or_of_another_size_is_named(name: str, tmp_path: Path) -> None:
    items = dataset(name, trees.make_tree(name, tmp_path))
    path = items.files_of(tmp_path, items.pairs[0][1])[1]
    save_mask(path, np.zeros((trees.HEIGHT, trees.WIDTH, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=f"{path} is a picture of mode RGB"):
        items[0]
    save_mask(path, np.zeros((trees.HEIGHT, trees.HEIGHT), dtype=np.uint8))
    with pytest.raises(InputError, match=f"{path} is 16x16, but its image .* is 24x16"):
        items[0]
    assert "is 16x16, but its image" in data.problems(name, tmp_path, ("test",))[0]


def test_fss_masks_of_any_kind_are_read_and_numbers_are_not(tmp_path: Path) -> None:
    items = dataset("fss", trees.make_fss(tmp_path), crop_size=2)
    path = Path(items.name_of(0)).with_suffix(".png")
    half = Image.fromarray(np.array([[255, 0], [255, 0]], dtype=np.uint8))
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        half.convert(mode).save(trees.replace(path))
        assert items[0]["mask"].tolist() == [[1, 0], [1, 0]]
    save_mask(path, np.full((2, 2), 40_000, dtype=np.uint16))
    with pytest.raises(InputError, match="8 bits"):
        items[0]


def test_choices_that_do_not_exist_are_told_all_at_once(own: Path) -> None:
    with pytest.raises(InputError) as caught:
        dataset("pascal", own, "testing", fold=4, nshot=2, on_bad_image="ignore", crop_size=0)
    for piece in ("'testing'; choose one of train, val, test", "no fold 4", "nshot is 2", "'ignore'", "crop_size 0"):
        assert piece in str(caught.value)
    with pytest.raises(InputError, match="no fold 9"):
        data.problems("pascal", own, ("test",), fold=9)


def test_options_of_the_other_kind_of_dataset_are_refused(own: Path) -> None:
    with pytest.raises(InputError, match="dataset ade20k knows no fold, held_out"):
        data.get_dataset("ade20k", root=own, fold=0, held_out=3)
    with pytest.raises(InputError, match="dataset ade20k knows no nshot"):
        data.check_dataset("ade20k", root=own, nshot=1)
    with pytest.raises(InputError, match="dataset pascal knows no base_size, mode"):
        data.get_dataset("pascal", root=own, split="test", mode="val", base_size=520)


def test_too_few_support_images_are_told_before_anything_is_looked_for(tmp_path: Path) -> None:
    # Class 78 of COCO (hair drier) has five images in fold 1 that show no other training class.
    with pytest.raises(InputError, match="--nshot 5 needs 5 support images .* class 78 has 4"):
        dataset("coco", tmp_path, "val", fold=1, nshot=5, held_out=[78])
