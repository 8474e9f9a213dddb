"""A zero-shot benchmark in folds: an item is an image and one of its classes; all other pixels are 'others'.

torch is imported where samples are made: labels and missing files are checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from data import episodes
from data.described import MEAN, STD
from data.episodes import ROLES, Pair, fold_and_shot_problems
from data.labels import LABEL_FILES, resolve_labels
from data.pairs import missing_files, size_problems
from data.reading import check_values, read_image, read_mask
from data.sampled import SampledDataset
from data.selection import Selection, held_out_classes, make_selection, of_held_out, spread, without_held_out
from lseg_utils.errors import raise_all

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = (*ROLES, "finetune")
IGNORED = -1  # a pixel that counts neither in the prediction nor in the truth
VOID = -2  # a pixel that the benchmark does not define; it counts as 'others', and is reported


class FewShotDataset(SampledDataset):
    """One split of one fold; a subclass states the benchmark's name, labels, files and masks.

    ``dataset[i]`` is a dict:

    - ``image``: float32 (3, S, S), S = ``crop_size``, by default ``(rgb / 255 - 0.5) / 0.5``;
    - ``mask``: int64 (S, S), 1 the class, 0 anything else, -1 not counted in the metrics;
    - ``class_id``: int, the class's index in ``labels``; ``weight``: int, how often the pair counts in a test;
    - ``note``: str, what is unusual about the masks ("REASON: FILE", one per line), or "";
    - with ``nshot`` > 0: ``support_images`` (nshot, 3, S, S) and ``support_masks`` (nshot, S, S), other images of
      the same class, drawn from the generator that :meth:`sample` gets;
    - where the item is drawn from that generator, ``index``: its place in ``pairs``.

    ``split``:

    - ``train``: every (class, image) pair of the training classes once; with ``class_balanced``, as many items as
      there are distinct images, each a class drawn uniformly and then one of its images;
    - ``val`` and ``test``: the official sequence. A pair that it repeats is one item with that weight;
    - ``finetune``: the support images of the *test* classes, without ``image`` and ``mask``: ``nshot`` images of the
      class of each test episode. As published, on Pascal and COCO they come from the list that is tested on.

    ``held_out``: training classes (their indices, or how many, chosen evenly spread) that are kept from ``train`` and
    make up ``val``, at most 1000 pairs of images that training does not show at all, so that no test class chooses
    anything. 0: ``val`` is the official validation, which on Pascal and COCO is the test itself.

    Attributes: ``fold``, ``nshot``, ``held_out`` (the classes), ``class_ids`` (those of this split), ``labels`` (all),
    ``pairs``, ``weights`` (how often each pair occurs in the episodes), ``episodes`` (the pairs with repetitions, in
    the official order).
    """

    name: ClassVar[str]
    num_labels: ClassVar[int]
    source: ClassVar[str]  # where its files come from, with {root}
    special_values: ClassVar[dict[int, int]] = {}  # mask values that stand for no class -> IGNORED or VOID
    class_balanced: ClassVar[bool] = False  # whether training draws classes uniformly
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
        self._place = {pair: place for place, pair in enumerate(self.pairs)}
        self._images: dict[int, list[str]] = {}  # class -> its images, to draw from
        self.draws_items = split == "train" and self.class_balanced
        self._length = len(self.episodes) if split == "finetune" else len(self.pairs)
        if self.draws_items:
            for class_id, image in self.pairs:
                self._images.setdefault(class_id, []).append(image)
            self._length = len({image for _, image in self.pairs})
        raise_all(self._missing(self.root, (split,), fold, self._files(self.root, selection, nshot)))
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
        """The paths of the image of this name and of its mask."""
        raise NotImplementedError

    @classmethod
    def read_target(cls, path: Path, class_id: int) -> np.ndarray:
        """The mask of a class, int8 (h, w): 1 the class, 0 others, IGNORED or VOID.

        Here from a file whose values are 0, class index + 1 and ``special_values``; raises ``InputError`` naming the
        file for other values.
        """
        values = read_mask(path)
        allowed = np.append(np.arange(cls.num_labels + 1), list(cls.special_values)).astype(int)
        meaning = f"masks of {cls.name} contain 0 (nothing), 1..{cls.num_labels}"
        meaning += "".join(f", {value} (no class)" for value in cls.special_values)
        check_values(path, values, allowed, f"{meaning}; replace the file by the right one")
        target = (values == class_id + 1).astype(np.int8)
        for value, code in cls.special_values.items():
            target[values == value] = code
        return target

    @classmethod
    def problems(
        cls, root: Path, splits: Sequence[str], fold: int = 0, nshot: int = 0, held_out: int | Sequence[int] = 0
    ) -> list[str]:
        """Everything wrong with the files that these splits need, as far as it shows without decoding them."""
        raise_all(cls._choice_problems(splits, fold, nshot))
        root, held = Path(root), held_out_classes(cls.holdable_classes(fold), held_out)
        files: dict[str, tuple[Path, Path]] = {}
        for split in splits:
            files |= cls._files(root, cls._select(root, split, fold, nshot, held), nshot)
        present = [(path, None) for pair in files.values() for path in pair if path.is_file()]
        texts = size_problems(present, f"checking {cls.name} fold {fold}")
        return cls._missing(root, splits, fold, files) + [f"{cls.name}: {text}; download it again" for text in texts]

    def __len__(self) -> int:
        return self._length

    def name_of(self, index: int) -> str:
        """The path of the image of pair ``index``."""
        return str(self.files_of(self.root, self.pairs[index][1])[0])

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Item ``index``, drawn from ``rng`` as the class says; ``InputError`` naming a file that cannot be used."""
        import torch

        # 1. Which class, and which image of it.
        item: dict[str, Any] = {}
        if self.draws_items:
            class_id = self.class_ids[rng.integers(len(self.class_ids))]
            image_name = self._images[class_id][rng.integers(len(self._images[class_id]))]
            index = item["index"] = self._place[class_id, image_name]
        else:
            class_id, image_name = (self.episodes if self.split == "finetune" else self.pairs)[index]
        item |= {"class_id": class_id, "weight": 1 if self.split == "finetune" else self.weights[index]}
        # 2. The image and its mask, unless only supports are learned from.
        notes: list[str] = []
        if self.split != "finetune":
            item["image"], item["mask"] = self._read(image_name, class_id, notes)
        # 3. Supports: other images of the class.
        if self.nshot:
            others = [other for other in self._supports[class_id] if other != image_name]
            drawn = [others[number] for number in rng.choice(len(others), self.nshot, replace=False)]
            images, masks = zip(*(self._read(other, class_id, notes) for other in drawn))
            item |= {"support_images": torch.stack(images), "support_masks": torch.stack(masks)}
            if self.split == "finetune":
                item["index"] = self._place[class_id, drawn[0]]
        return item | {"note": "\n".join(notes)}

    def _read(self, name: str, class_id: int, notes: list[str]) -> tuple[Tensor, Tensor]:
        """An image (3, S, S) and its mask (S, S), both resized to the square as HSNet does; adds to ``notes``."""
        import torch
        import torch.nn.functional as F

        image_path, mask_path = self.files_of(self.root, name)
        image, target = read_image(image_path), self.read_target(mask_path, class_id)
        # What HSNet accepts is accepted, and reported.
        void = target == VOID
        if void.any():
            notes.append(f"pixels of no class (255) counted as others: {mask_path}")
            target = np.where(void, 0, target)
        if not (target == 1).any():
            notes.append(f"no pixel of the class: {mask_path}")
        if target.shape != (image.height, image.width):
            notes.append(f"a mask of another size than its image: {mask_path}")
        square = (self.crop_size, self.crop_size)
        mask = F.interpolate(torch.from_numpy(target)[None, None].float(), square, mode="nearest")[0, 0].long()
        return self.transform(image.resize(square, Image.Resampling.BILINEAR)), mask

    @classmethod
    def _select(cls, root: Path, split: str, fold: int, nshot: int, held: Sequence[int]) -> Selection:
        def named(class_id: int) -> str:
            return f"{class_id} ({cls.read_labels('default', root)[class_id]})"

        select = partial(make_selection, nshot=nshot, where=f"{cls.name}, fold {fold}, {split}", named=named)
        if split == "train":
            pairs = without_held_out(cls.role_pairs(root, fold, "train"), held)
            return select([c for c in cls.role_classes(fold, "train") if c not in held], pairs, pairs)
        if split == "val" and held:
            pairs = of_held_out(cls.role_pairs(root, fold, "train"), held)
            return select(held, spread(pairs, held), pairs)
        role = "test" if split == "finetune" else split
        pool = cls.support_pairs(root, fold, role, nshot)
        sequence = cls.role_episodes(root, fold, role, nshot)
        selection = select(cls.role_classes(fold, role), sequence, pool)
        return selection.supports_only() if split == "finetune" else selection

    @classmethod
    def _files(cls, root: Path, selection: Selection, nshot: int) -> dict[str, tuple[Path, Path]]:
        """The (image, mask) paths that a selection may open, by the image's name."""
        names = dict.fromkeys(image for _, image in selection.pairs)
        if nshot:
            names |= dict.fromkeys(image for images in selection.supports.values() for image in images)
        return {name: cls.files_of(root, name) for name in names}

    @classmethod
    def _missing(cls, root: Path, splits: Sequence[str], fold: int, files: dict[str, tuple[Path, Path]]) -> list[str]:
        """One text with everything that is missing, or none."""
        paths = (path for pair in files.values() for path in pair)
        missing = missing_files(paths) if root.is_dir() else [f"There is no folder {root}"]
        if not missing:
            return []
        looked_for = f"{cls.name}, fold {fold}, {' and '.join(splits)}: {len(files)} images with masks are needed"
        return [f"{looked_for}. {'; '.join(missing)}. {cls.source.format(root=root)}"]

    def _check_choices(self) -> None:
        problems = self._choice_problems((self.split,), self.fold, self.nshot)
        if self.split == "finetune" and not self.nshot:
            problems.append("split 'finetune' consists of support images; use nshot=1 or nshot=5")
        if self.crop_size < 1:
            problems.append(f"crop_size {self.crop_size} must be positive")
        raise_all(problems + self.bad_image_problems(self.split == "test"))

    @classmethod
    def _choice_problems(cls, splits: Sequence[str], fold: int, nshot: int) -> list[str]:
        wrong = [split for split in splits if split not in SPLITS]
        unknown = [f"{cls.name} has no split {split!r}; choose one of {', '.join(SPLITS)}" for split in wrong]
        return unknown + fold_and_shot_problems(fold, nshot)
