"""A segmentation dataset in ADE20K's folder layout: one mask for each image, under the same name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from data.pairs import find_pairs, size_problems
from data.reading import EncodedImage, check_values, read_image, read_mask
from data.sampled import SampledDataset
from encoding_ext.transforms import ImageToTensor, TrainTransform, ValTransform, image_to_tensor, mask_to_tensor
from lseg_utils.errors import InputError
from lseg_utils.progress import is_rank_zero

MODES = ("train", "val", "testval", "test")
MEAN = STD = (0.5, 0.5, 0.5)  # what the ViT backbones were trained with
PROBLEMS_SHOWN = 10


class FolderSegmentationDataset(SampledDataset):
    """Images and masks in folders; a dataset of ours states its name, folders, labels and sizes in a subclass.

    ``dataset[i]`` gives, by ``mode``:

    - ``train``: (image, mask) of one random crop, both ``crop_size`` square;
    - ``val``: (image, mask) of the centre crop, both ``crop_size`` square;
    - ``testval``: (image, mask) in the original size;
    - ``test``: (image, file name) in the original size, no mask needed.

    Images are float32 (3, h, w), by default ``(rgb / 255 - 0.5) / 0.5``; masks int64 (h, w) with -1 for unlabelled.
    """

    name: ClassVar[str]
    splits: ClassVar[dict[str, tuple[str, str | None]]]  # split -> folders of images and masks below the root
    mask_values: ClassVar[int]  # masks hold 0 (unlabelled) and 1..mask_values
    fetch_command: ClassVar[str]  # what makes or fetches it, with {root}
    archives: ClassVar[tuple[str, ...]] = ()  # downloads that become the folders once unpacked
    official_sizes: ClassVar[dict[str, int]] = {}  # images of a split, where figures are published for all of them
    base_size: int = 520
    crop_size: int = 480
    scale_range: ClassVar[tuple[float, float]] = (0.5, 2.0)  # of the long side in training, in parts of base_size

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
        """See :func:`data.get_dataset`, which makes it. Lists the folders; opens no picture."""
        self.root, self.split, self.mode = Path(root), split, mode or split
        self.base_size = type(self).base_size if base_size is None else base_size
        self.crop_size = type(self).crop_size if crop_size is None else crop_size
        self.on_bad_image, self.seed = on_bad_image, seed
        self._check_choices()
        self.labels = self.read_labels(label_src or self.default_label_src(split, self.mode), self.root)
        self.transform = transform or image_to_tensor(MEAN, STD)
        self._train_transform = TrainTransform(self.base_size, self.crop_size, self.scale_range)
        self._val_transform = ValTransform(self.crop_size)
        pairs, problems = self._pairs(self.root, split, masks=self.mode != "test")
        if problems:
            raise InputError(self._with_remedy(problems, self.root))
        self.images, self.masks = (list(paths) for paths in zip(*pairs))
        official = self.official_sizes.get(split, len(self))
        if len(self) != official and is_rank_zero():
            text = f"{self.name}, split {split}: {len(self):,} images here, {official:,} officially"
            warnings.warn(f"{text}; figures do not compare with published ones", stacklevel=2)

    @classmethod
    def read_labels(cls, label_src: str, root: Path) -> list[str]:
        """The labels that ``label_src`` stands for, at most ``mask_values``: mask value v is label v - 1.

        Values beyond the last label become unlabelled.
        """
        raise NotImplementedError

    @classmethod
    def default_label_src(cls, split: str, mode: str) -> str:
        """The ``label_src`` that is used where none is given."""
        return "default"

    @property
    def num_class(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Named subsets of the labels (as indices) whose mIoU is reported too."""
        return {}

    @classmethod
    def problems(cls, root: Path, splits: Sequence[str]) -> list[str]:
        """Everything wrong with these splits that needs no decoding: missing parts, and sizes from the headers."""
        missing, unlike = [], []
        for split in splits:
            pairs, problems = cls._pairs(Path(root), split)
            sizes = size_problems(pairs, f"checking {cls.name} {split}")
            missing += problems
            unlike += [f"{cls.name}, split {split}: {text}; fetch it again" for text in sizes]
        return ([cls._with_remedy(missing, Path(root))] if missing else []) + unlike

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | str]:
        """Sample ``index`` with all randomness from ``rng``; ``InputError`` naming the file if it cannot be used."""
        if self.mode == "train":
            return self._training_sample(index, rng)
        image = read_image(self.images[index])
        if self.mode == "test":
            return self.transform(image), self.images[index].name
        mask = Image.fromarray(self._read_mask(index, image.size))
        if self.mode == "val":
            image, mask = self._val_transform(image, mask)
        return self.transform(image), self._target(mask)

    def _training_sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """One random crop, for which no more is decoded and kept than it needs."""
        encoded = EncodedImage(self.images[index])
        crop = self._train_transform.draw(encoded.size, rng)
        pixels = crop.of_image(encoded.pixels(crop.size))
        mask = crop.of_mask(self._read_mask(index, encoded.size))
        # Somebody's own transform gets the PIL image that it expects; ours is spared the detour.
        image = pixels if isinstance(self.transform, ImageToTensor) else Image.fromarray(pixels)
        return self.transform(image), self._target(mask)

    def _target(self, mask: Image.Image | np.ndarray) -> Tensor:
        target = mask_to_tensor(mask)
        if self.num_class < self.mask_values:
            target[target >= self.num_class] = -1
        return target

    def name_of(self, index: int) -> str:
        """The path of image ``index``."""
        return str(self.images[index])

    @classmethod
    def _pairs(cls, root: Path, split: str, masks: bool = True) -> tuple[list[tuple[Path, Path | None]], list[str]]:
        if split not in cls.splits:
            raise InputError(f"{cls.name} has no split {split!r}; choose one of {', '.join(cls.splits)}")
        image_folder, mask_folder = cls.splits[split]
        pairs, problems = find_pairs(root / image_folder, root / mask_folder if mask_folder and masks else None)
        return pairs, [f"{cls.name}, split {split}: {'; '.join(problems)}"] if problems else []

    @classmethod
    def _with_remedy(cls, problems: Sequence[str], root: Path) -> str:
        """One text of what is missing and how to get it."""
        archives = [root / sub / archive for archive in cls.archives for sub in ("", "downloads")]
        packed = [str(path) for path in archives if path.is_file()]
        remedy = f"{', '.join(packed)} is there but not (wholly) unpacked; " if packed else ""
        remedy += f"run `{cls.fetch_command.format(root=root)}`, or name another folder with --data_path"
        return "\n".join([*problems, f"To mend it: {remedy}"])

    def _check_choices(self) -> None:
        problems = []
        if self.split not in self.splits:
            problems.append(f"{self.name} has no split {self.split!r}; choose one of {', '.join(self.splits)}")
        elif self.splits[self.split][1] is None and self.mode != "test":
            problems.append(f"split {self.split!r} of {self.name} has no masks; use mode='test'")
        if self.mode not in MODES:
            problems.append(f"unknown mode {self.mode!r}; choose one of {', '.join(MODES)}")
        if self.on_bad_image not in ("stop", "skip"):
            problems.append(f"on_bad_image is {self.on_bad_image!r}; choose 'stop' or 'skip'")
        elif self.on_bad_image == "skip" and self.mode in ("testval", "test"):
            problems.append("a test may not leave out images; use on_bad_image='stop'")
        if self.base_size < 1 or self.crop_size < 1:
            problems.append(f"base_size {self.base_size} and crop_size {self.crop_size} must be positive")
        if problems:
            raise InputError("\n".join(problems))

    def _read_mask(self, index: int, size: tuple[int, int]) -> np.ndarray:
        path = self.masks[index]
        values = read_mask(path)
        height, width = values.shape
        if (width, height) != size:
            image = f"its image {self.images[index]} is {size[0]}x{size[1]}"
            raise InputError(f"{path} is {width}x{height}, but {image}; fetch the dataset again")
        meaning = f"masks of {self.name} hold 0 (unlabelled) and 1..{self.mask_values}"
        check_values(path, values, np.arange(self.mask_values + 1), meaning)
        return values.astype(np.uint8, copy=False)
