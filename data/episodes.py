"""The official splits and test sequences of the zero-shot benchmarks (protocol of HSNet); no image is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from lseg_utils.errors import raise_all

SPLITS = Path(__file__).resolve().parent / "splits"
BENCHMARKS = ("pascal", "coco", "fss")
ROLES = ("train", "val", "test")
FOLDS = (0, 1, 2, 3)
SHOTS = (0, 1, 5)
EPISODES = 1000  # of a test on Pascal and COCO
PASCAL_CLASSES, COCO_CLASSES = 20, 80
FSS_FILES = {"train": "trn.txt", "val": "val.txt", "test": "test.txt"}
FSS_IMAGES = 10  # of each category

Pair = tuple[int, str]  # class index, image name


def test_episodes(name: str, fold: int, shot: int = 0) -> list[Pair]:
    """The official test sequence of ``pascal``, ``coco`` or ``fss``: ``(class index, image name)`` for each episode.

    Pascal: 1000, the fold's list over and over. COCO: 1000 drawn after ``np.random.seed(0)``; with shots, the
    support images are drawn in between, so that each number of shots has its own sequence. FSS: each image of the
    test categories once, whatever the fold; with one shot without image 1, the support (so did the official code; with
    five shots it draws supports among the other nine).

    Image names: ``2007_000033`` (Pascal), ``val2014/COCO_val2014_000000507081.jpg`` (COCO), ``bus/1.jpg`` (FSS).
    Raises ``InputError`` for an unknown name, a fold outside 0..3 and shots other than 0, 1, 5.
    """
    return evaluation_sequence(name, fold, "test", shot)


test_episodes.__test__ = False  # its name is the protocol's; pytest would take it for a test


def evaluation_sequence(name: str, fold: int, role: str, shot: int = 0) -> list[Pair]:
    """:func:`test_episodes`, or with role ``val`` the official validation.

    On Pascal and COCO that is the test itself (the official code looks at the test classes), on FSS its own 240
    validation categories.
    """
    check_choices(name, fold, shot)
    if name == "fss":
        return [(c, image) for c, image in official_pairs(name, fold, role) if shot != 1 or fss_number(image) > 1]
    if name == "coco":
        return _draw_coco(fold, shot)
    listed = official_pairs(name, fold, role)
    return [listed[number % len(listed)] for number in range(EPISODES)]


def class_ids(name: str, fold: int, role: str) -> tuple[int, ...]:
    """The classes of ``role`` (``train``, ``val`` or ``test``), ascending; ``val`` is ``test`` except on FSS."""
    check_choices(name, fold)
    if name == "fss":
        start = {"train": 0, "val": 520, "test": 760}[role]
        return tuple(range(start, start + len(_fss_categories(role))))
    number = PASCAL_CLASSES if name == "pascal" else COCO_CLASSES
    tested = range(5 * fold, 5 * fold + 5) if name == "pascal" else range(fold, COCO_CLASSES, len(FOLDS))
    return tuple(c for c in range(number) if (c in tested) != (role == "train"))


def official_pairs(name: str, fold: int, role: str) -> list[Pair]:
    """Every (class index, image name) that the split files list for ``role``, in their order, without repetition."""
    check_choices(name, fold)
    if name == "fss":
        categories = zip(class_ids(name, fold, role), _fss_categories(role))
        return [(c, f"{category}/{n}.jpg") for c, category in categories for n in range(1, FSS_IMAGES + 1)]
    if name == "coco":
        return [(c, image) for c, images in enumerate(_coco_images(fold, role)) for image in images]
    if role == "train":  # a trn file lists the fold's own classes, which are those that training leaves out
        return [pair for other in FOLDS if other != fold for pair in _pascal_file("trn", other)]
    return _pascal_file("val", fold)


def fss_number(image: str) -> int:
    """The number of an FSS image in its category: 3 for ``bus/3.jpg``."""
    return int(Path(image).stem)


def check_choices(name: str, fold: int, shot: int = 0) -> None:
    """Raise one ``InputError`` listing an unknown benchmark, fold and number of shots."""
    problems = [] if name in BENCHMARKS else [f"no split files for {name!r}; choose one of {', '.join(BENCHMARKS)}"]
    raise_all(problems + fold_and_shot_problems(fold, shot))


def fold_and_shot_problems(fold: int, shot: int) -> list[str]:
    """A sentence each for a fold outside 0..3 and for shots other than 0, 1, 5."""
    problems = [] if fold in FOLDS else [f"there is no fold {fold!r}; give --fold 0, 1, 2 or 3"]
    if shot not in SHOTS:
        problems.append(f"nshot is {shot!r}; give --nshot 0 (zero-shot), 1 or 5 (support images per class)")
    return problems


@contextmanager
def splits_in(folder: Path) -> Iterator[None]:
    """In the block, every list is read from ``folder``, which is laid out like ``data/splits``: for a dry run."""
    global SPLITS
    before, SPLITS = SPLITS, folder
    _coco_images.cache_clear(), _fss_categories.cache_clear()
    try:
        yield
    finally:
        SPLITS = before
        _coco_images.cache_clear(), _fss_categories.cache_clear()


def _draw_coco(fold: int, shot: int) -> list[Pair]:
    random = np.random.RandomState(0)  # the sequence of np.random.seed(0), without touching the global one
    classes, images = class_ids("coco", fold, "test"), _coco_images(fold, "test")
    episodes = []
    for _ in range(EPISODES):
        # choice(..., 1, replace=False) shuffles, so it uses up other random numbers than a plain draw would
        drawn = classes[random.choice(len(classes), 1, replace=False)[0]]
        query = random.choice(len(images[drawn]), 1, replace=False)[0]
        supports = 0
        while supports < shot:
            supports += int(random.choice(len(images[drawn]), 1, replace=False)[0] != query)
        episodes.append((drawn, images[drawn][query]))
    return episodes


def _pascal_file(part: str, fold: int) -> list[Pair]:
    lines = (SPLITS / "pascal" / part / f"fold{fold}.txt").read_text(encoding="ascii").split()
    return [(int(line.split("__")[1]) - 1, line.split("__")[0]) for line in lines]


@cache
def _coco_images(fold: int, role: str) -> list[list[str]]:
    """The image names of each of the 80 classes; empty lists for classes of the other role."""
    part, folder = ("trn", "train2014") if role == "train" else ("val", "val2014")
    with np.load(SPLITS / "coco.npz", allow_pickle=False) as arrays:
        ids, counts = arrays[f"{part}_fold{fold}_image_id"], arrays[f"{part}_fold{fold}_class_count"]
    names = [f"{folder}/COCO_{folder}_{number:012d}.jpg" for number in ids.tolist()]
    return [names[start:end] for start, end in pairwise(accumulate(counts.tolist(), initial=0))]


@cache
def _fss_categories(role: str) -> tuple[str, ...]:
    return tuple(sorted((SPLITS / "fss" / FSS_FILES[role]).read_text(encoding="utf-8").split()))
