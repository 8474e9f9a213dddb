"""Tiny trees of the zero-shot benchmarks in their real layouts; thousands of files in a second or two.

Pictures are drawn once for each set of classes that a picture shows and then hard-linked under all the names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.episodes import Pair, official_pairs, test_episodes

WIDTH, HEIGHT = 24, 16
IGNORED = 255


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


def make_tree(name: str, root: Path, fold: int = 0, role: str = "test") -> Path:
    """One of the three by name; returns ``root``."""
    if name == "fss":
        return make_fss(root, (role,))
    return {"pascal": make_pascal, "coco": make_coco}[name](root, fold, role)


def few_pairs(name: str, fold: int, role: str, each: int) -> list[Pair]:
    """The first ``each`` listed pairs of every class: for trees that are smaller than a real fold."""
    taken: dict[int, list[Pair]] = {}
    for pair in official_pairs(name, fold, role):
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


def replace(path: Path) -> Path:
    """Cut ``path`` off from the files it is linked to, so that a test may spoil it alone."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return path
