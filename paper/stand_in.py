"""Tiny pictures in the real layouts of all benchmarks: stand-in data for the dry run and for tests.

Pictures of the zero-shot benchmarks are drawn once for each set of classes and then hard-linked under all the names,
so that thousands of files take a second or two.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from data import episodes
from data.episodes import FOLDS, FSS_FILES, Pair, official_pairs, test_episodes
from lseg_utils.errors import InputError

WIDTH, HEIGHT = 24, 16
IGNORED = 255
ADE20K_PARTS = {"train": "training", "val": "validation"}
FEW = 2  # images of each class in the dry run: one to segment and one support
FEW_CATEGORIES = 2  # of FSS-1000, in each of its three splits
MADE = "stand_in.txt"  # written last


def make_all(folder: Path) -> tuple[Path, Path]:
    """ADE20K and the three zero-shot benchmarks in ``folder``, a few images of each class; kept if they are there.

    Returns (root of the data, folder of the split lists for ``data.episodes.splits_in``). ``InputError`` if the folder
    contains something else.
    """
    root, splits = folder / "data", folder / "splits"
    if not (folder / MADE).is_file():
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and contains no finished stand-in data; delete it and try again")
        make_ade20k(root)
        write_small_splits(splits)
        with episodes.splits_in(splits):
            for name, make in (("pascal", make_pascal), ("coco", make_coco)):
                listed_pairs = (official_pairs(name, fold, role) for fold in FOLDS for role in ("train", "val"))
                make(root, pairs=chain.from_iterable(listed_pairs))
            make_fss(root, ("train", "val", "test"))
        (folder / MADE).write_text("finished\n", encoding="ascii")
    return root, splits


def write_small_splits(folder: Path) -> None:
    """The split lists with ``FEW`` images of each class, laid out like ``data/splits``.

    They are the images with the fewest classes, so that holding classes out of training leaves images of the others.
    """
    arrays = {}
    for part, role in (("trn", "train"), ("val", "val")):
        for name in ("pascal", "coco"):
            listed = {fold: official_pairs(name, fold, role) for fold in FOLDS}
            shown = Counter(image for _, image in set(chain.from_iterable(listed.values())))
            for fold in FOLDS:
                pairs = listed[fold]
                if name == "pascal" and role == "train":
                    # A trn file lists the fold's own classes, which are those that its training leaves out.
                    own = episodes.class_ids(name, fold, "test")
                    pairs = [pair for pair in listed[(fold + 1) % len(FOLDS)] if pair[0] in own]
                few = first_of_each_class(sorted(pairs, key=lambda pair: shown[pair[1]]), FEW)
                if name == "pascal":
                    path = folder / "pascal" / part / f"fold{fold}.txt"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    lines = [f"{image}__{class_id + 1:02d}\n" for class_id, image in few]
                    path.write_text("".join(lines), encoding="ascii")
                else:
                    few.sort()
                    arrays[f"{part}_fold{fold}_image_id"] = np.array([int(image[-16:-4]) for _, image in few])
                    counts = np.bincount([class_id for class_id, _ in few], minlength=episodes.COCO_CLASSES)
                    arrays[f"{part}_fold{fold}_class_count"] = counts
    np.savez(folder / "coco.npz", **arrays)
    (folder / "fss").mkdir()
    for name in FSS_FILES.values():
        categories = sorted((episodes.SPLITS / "fss" / name).read_text(encoding="utf-8").split())[:FEW_CATEGORIES]
        (folder / "fss" / name).write_text("\n".join(categories) + "\n", encoding="utf-8")


def make_ade20k(root: Path, train: int = 4, val: int = 3) -> Path:
    """Images ``a0``, ``a1``, ... in both splits of ``ADEChallengeData2016``; returns ``root``."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            write_ade20k_pair(root, split, f"a{number}", seed=number)
    return root


