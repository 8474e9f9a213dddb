"""What the zero-shot benchmarks say of missing, broken and impossible input."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
import fewshot_trees as trees
from ade_tree import truncate
from data.loading import make_loader
from lseg_utils.errors import InputError


@pytest.fixture(scope="module")
def pascal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test pictures of Pascal's fold 0, made once."""
    return trees.make_pascal(tmp_path_factory.mktemp("pascal"))


@pytest.fixture
def own(pascal: Path, tmp_path: Path) -> Path:
    """The same pictures, to be spoilt by one test: links that ``trees.replace`` cuts off."""
    return shutil.copytree(pascal, tmp_path / "Dataset_HSN", copy_function=os.link)


def dataset(name: str, root: Path, split: str = "test", **options: object) -> data.FewShotDataset:
    return data.get_dataset(name, root=root, split=split, **{"crop_size": 32, **options})


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (15, "cannot hold out 15 of 15 training classes; give 0 to 14"),
        (-1, "cannot hold out -1"),
        ((5, 0, 21), "cannot hold out 0, 21: not among this fold's training classes"),
        (tuple(range(5, 20)), "cannot hold out every training class"),
    ],
)
def test_held_out_classes_that_cannot_be(own: Path, held_out: int | tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataset("pascal", own, "train", held_out=held_out)
    with pytest.raises(InputError, match=message):
        data.problems("pascal", own, ("train",), held_out=held_out)


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
    for piece in (f"{name}, fold 0, test", str(tmp_path), "it contains something", *looked_for, *remedy):
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
    there = f"{own / 'VOC2012'} has no folder SegmentationClassAug"
    assert f"{there}; it contains JPEGImages, SegmentationClass" in problem
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
    assert items.name_of(4) in problem and "not a readable image" in problem and "again" in problem
    truncate(trees.replace(Path(items.name_of(6))))
    for index in (4, 6):
        with pytest.raises(InputError, match=f"{Path(items.name_of(index)).name} cannot be read"):
            items[index]
    mask = own / "VOC2012" / "SegmentationClassAug" / f"{items.pairs[8][1]}.png"
    truncate(trees.replace(mask))
    with pytest.raises(InputError) as caught:
        list(make_loader(items, 2, seed=0, shuffle=False))
    assert str(caught.value).startswith(items.name_of(4))


def test_training_may_pass_over_damaged_images_but_a_test_may_not(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = trees.few_pairs("pascal", 0, "train", each=1)
    trees.make_pascal(own, pairs=pairs)
    with monkeypatch.context() as patch:
        patch.setattr("data.episodes.official_pairs", lambda *_: pairs)
        items = dataset("pascal", own, "train", on_bad_image="skip")
    truncate(trees.replace(Path(items.name_of(3))))
    batches = list(make_loader(items, 1, seed=0, shuffle=False))
    assert [int(batch["index"]) for batch in batches][:5] == [0, 1, 2, 4, 4]
    assert Path(items.name_of(3)).name in batches[3]["skipped"][0]
    with pytest.raises(InputError, match="must not leave out images"):
        dataset("pascal", own, "test", on_bad_image="skip")


def save_mask(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(trees.replace(path))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "pascal",
            (20, 21, 254, 255),
            r"contains the values 21, 254; masks of pascal contain 0 \(nothing\), 1..20, 255",
        ),
        ("coco", (80, 81, 255), r"contains the values 81; masks of coco contain 0 \(nothing\), 1..80, 255"),
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
def test_a_mask_of_colours_is_named(name: str, tmp_path: Path) -> None:
    items = dataset(name, trees.make_tree(name, tmp_path))
    path = items.files_of(tmp_path, items.pairs[0][1])[1]
    save_mask(path, np.zeros((trees.HEIGHT, trees.WIDTH, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=f"{path} is an image of mode RGB"):
        items[0]


@pytest.mark.parametrize("name", ["pascal", "coco", "fss"])
def test_a_mask_of_another_size_is_resized_alike_and_reported(name: str, tmp_path: Path) -> None:
    items = dataset(name, trees.make_tree(name, tmp_path))
    class_id, image = items.pairs[0]
    path = items.files_of(tmp_path, image)[1]
    value = 255 if name == "fss" else class_id + 1
    save_mask(path, np.array([[value, 0]] * trees.HEIGHT, dtype=np.uint8))
    assert data.problems(name, tmp_path, ("test",)) == []
    item = items[0]
    assert (item["mask"][:, :16] == 1).all() and (item["mask"][:, 16:] == 0).all()
    assert item["note"] == f"a mask of another size than its image: {path}"


@pytest.mark.parametrize(("name", "values", "mask"), [("coco", "void", [0, 0, 1, 1]), ("fss", [127, 1, 0, 9], [0] * 4)])
def test_masks_that_hsnet_accepts_are_accepted_and_reported(
    name: str, values: str | list[int], mask: list[int], tmp_path: Path
) -> None:
    items = dataset(name, trees.make_tree(name, tmp_path), crop_size=4)
    class_id, image = items.pairs[0]
    path = items.files_of(tmp_path, image)[1]
    row = [255, 255, class_id + 1, class_id + 1] if values == "void" else values
    with Image.open(items.name_of(0)) as picture:
        width, height = picture.size
    save_mask(path, np.repeat([row] * height, width // 4, axis=1).astype(np.uint8))
    item = items[0]
    assert item["mask"][0].tolist() == mask
    reason = "pixels of no class (255) counted as others" if name == "coco" else "no pixel of the class"
    assert item["note"] == f"{reason}: {path}"


def test_a_class_without_images_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [pair for pair in trees.few_pairs("coco", 0, "train", each=1) if pair[0] not in (1, 6)]
    monkeypatch.setattr("data.episodes.official_pairs", lambda *_: pairs)
    with pytest.raises(InputError, match=r"coco, fold 0, train: .*class 1 \(bicycle\), 6 \(train\)"):
        data.check_dataset("coco", tmp_path, ("train",))


def test_an_incomplete_training_split_of_coco_is_told_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = trees.few_pairs("coco", 0, "train", each=2)
    trees.make_coco(tmp_path, role="train", pairs=pairs)
    monkeypatch.setattr("data.episodes.official_pairs", lambda *_: pairs)
    items = dataset("coco", tmp_path, "train")
    Path(items.name_of(5)).unlink()
    for check in (lambda: dataset("coco", tmp_path, "train"), lambda: data.check_dataset("coco", tmp_path, ("train",))):
        with pytest.raises(InputError, match=f"lacks 1 of .*{Path(items.name_of(5)).name}"):
            check()


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
    with pytest.raises(InputError, match="dataset ade20k does not take fold, held_out"):
        data.get_dataset("ade20k", root=own, fold=0, held_out=3)
    with pytest.raises(InputError, match="dataset ade20k does not take nshot"):
        data.check_dataset("ade20k", root=own, nshot=1)
    with pytest.raises(InputError, match="dataset pascal does not take base_size, mode"):
        data.get_dataset("pascal", root=own, split="test", mode="val", base_size=520)


def test_too_few_support_images_are_told_before_anything_is_looked_for(tmp_path: Path) -> None:
    # Class 78 of COCO (hair drier) has five images in fold 1 that show no other training class.
    with pytest.raises(InputError, match="--nshot 5 needs 5 support images .* class 78 .hairdrier. has 4"):
        dataset("coco", tmp_path, "val", fold=1, nshot=5, held_out=[78])
