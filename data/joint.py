"""Several datasets in one training: each image keeps the labels of its own dataset.

Importing this file imports neither torch nor OpenCV.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.choice import DataChoice
from data.description import Description, is_description, known_datasets, read_description
from data.label_table import LabelTable
from data.sampled import SampledDataset
from lseg_utils.errors import InputError, did_you_mean, raise_all
from lseg_utils.label_sets import LabelSet, all_texts, plain_name
from lseg_utils.results import text_table

if TYPE_CHECKING:
    from data.described import DescribedDataset


def split_sets(text: str) -> list[tuple[str, float]]:
    """The datasets of ``--dataset a,b:2,my.yaml`` and their weights; 1 where none is given.

    Raises ``InputError`` for weights that are not numbers, negative, or all zero, and for a dataset given twice.
    """
    found, problems = [], []
    for part in [text] if os.path.isfile(text) else [part.strip() for part in text.split(",") if part.strip()]:
        name, colon, number = part.rpartition(":")
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = 1.0
            if is_description(name):
                problems.append(f"--dataset {part}: the weight {number!r} is not a number; write {name}:2")
            name = part
        if not 0 <= weight < math.inf:
            problems.append(f"--dataset {part}: a weight is a number of at least 0")
        found.append((name if colon else part, weight))
    names = [name for name, _ in found]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [f"--dataset names {name} twice; give it once, with a weight, as in {name}:2" for name in twice]
    if not problems and not any(weight for _, weight in found):
        problems.append(f"--dataset {text}: all weights are 0, so there is nothing to train on; give one at least 1")
    raise_all(problems)
    return found


@dataclass(frozen=True)
class JointChoice:
    """Several datasets, how often an epoch shows each, and what their labels are.

    Attributes:
        parts: a choice for each dataset.
        weights: how often an epoch shows each image of a dataset; fractions too. 0: only for validation.
        label_sets: the labels of each dataset.
        numbers: of each dataset, for each label of its masks the number in its label set, -1 for dropped ones.
        label_sampling: each training image is compared with the labels in it and with so many others; None: all.
    """

    parts: tuple[DataChoice, ...]
    weights: tuple[float, ...]
    label_sets: tuple[LabelSet, ...]
    numbers: tuple[tuple[int, ...], ...]
    label_sampling: int | None = None

    @classmethod
    def of(cls, text: str, table: Path | None = None, label_sampling: int | None = None, **options: Any) -> JointChoice:
        """The choice of ``--dataset text``; ``options`` are fields of ``DataChoice``, the same for all datasets.

        Raises ``InputError`` with everything that is wrong with the datasets, the table and the options.
        """
        problems = []
        if label_sampling is not None and label_sampling < 1:
            problems.append(f"--label_sampling is {label_sampling}; give at least 1, or leave it out")
        sets, labels = raise_all(problems, lambda: split_sets(text), lambda: LabelTable(table))
        described = raise_all(problems, *[lambda name=name: described_dataset(name) for name, _ in sets])
        labels.check_names([one.name for one in described])
        crop, wanted = options.pop("crop_size", None) or described[0].sizes.crop, options.pop("label_src", None)
        lists = [list_of(one, wanted, alone=len(sets) == 1) for one in described]
        if wanted and not any(lists):
            raise InputError(
                f"--label_src {wanted}: none of {', '.join(one.name for one in described)} has such a list; the lists "
                "are in their YAML files"
            )
        parts, found = [], []
        for (name, _), one, label_src in zip(sets, described, lists, strict=True):
            parts.append(DataChoice(name, crop_size=crop, label_src=label_src, **options))
            found.append(labels.settle(one.name, one.read_labels(label_src, testing=False)[0]))
        choice = cls(
            tuple(parts),
            tuple(weight for _, weight in sets),
            tuple(label_set for label_set, _ in found),
            tuple(numbers for _, numbers in found),
            label_sampling,
        )
        names = [one.name for one in choice.label_sets]
        if len(set(names)) < len(names):
            raise InputError(f"the datasets are called {', '.join(names)}; each needs a name of its own in its file")
        return choice

    @property
    def name(self) -> str:
        """What results and checkpoints call the datasets together."""
        return "+".join(one.name for one in self.label_sets)

    @property
    def data_path(self) -> Path | None:
        """The folder of all datasets; None: the usual places."""
        return self.parts[0].data_path

    @property
    def crop_size(self) -> int | None:
        """Pixels of the crops, the same for all: batches mix datasets. Without an option, the first dataset's."""
        return self.parts[0].crop_size

    @property
    def workers(self) -> int:
        """Processes that load images."""
        return self.parts[0].workers

    def load(self, split: str, transform: Callable[..., Any] | None = None) -> JointDataset:
        """The datasets' ``split``, one after the other."""
        parts = [part.load(split, transform=transform) for part in self.parts]
        return JointDataset(parts, self, self.label_sampling)

    def for_validation(self) -> JointChoice:
        """The same without label sampling, which is only for training."""
        return replace(self, label_sampling=None)

    def facts(self) -> dict[str, Any]:
        """What a resumed run must have in common with this one, besides the label sets themselves."""
        weights = dict(zip([one.name for one in self.label_sets], self.weights, strict=True))
        return {"weights": weights, "label_sampling": self.label_sampling}

    def table(self, images: Sequence[int]) -> str:
        """A table of the datasets for the log. ``images``: how many training images each has."""
        licences = [described_dataset(part.dataset).licence or "not stated" for part in self.parts]
        rows = [
            (
                one.name,
                f"{weight:g}",
                f"{count:,}",
                f"{round(weight * count):,}",
                len(one.labels),
                len(one.unions),
                terms,
            )
            for one, weight, count, terms in zip(self.label_sets, self.weights, images, licences, strict=True)
        ]
        header = ("dataset", "weight", "images", "in an epoch", "labels", "unions", "licence")
        return "\n".join([text_table(header, rows), *self.unshared()])

    def unshared(self) -> list[str]:
        """A sentence for each dataset that has no text in common with any other."""
        texts = [{plain_name(text) for text in all_texts([one])} for one in self.label_sets]
        found = []
        for i, one in enumerate(self.label_sets):
            others = set().union(*texts[:i], *texts[i + 1 :])
            if len(texts) > 1 and not texts[i] & others:
                found.append(
                    f"no label of {one.name} has the name of a label of another dataset; only the text "
                    "encoder connects them. `python -m data conflicts` shows names that differ only in their spelling"
                )
        return found