def write_ade20k_pair(root: Path, split: str, name: str, size: tuple[int, int] = (40, 30), seed: int = 0) -> None:
    """A noisy photo of ``size`` = (width, height), its left half unlabelled (0) and its right half label 7."""
    noise = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    mask[:, size[0] // 2 :] = 8
    for path, values in zip(ade20k_files(root, split, name), (noise, mask)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)


def ade20k_files(root: Path, split: str, name: str) -> tuple[Path, Path]:
    """The paths of an image and of its mask."""
    folder, part = root / "ADEChallengeData2016", ADE20K_PARTS[split]
    return folder / "images" / part / f"{name}.jpg", folder / "annotations" / part / f"{name}.png"


def make_pascal(root: Path, fold: int = 0, role: str = "test", pairs: Iterable[Pair] | None = None) -> Path:
    """``VOC2012`` with the images of this fold's ``role``: palette masks, each class within a border of 255."""
    images, masks = root / "VOC2012" / "JPEGImages", root / "VOC2012" / "SegmentationClassAug"
    shown = _classes_by_image(official_pairs("pascal", fold, role) if pairs is None else pairs)
    _write_all({images / f"{name}.jpg": ids for name, ids in shown.items()}, write_photo)
    _write_all({masks / f"{name}.png": ids for name, ids in shown.items()}, _write_palette_mask)
    return root


def make_coco(root: Path, fold: int = 0, role: str = "test", pairs: Iterable[Pair] | None = None) -> Path:
    """``COCO2014`` with the images of this fold's test episodes, or with ``pairs``: grey masks of class index + 1."""
    folder = root / "COCO2014"
    if pairs is None:
        pairs = test_episodes("coco", fold) if role == "test" else official_pairs("coco", fold, role)
    shown = _classes_by_image(pairs)
    _write_all({folder / name: ids for name, ids in shown.items()}, write_photo)
    masks = {folder / "annotations" / name[:-4]: ids for name, ids in shown.items()}
    _write_all({path.with_suffix(".png"): ids for path, ids in masks.items()}, _write_grey_mask)
    return root


def make_fss(root: Path, roles: Sequence[str] = ("test",), images: int = 10) -> Path:
    """``FSS-1000`` with all categories of ``roles``: black-and-white masks, the left half of the picture white."""
    names = dict.fromkeys(name for role in roles for _, name in official_pairs("fss", 0, role))
    names = [name for name in names if int(Path(name).stem) <= images]
    _write_all({root / "FSS-1000" / name: (0,) for name in names}, write_photo)
    _write_all({(root / "FSS-1000" / name).with_suffix(".png"): (0,) for name in names}, write_black_and_white)
    return root


def few_pairs(name: str, fold: int, role: str, each: int) -> list[Pair]:
    """The first ``each`` listed pairs of every class: for trees that are smaller than a real fold."""
    return first_of_each_class(official_pairs(name, fold, role), each)


def first_of_each_class(pairs: Iterable[Pair], each: int) -> list[Pair]:
    """The first ``each`` pairs of every class, classes in the order of their first pair."""
    taken: dict[int, list[Pair]] = {}
    for pair in pairs:
        own = taken.setdefault(pair[0], [])
        if len(own) < each:
            own.append(pair)
    return [pair for own in taken.values() for pair in own]


def write_photo(path: Path, class_ids: Sequence[int]) -> None:
    """A noisy JPEG with a stripe of its own colour for each class."""
    noise = np.random.RandomState(sum(class_ids)).randint(0, 60, (HEIGHT, WIDTH, 3))
    for class_id, (left, right) in zip(class_ids, stripes(len(class_ids))):
        noise[:, left:right] += np.random.RandomState(class_id).randint(0, 190, 3)
    Image.fromarray(noise.astype(np.uint8)).save(path, format="JPEG", quality=95)


def write_black_and_white(path: Path, class_ids: Sequence[int] = (0,)) -> None:
    """An RGB mask of 0 and 255, the left half white."""
    mask = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask[:, : WIDTH // 2] = 255
    Image.fromarray(mask).save(path, format="PNG")


def stripes(count: int) -> list[tuple[int, int]]:
    """(left, right) columns of each class's stripe; what is right of the last one is background."""
    edges = np.linspace(0, WIDTH * 3 // 4, count + 1).astype(int)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist()))


def _write_palette_mask(path: Path, class_ids: Sequence[int]) -> None:
    values = _stripe_values(class_ids)
    for left, _ in stripes(len(class_ids)):
        values[:, left] = IGNORED
    picture = Image.fromarray(values)
    picture.putpalette(np.random.RandomState(0).randint(0, 256, 768).tolist())  # values count, not colours
    picture.save(path, format="PNG")


def _write_grey_mask(path: Path, class_ids: Sequence[int]) -> None:
    Image.fromarray(_stripe_values(class_ids)).save(path, format="PNG")


def _stripe_values(class_ids: Sequence[int]) -> np.ndarray:
    values = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for class_id, (left, right) in zip(class_ids, stripes(len(class_ids))):
        values[:, left:right] = class_id + 1
    return values


def _classes_by_image(pairs: Iterable[Pair]) -> dict[str, tuple[int, ...]]:
    shown: dict[str, set[int]] = {}
    for class_id, name in pairs:
        shown.setdefault(name, set()).add(class_id)
    return {name: tuple(sorted(ids)) for name, ids in shown.items()}


def _write_all(paths: dict[Path, tuple[int, ...]], write: object) -> None:
    """Draw one picture for each set of classes, under the first name, and link the others to it."""
    drawn: dict[tuple[int, ...], Path] = {}
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for path, class_ids in paths.items():
        if class_ids in drawn:
            os.link(drawn[class_ids], path)
        else:
            write(path, class_ids)
            drawn[class_ids] = path
