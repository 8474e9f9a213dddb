"""The dataset of a description: one class reads them all.

torch and OpenCV are imported where samples are made: names, labels and missing files are checked without them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from data.description_parts import Description, Files, TestProtocol
from data.masks import MaskReader, missing_package, read_segments
from data.pairs import find_pairs, size_problems
from data.reading import EncodedImage, read_image
from data.sampled import SampledDataset
from lseg_utils.errors import InputError, raise_all
from lseg_utils.progress import is_rank_zero

if TYPE_CHECKING:
    from torch import Tensor

MODES = ("train", "val", "testval", "test")
MEAN = STD = (0.5, 0.5, 0.5)  # what the ViT backbones were trained with
MASKS_SAMPLED = 200  # for the doubt that every label is off by one
DOUBTFUL_SHARE = 0.1  # of the pixels, when they are unlabelled

Pair = tuple[Path, Path | None]


@dataclass(frozen=True)
class Samples:
    """How the samples of a dataset are made, as in :func:`data.get_dataset`; None: as the description says."""

    mode: str | None = None
    transform: Callable[[Image.Image], Tensor] | None = None
    base_size: int | None = None
    crop_size: int | None = None
    label_src: str | None = None
    on_bad_image: str = "stop"
    seed: int | None = None


class DescribedDataset(SampledDataset):
    """A split of the dataset that a YAML file describes.

    ``dataset[i]`` gives, by ``mode``:

    - ``train``: (image, mask) of one random crop, both ``crop_size`` square;
    - ``val``: (image, mask) of the centre crop, both ``crop_size`` square;
    - ``testval``: (image, mask) in the original size;
    - ``test``: (image, file name) in the original size, no mask needed.

    Images are float32 (3, h, w), by default ``(rgb / 255 - 0.5) / 0.5``; masks int64 (h, w) with -1 for unlabelled.

    Attributes:
        name, labels, sizes, protocols: of the description; the labels are those that ``label_src`` chose.
        files: (image, mask) paths in the order of the samples; the mask is None in mode ``test``.
        groups: named subsets of the labels (as indices) whose mIoU is reported too.
        base_size, crop_size: pixels.
    """

    def __init__(
        self, description: Description, root: Path, split: str = "train", samples: Samples | None = None
    ) -> None:
        """See :func:`data.get_dataset`, which makes it. Lists the folders; opens no image."""
        from encoding_ext.transforms import TrainTransform, ValTransform, image_to_tensor

        samples = samples or Samples()
        self.description, self.root, self.split, self.mode = description, Path(root), split, samples.mode or split
        self.name, self.sizes = description.name, description.sizes
        self.protocols: dict[str, TestProtocol] = description.protocols
        self.base_size = self.sizes.base if samples.base_size is None else samples.base_size
        self.crop_size = self.sizes.crop if samples.crop_size is None else samples.crop_size
        self.on_bad_image, self.seed = samples.on_bad_image, samples.seed
        self._check_choices()
        self.labels, indices = description.read_labels(samples.label_src, testing=self.mode in ("testval", "test"))
        self.groups: dict[str, list[int]] = {}
        if description.unseen:
            unseen = [place for place, index in enumerate(indices) if index in description.unseen]
            self.groups["seen"] = [place for place in range(len(indices)) if place not in unseen]
            self.groups |= {"unseen": unseen} if unseen else {}
        self.masks = MaskReader(description.masks, indices, self.name)
        if self.mode != "test" and (lacking := missing_package(description.masks, self.name)):
            raise InputError(lacking)
        self.transform = samples.transform or image_to_tensor(MEAN, STD)
        self._train_transform = TrainTransform(self.base_size, self.crop_size, self.sizes.scales)
        self._val_transform = ValTransform(self.crop_size)
        self.files, problems = files_of(description, self.root, split, masks=self.mode != "test")
        if problems:
            text = f"{self.name}, split {split}: {'; '.join(problems)}"
            raise InputError(_with_remedy(description, [text], self.root))
        official = description.counts.get(split, len(self))
        if len(self) != official and is_rank_zero():
            text = f"{self.name}, split {split}: {len(self):,} images here, {official:,} officially"
            warnings.warn(f"{text}; results are not comparable with published ones", stacklevel=2)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | str]:
        """Sample ``index`` with all randomness from ``rng``; ``InputError`` naming the file if it cannot be used."""
        from encoding_ext.transforms import mask_to_tensor

        if self.mode == "train":
            return self._training_sample(index, rng)
        image = self.image(index)
        if self.mode == "test":
            return self.transform(image), self.files[index][0].name
        values = self._mask_values(index)
        if self.mode == "testval":
            return self.transform(image), mask_to_tensor(values)
        image, mask = self._val_transform(image, Image.fromarray(values))
        return self.transform(image), mask_to_tensor(mask)

    def image(self, index: int) -> Image.Image:
        """Image ``index`` as RGB, in its original size, or reduced to the description's ``max_short_side``."""
        image = read_image(self.files[index][0])
        size = self._reduced(image.size)
        if size == image.size:
            return image
        import cv2

        return Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_LINEAR))

    def target(self, index: int) -> np.ndarray:
        """The mask of image ``index`` in the size of :meth:`image`: label indices, int32 (h, w), -1 for unlabelled."""
        return self._mask_values(index).astype(np.int32) - 1

    def name_of(self, index: int) -> str:
        """The path of image ``index``."""
        return str(self.files[index][0])

    def _training_sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """One random crop; decodes and keeps no more pixels than it needs."""
        from encoding_ext.transforms import ImageToTensor, mask_to_tensor

        encoded = EncodedImage(self.files[index][0])
        crop = self._train_transform.draw(encoded.size, rng)
        pixels = crop.of_image(encoded.pixels(crop.size))
        mask = crop.of_mask(self._full_mask(index, encoded.size))
        # A user's own transform gets the PIL image that it expects; ours skips that conversion.
        image = pixels if isinstance(self.transform, ImageToTensor) else Image.fromarray(pixels)
        return self.transform(image), mask_to_tensor(mask)

    def _full_mask(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The mask of image ``index``, (h, w), as the transforms want it: 0 unlabelled, v is label v - 1."""
        path = self.files[index][1]
        segments = segments_of(self.description, self.root, self.split, path)
        values = self.masks.target(path, segments)
        height, width = values.shape
        if (width, height) != size:
            image = f"its image {self.files[index][0]} is {size[0]}x{size[1]}"
            raise InputError(f"{path} is {width}x{height}, but {image}; download the dataset again")
        return values

    def _mask_values(self, index: int) -> np.ndarray:
        """The same in the size of :meth:`image`."""
        size = EncodedImage(self.files[index][0]).size
        values, reduced = self._full_mask(index, size), self._reduced(size)
        if reduced == size:
            return values
        import cv2

        return cv2.resize(values, reduced, interpolation=cv2.INTER_NEAREST)

    def _reduced(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) with at most ``max_short_side`` on the short side."""
        limit, (width, height) = self.sizes.max_short_side, size
        if limit is None or min(size) <= limit:
            return size
        return (round(width / height * limit), limit) if width >= height else (limit, round(height / width * limit))

    def _check_choices(self) -> None:
        problems = _split_problems(self.description, (self.split,))
        problems += self.bad_image_problems(self.mode in ("testval", "test"))
        parts = self.description.splits.get(self.split, ())
        if self.mode != "test" and any(part.masks is None for part in parts):
            problems.append(f"split {self.split!r} of {self.name} has no masks; use mode='test'")
        if self.mode not in MODES:
            problems.append(f"unknown mode {self.mode!r}; choose one of {', '.join(MODES)}")
        if self.base_size < 1 or self.crop_size < 1:
            problems.append(f"base_size {self.base_size} and crop_size {self.crop_size} must be positive")
        raise_all(problems)


def files_of(description: Description, root: Path, split: str, masks: bool = True) -> tuple[list[Pair], list[str]]:
    """The (image, mask) paths of a split, and a sentence for each thing that is missing.

    Without ``masks``, or for a split that has none, the mask is None. Lists folders; opens no picture.
    """
    pairs, problems = [], []
    for part in description.splits[split]:
        found, texts = files_of_part(description, root, part, masks)
        pairs += found
        problems += texts
    return pairs, problems


def files_of_part(
    description: Description, root: Path, part: Files, masks: bool = True
) -> tuple[list[Pair], list[str]]:
    """The same for a part of a split."""
    reader = MaskReader(description.masks, (), description.name)
    mask_folder = root / part.masks if part.masks and masks else None
    listed = root / part.names if isinstance(part.names, str) else part.names
    try:
        pairs, problems = find_pairs(root / part.images, mask_folder, description.names, reader.suffixes, listed)
    except InputError as error:  # a list that cannot be read
        return [], [str(error)]
    if part.segments and masks and not (root / part.segments).is_file():
        problems.append(f"there is no file {root / part.segments}")
    return pairs, problems


def segments_of(description: Description, root: Path, split: str, mask: Path) -> dict[int, int] | None:
    """The categories of a panoptic mask's segments; None for any other mask."""
    for part in description.splits[split]:
        if part.segments and (listed := read_segments(root / part.segments).get(mask.name)) is not None:
            return listed
    return None


def problems(description: Description, root: Path, splits: Sequence[str]) -> list[str]:
    """Everything wrong with these splits that needs no decoding: missing files, and sizes from the headers.

    Warns if the labels look shifted by one, for which it decodes some masks of a dataset that is not a known one.
    """
    raise_all(_split_problems(description, splits))
    lacking = missing_package(description.masks, description.name)
    missing, unequal = [], [lacking] if lacking else []
    reader = MaskReader(description.masks, tuple(range(len(description.labels))), description.name)
    for split in splits:
        pairs, texts = files_of(description, root, split)
        missing += [f"{description.name}, split {split}: {'; '.join(texts)}"] if texts else []
        sizes = size_problems(pairs, f"checking {description.name} {split}", reader.header_problem)
        unequal += [f"{description.name}, split {split}: {text}" for text in sizes]
        if not texts and not sizes and not description.known and is_rank_zero():
            try:
                if doubt := _doubt_of_shift(reader, [mask for _, mask in pairs if mask]):
                    warnings.warn(doubt, stacklevel=2)
            except InputError as error:  # a mask with other values
                unequal.append(str(error))
    return ([_with_remedy(description, missing, root)] if missing else []) + unequal


def _doubt_of_shift(reader: MaskReader, masks: Sequence[Path]) -> str:
    """A sentence if masks of values 0..N-1 are probably taken for 1..N with 0 for unlabelled: every name is then wrong.

    The signs: much is unlabelled, almost all values occur, and the last never does.
    """
    values = sorted(value for value, index in reader.masks.table.items() if index >= 0)
    count = len(reader.indices)
    in_order = reader.masks.coding == "values" and values == list(range(1, count + 1))
    if not in_order or reader.masks.table.get(0) != -1 or not masks:
        return ""
    counts = np.zeros(count + 1, np.int64)
    for path in masks[:: -(-len(masks) // MASKS_SAMPLED)]:
        counts += np.bincount(reader.target(path).ravel(), minlength=count + 1)
        if counts[-1]:
            return ""
    share = counts[0] / max(counts.sum(), 1)
    if share < DOUBTFUL_SHARE or np.count_nonzero(counts[1:-1]) < 0.8 * (count - 1):
        return ""
    return (
        f"{reader.name}: value 0, for unlabelled, covers {share:.0%} of the masks in {masks[0].parent}, and no mask "
        f"contains the last label's value {count}. If the values are 0..{count - 1} instead of 1..{count}, every label "
        f"is off by one: write first: 0 and ignore: [255] below mask (any value that the masks do not use for a label)"
    )


def _with_remedy(description: Description, texts: Sequence[str], root: Path) -> str:
    """One text with everything that is missing and how to get it."""
    archives = [root / sub / archive for archive in description.archives for sub in ("", "downloads")]
    packed = [str(path) for path in archives if path.is_file()]
    remedy = f"{', '.join(packed)} was downloaded but not (completely) unpacked; " if packed else ""
    fetch = description.fetch.replace("{root}", str(root))
    remedy += fetch if fetch else f"put the files below {root}"
    own = "" if description.known else f", or correct {description.path}"
    return "\n".join([*texts, f"How to fix it: {remedy}, or give another folder with --data_path{own}"])


def _split_problems(description: Description, splits: Sequence[str]) -> list[str]:
    known = ", ".join(description.splits)
    return [
        f"{description.name} has no split {split!r}; choose one of {known}"
        for split in splits
        if split not in description.splits
    ]