class JointDataset(SampledDataset):
    """A split of several datasets, one after the other.

    An item is a dict: ``image``, ``mask`` (numbers of its own dataset's label set), ``source`` (the number of that
    dataset), and with label sampling ``compared``, bool, as long as the largest label set: the labels that count.

    Attributes:
        parts, label_sets, weights: see ``JointChoice``.
        labels: every text of all label sets once.
        base_size, crop_size: pixels; the base size is the first dataset's, each is trained at its own.
    """

    seed = None

    def __init__(self, parts: list[DescribedDataset], choice: JointChoice, label_sampling: int | None) -> None:
        self.parts, self.label_sets, self.weights = parts, choice.label_sets, choice.weights
        self.label_sampling = label_sampling
        self.on_bad_image = parts[0].on_bad_image
        self.labels = all_texts(choice.label_sets)
        self.base_size, self.crop_size = parts[0].base_size, parts[0].crop_size
        # -1, for unlabelled, takes the last entry.
        self._tables = [np.array([*numbers, -1]) for numbers in choice.numbers]
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Item ``index`` with all randomness from ``rng``; ``InputError`` naming the file if it cannot be used."""
        import torch

        source, place = self._place(index)
        image, mask = self.parts[source].sample(place, rng)
        mask = torch.from_numpy(self._tables[source][mask.numpy()])
        item = {"image": image, "mask": mask, "source": source}
        if self.label_sampling is not None:
            item["compared"] = torch.from_numpy(self._compared(source, mask.numpy(), rng))
        return item

    def name_of(self, index: int) -> str:
        """The path of image ``index``."""
        source, place = self._place(index)
        return self.parts[source].name_of(place)

    def _place(self, index: int) -> tuple[int, int]:
        source = bisect_right(self._ends, index)
        return source, index - (self._ends[source - 1] if source else 0)

    def _compared(self, source: int, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The labels in the mask, and ``label_sampling`` others of the same label set, drawn at random."""
        count = len(self.label_sets[source].labels)
        compared = np.zeros(max(len(one.labels) for one in self.label_sets), bool)
        compared[np.unique(mask[mask >= 0])] = True
        others = rng.permutation(np.flatnonzero(~compared[:count]))
        compared[others[: self.label_sampling]] = True
        return compared


def list_of(description: Description, label_src: str | None, alone: bool = False) -> str | None:
    """The list that ``--label_src`` means for one of several datasets: that of this name, where it has one.

    alone: whether it is the only dataset, for which a file of labels can be meant too.
    """
    return label_src if alone or label_src in description.label_lists else None


def described_dataset(name: str) -> Description:
    """The description of this name or in this YAML file; ``InputError`` if there is none."""
    if is_description(name):
        return read_description(name)
    hint = did_you_mean(name, known_datasets())
    raise InputError(
        f"--dataset names {name!r}{hint}, which no YAML file describes; give names of `python -m data list`, or YAML "
        "files, separated by commas"
    )
