"""The miniature world in four folds of unseen compositions, laid out like FSS-1000: made here, and as a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.episodes import FOLDS, Pair
from data.fss import FSS
from data.labels import resolve_labels
from lseg_utils.errors import InputError
from lseg_utils.progress import progress_bar
from miniature.drawing import draw_scene
from miniature.folder import make_folder, read_settings, save_pair, write_labels
from miniature.names import COLOURS, LABELS, SHAPES, TEXTURES
from miniature.world import SIZE, ZS_TEST_IMAGES, ZS_TRAINING_IMAGES, compose

FOLDER = "miniature_zs"
VERSION = 1  # raise it when the same seed gives other pictures
MAX_OBJECTS = 4

ZS_LABELS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES) + TEXTURES
COMPOSITIONS = len(COLOURS) * len(SHAPES)


def fold_of(class_id: int) -> int | None:
    """The fold that tests a class, None for textures: (colour + shape) mod 4.

    These diagonals of the colour-shape grid leave every colour and every shape to the training of each fold.
    """
    return sum(divmod(class_id, len(SHAPES))) % len(FOLDS) if class_id < COMPOSITIONS else None


def make_fewshot_world(
    root: str | Path, seed: int, training: int = ZS_TRAINING_IMAGES, test: int = ZS_TEST_IMAGES
) -> tuple[Path, bool]:
    """Write the world of ``seed`` into ``<root>/miniature_zs``, unless exactly this one is there already.

    training, test: number of images per class (textures have training images only). An image shows its class among
    others of the same fold only, so that training on the other folds never shows a test composition.

    Returns the folder and whether it was made now. Raises ``InputError`` if the folder was not made by this function
    or cannot be written.
    """
    folder = Path(root) / FOLDER
    settings = {"version": VERSION, "seed": seed, "size": SIZE, "counts": {"training": training, "test": test}}
    return folder, make_folder(folder, settings, lambda aside: _write_all(aside, settings))


class MiniatureZS(FSS):
    """``miniature_zs/<class>/<n>.{jpg,png}``: 36 compositions in four folds, four textures that are always trained on.

    The first images of each class are for training, the others for the test, where the former serve as supports. As
    on Pascal, the official validation is the test. ``label_src``: ``default``, ``synonyms``, or a file of 40 lines.
    """

    name = "miniature_zs"
    num_labels = len(ZS_LABELS)
    source = (
        "How to fix it: run `python -m miniature.prepare --data_path {root}`, or give another folder with --data_path"
    )
    crop_size = SIZE

    @classmethod
    def read_labels(cls, label_src: str, root: Path) -> list[str]:
        """The labels of ``label_src``, from the files next to the images."""
        if read_settings(root / FOLDER) is None:
            remedy = cls.source.format(root=root)
            raise InputError(f"{cls.name}: there is no finished world in {root / FOLDER}. {remedy}")
        sources = {"default": root / FOLDER / "labels.txt", "synonyms": root / FOLDER / "synonyms.txt"}
        return resolve_labels(cls.name, label_src, sources, cls.num_labels)

    @classmethod
    def role_classes(cls, fold: int, role: str) -> tuple[int, ...]:
        """Test and validation: the fold's compositions; training: all others and the textures."""
        return tuple(c for c in range(cls.num_labels) if (fold_of(c) == fold) != (role == "train"))

    @classmethod
    def holdable_classes(cls, fold: int) -> tuple[int, ...]:
        """The compositions of the other folds: a texture, which no test asks for, would choose nothing useful."""
        return cls.role_classes(fold, "train")[: -len(TEXTURES)]

    @classmethod
    def role_pairs(cls, root: Path, fold: int, role: str) -> list[Pair]:
        """The training or the test images of each class; no texture image with compositions of the fold."""
        first, last = _numbers(*_counts(root), role)
        return [
            (c, _image_name(c, number))
            for c in cls.role_classes(fold, role)
            for number in range(first, last + 1)
            if c < COMPOSITIONS or _texture_fold(number) != fold
        ]

    @classmethod
    def role_episodes(cls, root: Path, fold: int, role: str, nshot: int) -> list[Pair]:
        """Each test image of the fold's classes once."""
        return cls.role_pairs(root, fold, "test")

    @classmethod
    def support_pairs(cls, root: Path, fold: int, role: str, nshot: int) -> list[Pair]:
        """The training images of the fold's classes, which its training has not seen."""
        first, last = _numbers(*_counts(root), "train")
        return [(c, _image_name(c, n)) for c in cls.role_classes(fold, role) for n in range(first, last + 1)]

    @classmethod
    def files_of(cls, root: Path, image: str) -> tuple[Path, Path]:
        """``image``: class and number, such as ``red_circle/1.jpg``."""
        path = root / FOLDER / image
        return path, path.with_suffix(".png")


def _write_all(folder: Path, settings: dict) -> None:
    counts = settings["counts"]
    images = [(c, n) for c in range(COMPOSITIONS) for n in range(1, sum(counts.values()) + 1)]
    images += [(c, n) for c in range(COMPOSITIONS, len(ZS_LABELS)) for n in range(1, counts["training"] + 1)]
    for class_id, number in progress_bar(images, desc="miniature world in folds", unit="image"):
        rng = np.random.default_rng([settings["seed"], class_id, number])
        image, mask = _draw(class_id, number, rng)
        path = folder / _image_name(class_id, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_pair(path, image, path.with_suffix(".png"), mask)
    write_labels(folder, ZS_LABELS)


def _draw(class_id: int, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (size, size, 3), that shows the class, and its mask, uint8 (size, size) of 0 and 255."""
    texture = class_id >= COMPOSITIONS
    fold = _texture_fold(number) if texture else fold_of(class_id)
    others = [c for c in range(COMPOSITIONS) if fold_of(c) == fold and c != class_id]
    shown = [int(c) for c in rng.permutation(others)[: rng.integers(1, MAX_OBJECTS)]]
    # The class comes first, since only later objects may find no room; then anything may be in front of anything.
    placed = compose(rng, [ZS_LABELS[c] for c in ([] if texture else [class_id]) + shown])
    background = ZS_LABELS[class_id] if texture else str(rng.choice(TEXTURES))
    image, values = draw_scene(background, [placed[i] for i in rng.permutation(len(placed))], SIZE, rng)
    return image, np.where(values == LABELS.index(ZS_LABELS[class_id]) + 1, 255, 0).astype(np.uint8)


def _texture_fold(number: int) -> int:
    """The fold whose compositions texture image ``number`` shows."""
    return number % len(FOLDS)


def _image_name(class_id: int, number: int) -> str:
    return f"{ZS_LABELS[class_id].replace(' ', '_')}/{number}.jpg"


def _numbers(training: int, test: int, role: str) -> tuple[int, int]:
    """The first and the last number of the images for ``role``."""
    return (1, training) if role == "train" else (training + 1, training + test)


def _counts(root: Path) -> tuple[int, int]:
    """The number of training and test images per class; the defaults if there is no world."""
    counts = (read_settings(root / FOLDER) or {}).get("counts", {})
    return counts.get("training", ZS_TRAINING_IMAGES), counts.get("test", ZS_TEST_IMAGES)
