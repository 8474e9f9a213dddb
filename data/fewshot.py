"""A zero-shot benchmark in folds: one image and one of its classes per item, told from everything else ('others')."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from data import episodes
from data.base import MEAN, STD
from data.episodes import ROLES, Pair, fold_and_shot_problems
from data.labels import LABEL_FILES, resolve_labels
from data.pairs import missing_files, size_problems
from data.reading import check_values, read_image, read_mask
from data.sampled import SampledDataset
from data.selection import Selection, held_out_classes, make_selection, of_held_out, spread, without_held_out
from lseg_utils.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class FewShotDataset(SampledDataset):
    """One split of one fold; a benchmark states its name, labels, files and masks in a subclass.

    ``dataset[i]`` is a dict:

    - ``image``: float32 (3, S, S), S = ``crop_size``, by default ``(rgb / 255 - 0.5) / 0.5``;
    - ``mask``: int64 (S, S), 1 the class, 0 anything else, -1 not counted;
    - ``class_id``: int, the class's place in ``labels``; ``weight``: int, how often the pair counts in a test;
    - with ``nshot`` > 0: ``support_images`` (nshot, 3, S, S) and ``support_masks`` (nshot, S, S), other images of
      the same class, drawn from the generator that :meth:`sample` gets.

    ``split`` is ``train``, ``val`` or ``test``. ``held_out``: training classes (their indices, or how many, chosen
    evenly spread) that are kept from ``train`` and make up ``val``, at most 1000 pairs of images that training does
    not show at all; so nothing is chosen by looking at a test class. 0: ``val`` is the official validation, which on
    Pascal and COCO is the test itself. A pair that a test's official sequence repeats is one item with that weight.

    Attributes: ``fold``, ``nshot``, ``held_out`` (the classes), ``class_ids`` (those of this split), ``labels`` (all),
    ``pairs``, ``episodes`` (the pairs with repetitions, in the official order).
    """

    name: ClassVar[str]
    num_labels: ClassVar[int]
    source: ClassVar[str]  # where its files come from, with {root}
    ignored_value: ClassVar[int | None] = None  # the mask value of pixels that do not count
    same_size: ClassVar[bool] = True  # whether a mask of another size than its image is a fault
    crop_size: int = 480

    def __init__(
        self,
        root: Path,
        split: str = "train",
        transform: Callable[[Image.Image], Tensor] | None = None,
        crop_size: int | None = None,
        label_src: str | None = None,
        on_bad_image: str = "stop",
        seed: int | None = None,
        fold: int = 0,
        nshot: int = 0,
        held_out: int | Sequence[int] = 0,
    ) -> None:
        """See :func:`data.get_dataset`, which makes it. Lists the folders; opens no image."""
        from encoding_ext.transforms import image_to_tensor

        self.root, self.split, self.fold, self.nshot = Path(root), split, fold, nshot
        self.crop_size = type(self).crop_size if crop_size is None else crop_size
        self.on_bad_image, self.seed = on_bad_image, seed
        self._check_choices()
        self.held_out = held_out_classes(self.holdable_classes(fold), held_out)
        selection = self._select(self.root, split, fold, nshot, self.held_out)
        self.class_ids, self.pairs, self.weights = selection.class_ids, selection.pairs, selection.weights
        self.episodes, self._supports = selection.episodes, selection.supports
        problems = self._missing(self.root, (split,), fold, self._files(self.root, selection, nshot))
        if problems:
            raise InputError("\n".join(problems))
        self.labels = self.read_labels(label_src or self.default_label_src(), self.root)
        self.transform = transform or image_to_tensor(MEAN, STD)

    @classmethod
    def read_labels(cls, label_src: str, root: Path) -> list[str]:
        """The labels in class order: ``default``, the benchmark's own names, or a file of as many lines."""
        sources = {"default": LABEL_FILES / f"fewshot_{cls.name}.txt"}
        return resolve_labels(cls.name, label_src, sources, cls.num_labels)

    @classmethod
    def default_label_src(cls, *_: str) -> str:
        """The ``label_src`` that is used where none is given, for every split."""
        return "default"

    @classmethod
    def role_classes(cls, fold: int, role: str) -> tuple[int, ...]:
        """The official classes of ``role``: train, val or test."""
        return episodes.class_ids(cls.name, fold, role)

    @classmethod
    def holdable_classes(cls, fold: int) -> tuple[int, ...]:
        """The training classes that may be held out."""
        return cls.role_classes(fold, "train")

    @classmethod
    def role_pairs(cls, root: Path, fold: int, role: str) -> list[Pair]:
        """Every (class, image) listed for ``role``."""
        return episodes.official_pairs(cls.name, fold, role)

    @classmethod
    def role_episodes(cls, root: Path, fold: int, role: str, nshot: int) -> list[Pair]:
        """The official sequence of validation or test."""
        return episodes.evaluation_sequence(cls.name, fold, role, nshot)

    @classmethod
    def support_pairs(cls, root: Path, fold: int, role: str, nshot: int) -> list[Pair]:
        """The pairs whose images may be supports in validation or test."""
        return cls.role_pairs(root, fold, role)

    @classmethod
    def files_of(cls, root: Path, image: str) -> tuple[Path, Path]:
        """Where the image of this name and its mask are."""
        raise NotImplementedError

    @classmethod
    def read_target(cls, path: Path, class_id: int) -> np.ndarray:
        """The mask of a class, int (h, w) of 1, 0 and -1; here from a file of values 0 and class index + 1."""
        values = read_mask(path)
        allowed, meaning = np.arange(cls.num_labels + 1), f"masks of {cls.name} hold 0 (nothing), 1..{cls.num_labels}"
        if cls.ignored_value is not None:
            allowed, meaning = np.append(allowed, cls.ignored_value), f"{meaning}, {cls.ignored_value} (not counted)"
        check_values(path, values, allowed, f"{meaning}; put the right file there")
        target = (values == class_id + 1).astype(np.int8)
        if cls.ignored_value is not None:
            target[values == cls.ignored_value] = -1
        return target

    @classmethod
    def problems(
        cls,
        root: Path,
        splits: Sequence[str],
        fold: int = 0,
        nshot: int = 0,
        held_out: int | Sequence[int] = 0,
    ) -> list[str]:
        """Everything wrong with the files that these splits need, as far as it shows without decoding them."""
        problems = fold_and_shot_problems(fold, nshot) + _split_problems(cls.name, splits)
        if problems:
            raise InputError("\n".join(problems))
        root, held = Path(root), held_out_classes(cls.holdable_classes(fold), held_out)
        files: dict[str, tuple[Path, Path]] = {}
        for split in splits:
            files |= cls._files(root, cls._select(root, split, fold, nshot, held), nshot)
        present = [pair for pair in files.values() if all(path.is_file() for path in pair)]
        if not cls.same_size:
            present = [(path, None) for pair in present for path in pair]
        texts = size_problems(present, f"checking {cls.name} fold {fold}")
        return cls._missing(root, splits, fold, files) + [f"{cls.name}: {text}; fetch it again" for text in texts]

    @property
    def num_class(self) -> int:
        """How many labels there are, of all folds together."""
        return len(self.labels)

    def __len__(self) -> int:
        return len(self.pairs)

    def name_of(self, index: int) -> str:
        """The path of image ``index``."""
        return str(self.files_of(self.root, self.pairs[index][1])[0])

    def count_of(self, index: int) -> int:
        """How often pair ``index`` occurs in ``episodes``."""
        return self.weights[index]

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Item ``index``, its supports drawn from ``rng``; ``InputError`` naming the file if one cannot be used."""
        import torch

        class_id, name = self.pairs[index]
        image, mask = self._read(name, class_id)
        item = {"image": image, "mask": mask, "class_id": class_id, "weight": self.weights[index]}
        if self.nshot:
            others = [other for other in self._supports[class_id] if other != name]
            drawn = rng.choice(len(others), self.nshot, replace=False)
            images, masks = zip(*(self._read(others[number], class_id) for number in drawn))
            item |= {"support_images": torch.stack(images), "support_masks": torch.stack(masks)}
        return item

    def _read(self, name: str, class_id: int) -> tuple[Tensor, Tensor]:
        """An image (3, S, S) and its mask (S, S), both squeezed to the square as HSNet does."""
        import torch
        import torch.nn.functional as F

        image_path, mask_path = self.files_of(self.root, name)
        image = read_image(image_path)
        target = torch.from_numpy(self.read_target(mask_path, class_id))
        if self.same_size and target.shape != (image.height, image.width):
            size = f"{target.shape[1]}x{target.shape[0]}"
            other = f"its image {image_path.name} is {image.width}x{image.height}"
            raise InputError(f"{mask_path} is {size}, but {other}; fetch it again")
        square = (self.crop_size, self.crop_size)
        mask = F.interpolate(target[None, None].float(), square, mode="nearest")[0, 0].long()
        return self.transform(image.resize(square, Image.Resampling.BILINEAR)), mask

    @classmethod
    def _select(cls, root: Path, split: str, fold: int, nshot: int, held: Sequence[int]) -> Selection:
        if split == "train":
            pairs = without_held_out(cls.role_pairs(root, fold, "train"), held)
            return make_selection([c for c in cls.role_classes(fold, "train") if c not in held], pairs, pairs, nshot)
        if split == "val" and held:
            pairs = of_held_out(cls.role_pairs(root, fold, "train"), held)
            return make_selection(held, spread(pairs, held), pairs, nshot)
        pool = cls.support_pairs(root, fold, split, nshot)
        return make_selection(cls.role_classes(fold, split), cls.role_episodes(root, fold, split, nshot), pool, nshot)

    @classmethod
    def _files(cls, root: Path, selection: Selection, nshot: int) -> dict[str, tuple[Path, Path]]:
        """The (image, mask) paths that a selection may open, by the image's name."""
        names = dict.fromkeys(image for _, image in selection.pairs)
        if nshot:
            names |= dict.fromkeys(image for images in selection.supports.values() for image in images)
        return {name: cls.files_of(root, name) for name in names}

    @classmethod
    def _missing(cls, root: Path, splits: Sequence[str], fold: int, files: dict[str, tuple[Path, Path]]) -> list[str]:
        """One text with all that is missing, or none."""
        missing = [f"There is no folder {root}"]
        if root.is_dir():
            missing = missing_files(path for pair in files.values() for path in pair)
        if not missing:
            return []
        looked_for = f"{cls.name}, fold {fold}, {' and '.join(splits)}: {len(files)} images with masks are needed"
        return [f"{looked_for}. {'; '.join(missing)}. {cls.source.format(root=root)}"]

    def _check_choices(self) -> None:
        problems = _split_problems(self.name, (self.split,)) + fold_and_shot_problems(self.fold, self.nshot)
        if self.on_bad_image not in ("stop", "skip"):
            problems.append(f"on_bad_image is {self.on_bad_image!r}; choose 'stop' or 'skip'")
        elif self.on_bad_image == "skip" and self.split == "test":
            problems.append("a test may not leave out images; use on_bad_image='stop'")
        if self.crop_size < 1:
            problems.append(f"crop_size {self.crop_size} must be positive")
        if problems:
            raise InputError("\n".join(problems))


def _split_problems(name: str, splits: Sequence[str]) -> list[str]:
    wrong = [split for split in splits if split not in ROLES]
    return [f"{name} has no split {split!r}; choose one of {', '.join(ROLES)}" for split in wrong]
