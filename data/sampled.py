"""What all datasets share: ``sample(index, rng)`` made indexable, and damaged images skipped where allowed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from data.reading import UnreadableInputError
from lseg_utils.errors import InputError


class SampledDataset:
    """A map-style dataset whose subclass gives ``__len__``, ``sample(index, rng)`` and these attributes."""

    labels: list[str]
    on_bad_image: str  # "stop" or "skip"
    seed: int | None
    draws_items = False  # whether ``rng``, not ``index``, decides which image an item shows

    @property
    def num_class(self) -> int:
        """The number of labels, for the benchmarks that of all folds together."""
        return len(self.labels)

    def sample(self, index: int, rng: np.random.Generator) -> Any:
        """Item ``index`` with all randomness from ``rng``; ``InputError`` naming the file if it cannot be used."""
        raise NotImplementedError

    def bad_image_problems(self, testing: bool) -> list[str]:
        """A sentence if ``on_bad_image`` is unknown, or would leave images out of a test."""
        if self.on_bad_image not in ("stop", "skip"):
            return [f"on_bad_image is {self.on_bad_image!r}; choose 'stop' or 'skip'"]
        skipping = testing and self.on_bad_image == "skip"
        return ["a test must not leave out images; use on_bad_image='stop'"] if skipping else []

    def __getitem__(self, index: int) -> Any:
        """Item ``index``; with ``on_bad_image="skip"`` the next readable one, and a warning.

        Random numbers are drawn again each time, from torch's generator (which a ``DataLoader`` seeds for each of its
        workers); with an integer ``seed`` it is always the same. Training uses ``data.loading`` instead, where it
        depends on the epoch but not on the workers.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} samples")  # ends a plain ``for item in dataset``
        import torch

        index %= len(self)
        entropy = (self.seed, index) if self.seed is not None else int(torch.randint(2**62, ()))
        _, item, skipped = sample_or_next(self, index, np.random.default_rng(entropy), self.on_bad_image)
        if skipped:
            warnings.warn(skipped, stacklevel=2)
        return item


def sample_or_next(dataset: Any, index: int, rng: np.random.Generator, on_bad_image: str) -> tuple[int, Any, str]:
    """``dataset.sample(index, rng)``, or that of the next readable index if ``on_bad_image`` is "skip".

    Returns ``(index used, item, why others were skipped or "")``. The next index gets the random numbers that were
    drawn for a damaged image, unless they decide which image is shown.
    """
    skipped: list[str] = []
    start = rng.bit_generator.state
    for candidate in chain(range(index, len(dataset)), range(index)):
        try:
            return candidate, dataset.sample(candidate, rng), "; ".join(skipped)
        except UnreadableInputError as error:
            if on_bad_image != "skip":
                raise
            skipped.append(str(error))
            if not dataset.draws_items:
                rng.bit_generator.state = start
    raise InputError(f"none of the {len(dataset)} images can be read; the first: {skipped[0]}")


class Remaining:
    """The items of a dataset that a test still has to do."""

    on_bad_image = "stop"

    def __init__(self, dataset: SampledDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Item ``index`` of what is left, with its index in the whole dataset as ``episode``."""
        episode = self.indices[index]
        return {**self.dataset.sample(episode, rng), "episode": episode}
