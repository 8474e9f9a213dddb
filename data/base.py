"""A segmentation dataset in ADE20K's folder layout: one mask for each image, under the same name.

torch and OpenCV are imported where samples are made: names, labels and missing files are checked without them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from data.pairs import find_pairs, size_problems
from data.reading import EncodedImage, check_values, read_image, read_mask
from data.sampled import SampledDataset
from lseg_utils.errors import InputError, raise_all
from lseg_utils.progress import is_rank_zero

if TYPE_CHECKING:
    from torch import Tensor

MODES = ("train", "val", "testval", "test")
MEAN = STD = (0.5, 0.5, 0.5)  # what the ViT backbones were trained with
PROBLEMS_SHOWN = 10
MASKS_SAMPLED = 200  # for the doubt that every label is off by one
DOUBTFUL_SHARE = 0.1  # of the pixels, when they are unlabelled


class FolderSegmentationDataset(SampledDataset):
    """Images and masks in folders; a subclass states the dataset's name, folders, mask values and labels.

    ``dataset[i]`` gives, by ``mode``:

    - ``train``: (image, mask) of one random crop, both ``crop_size`` square;
    - ``val``: (image, mask) of the centre crop, both ``crop_size`` square;
    - ``testval``: (image, mask) in the original size;
    - ``test``: (image, file name) in the original size, no mask needed.

    Images are float32 (3, h, w), by default ``(rgb / 255 - 0.5) / 0.5``; masks int64 (h, w) with -1 for unlabelled.

    A dataset with another layout overrides :meth:`files_of`, one with other masks :meth:`read_target`.
    """

    name: ClassVar[str]
    splits: ClassVar[dict[str, tuple[str, str | None]]]  # split -> folders of images and masks below the root
    mask_values: ClassVar[int]  # how many labels the masks distinguish
    unlabelled_value: ClassVar[int] = 0  # 0: labels are the values 1..mask_values; else 0..mask_values - 1
    fetch_command: ClassVar[str] = ""  # the command that downloads or makes the dataset, with {root}
    archives: ClassVar[tuple[str, ...]] = ()  # downloads that become the folders once unpacked
    official_sizes: ClassVar[dict[str, int]] = {}  # number of images per split, where published figures rest on it
    base_size: int = 520
    crop_size: int = 480
    scale_range: ClassVar[tuple[float, float]] = (0.5, 2.0)  # long side in training, in multiples of base_size

    def __init__(
        self,
        root: Path,
        split: str = "train",
        mode: str | None = None,
        transform: Callable[[Image.Image], Tensor] | None = None,
        base_size: int | None = None,
        crop_size: int | None = None,
        label_src: str | None = None,
        on_bad_image: str = "stop",
        seed: int | None = None,
    ) -> None:
        """See :func:`data.get_dataset`, which makes it. Lists the folders; opens no image."""
        from encoding_ext.transforms import TrainTransform, ValTransform, image_to_tensor

        self.root, self.split, self.mode = Path(root), split, mode or split
        self.base_size = type(self).base_size if base_size is None else base_size
        self.crop_size = type(self).crop_size if crop_size is None else crop_size
        self.on_bad_image, self.seed = on_bad_image, seed
        self._check_choices()
        self.labels = self.read_labels(label_src or self.default_label_src(split, self.mode), self.root)
        self.transform = transform or image_to_tensor(MEAN, STD)
        self._train_transform = TrainTransform(self.base_size, self.crop_size, self.scale_range)
        self._val_transform = ValTransform(self.crop_size)
        pairs, problems = self.files_of(self.root, split, masks=self.mode != "test")
        if problems:
            raise InputError(self._with_remedy([f"{self.name}, split {split}: {'; '.join(problems)}"], self.root))
        self.images, self.masks = (list(paths) for paths in zip(*pairs))
        official = self.official_sizes.get(split, len(self))
        if len(self) != official and is_rank_zero():
            text = f"{self.name}, split {split}: {len(self):,} images here, {official:,} officially"
            warnings.warn(f"{text}; results are not comparable with published ones", stacklevel=2)

    @classmethod
    def read_labels(cls, label_src: str, root: Path) -> list[str]:
        """The labels that ``label_src`` stands for, in mask order, at most ``mask_values``.

        Pixels of a label beyond the end of the list become unlabelled.
        """
        raise NotImplementedError

    @classmethod
    def default_label_src(cls, split: str, mode: str) -> str:
        """The ``label_src`` that is used where none is given."""
        return "default"

    @classmethod
    def files_of(cls, root: Path, split: str, masks: bool = True) -> tuple[list[tuple[Path, Path | None]], list[str]]:
        """The (image, mask) paths of a split, sorted, and a sentence for each thing that is missing.

        Without ``masks``, or for a split that has none, the mask is None. Lists folders; opens no file.
        """
        image_folder, mask_folder = cls.splits[split]
        return find_pairs(root / image_folder, root / mask_folder if mask_folder and masks else None)

    @classmethod
    def read_target(cls, path: Path) -> np.ndarray:
        """A mask as label indices: integers (h, w), 0..mask_values - 1, and -1 for unlabelled pixels.

        Raises ``InputError`` naming the file for values that the dataset does not have.
        """
        values, first = read_mask(path), 1 if cls.unlabelled_value == 0 else 0
        allowed = np.append(np.arange(first, cls.mask_values + first), cls.unlabelled_value)
        meaning = f"masks of {cls.name} contain {first}..{cls.mask_values + first - 1} and {cls.unlabelled_value} for "
        meaning += "unlabelled pixels. Correct the file, or the dataset's mask_values and unlabelled_value"
        check_values(path, values, np.sort(allowed), meaning)
        target = values.astype(np.int16) - first
        if not first:
            target[values == cls.unlabelled_value] = -1
        return target

    @property
    def num_class(self) -> int:
        """The number of labels."""
        return len(self.labels)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Named subsets of the labels (as indices) whose mIoU is reported too."""
        return {}

    @classmethod
    def problems(cls, root: Path, splits: Sequence[str]) -> list[str]:
        """Everything wrong with these splits that needs no decoding: missing files, and sizes from the headers.

        Warns if the labels look shifted by one, for which it decodes some masks.
        """
        raise_all(cls._split_problems(splits))
        root, missing, unequal = Path(root), [], []
        for split in splits:
            pairs, problems = cls.files_of(root, split)
            missing += [f"{cls.name}, split {split}: {'; '.join(problems)}"] if problems else []
            sizes = size_problems(pairs, f"checking {cls.name} {split}")
            unequal += [f"{cls.name}, split {split}: {text}; download it again" for text in sizes]
            if not problems and not sizes:
                try:
                    cls._warn_of_shift([mask for _, mask in pairs if mask])
                except InputError as error:  # a mask with other values
                    unequal.append(str(error))
        return ([cls._with_remedy(missing, root)] if missing else []) + unequal

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | str]:
        """Sample ``index`` with all randomness from ``rng``; ``InputError`` naming the file if it cannot be used."""
        if self.mode == "train":
            return self._training_sample(index, rng)
        image = read_image(self.images[index])
        if self.mode == "test":
            return self.transform(image), self.images[index].name
        mask = Image.fromarray(self._mask_values(index, image.size))
        if self.mode == "val":
            image, mask = self._val_transform(image, mask)
        return self.transform(image), self._target(mask)

    def _training_sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """One random crop; decodes and keeps no more pixels than it needs."""
        from encoding_ext.transforms import ImageToTensor

        encoded = EncodedImage(self.images[index])
        crop = self._train_transform.draw(encoded.size, rng)
        pixels = crop.of_image(encoded.pixels(crop.size))
        mask = crop.of_mask(self._mask_values(index, encoded.size))
        # A user's own transform gets the PIL image that it expects; ours skips that conversion.
        image = pixels if isinstance(self.transform, ImageToTensor) else Image.fromarray(pixels)
        return self.transform(image), self._target(mask)

    def _mask_values(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The mask of image ``index``, (h, w), as the transforms want it: 0 unlabelled, v is label v - 1."""
        path = self.masks[index]
        target = self.read_target(path)
        height, width = target.shape
        if (width, height) != size:
            image = f"its image {self.images[index]} is {size[0]}x{size[1]}"
            raise InputError(f"{path} is {width}x{height}, but {image}; download the dataset again")
        if target.min() < -1 or target.max() >= self.mask_values:
            found = f"{int(target.min())} to {int(target.max())}"
            raise InputError(f"{self.name}.read_target gave {found} for {path}; give -1..{self.mask_values - 1}")
        return (target + 1).astype(np.uint8 if self.mask_values < 256 else np.int32)

    def _target(self, mask: Image.Image | np.ndarray) -> Tensor:
        from encoding_ext.transforms import mask_to_tensor

        target = mask_to_tensor(mask)
        if self.num_class < self.mask_values:
            target[target >= self.num_class] = -1
        return target

    def name_of(self, index: int) -> str:
        """The path of image ``index``."""
        return str(self.images[index])

    @classmethod
    def _warn_of_shift(cls, masks: Sequence[Path]) -> None:
        """Warn if masks of values 0..N-1 are probably taken for 1..N with 0 for unlabelled: every name is then wrong.

        The signs: much is unlabelled, almost all values occur, and the last never does.
        """
        if cls.unlabelled_value != 0 or cls.official_sizes or not is_rank_zero():
            return  # the masks of a published dataset are known
        counts = np.zeros(cls.mask_values + 1, np.int64)
        for path in masks[:: -(-len(masks) // MASKS_SAMPLED)]:
            target = cls.read_target(path)
            counts += np.bincount(target.ravel() + 1, minlength=len(counts))[: len(counts)]
            if counts[-1]:
                return
        share = counts[0] / max(counts.sum(), 1)
        if share >= DOUBTFUL_SHARE and np.count_nonzero(counts[1:-1]) >= 0.8 * (cls.mask_values - 1):
            last, folder = cls.mask_values, masks[0].parent
            warnings.warn(
                f"{cls.name}: value 0, for unlabelled, covers {share:.0%} of the masks in {folder}, and no mask "
                f"contains the last label's value {last}. If the values are 0..{last - 1} instead of 1..{last}, every "
                f"label is off by one: set unlabelled_value = 255 in the dataset's class (any value that the masks do "
                f"not use for a label)",
                stacklevel=3,
            )

    @classmethod
    def _with_remedy(cls, problems: Sequence[str], root: Path) -> str:
        """One text with everything that is missing and how to get it."""
        archives = [root / sub / archive for archive in cls.archives for sub in ("", "downloads")]
        packed = [str(path) for path in archives if path.is_file()]
        remedy = f"{', '.join(packed)} was downloaded but not (completely) unpacked; " if packed else ""
        command = cls.fetch_command.format(root=root)
        remedy += f"run `{command}`" if command else f"put the files below {root}"
        return "\n".join([*problems, f"How to fix it: {remedy}, or give another folder with --data_path"])

    @classmethod
    def _split_problems(cls, splits: Sequence[str]) -> list[str]:
        known = ", ".join(cls.splits)
        return [
            f"{cls.name} has no split {split!r}; choose one of {known}" for split in splits if split not in cls.splits
        ]

    def _check_choices(self) -> None:
        problems = self._split_problems((self.split,)) + self.bad_image_problems(self.mode in ("testval", "test"))
        if self.mode != "test" and self.splits.get(self.split, (None, ""))[1] is None:
            problems.append(f"split {self.split!r} of {self.name} has no masks; use mode='test'")
        if self.mode not in MODES:
            problems.append(f"unknown mode {self.mode!r}; choose one of {', '.join(MODES)}")
        if self.base_size < 1 or self.crop_size < 1:
            problems.append(f"base_size {self.base_size} and crop_size {self.crop_size} must be positive")
        raise_all(problems)
