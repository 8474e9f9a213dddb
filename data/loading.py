"""Loading in an order and with augmentation that depend on the seed and the epoch alone.

The numbers of workers and processes, the batch size and interruptions do not change what sample ``index`` looks like
in an epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, Sampler

from data.sampled import sample_or_next

# More workers than processors is the user's choice, and PyTorch would repeat this at every loader.
warnings.filterwarnings("ignore", message="This DataLoader will create")

# First words of the seeds, so that the order of an epoch and its augmentations never share random numbers.
_ORDER, _AUGMENTATION, _VISIT = 1, 2, 3


class EpochSampler(Sampler):
    """Yields ``(epoch, index)`` for this process's share of ``length`` samples.

    Shuffled: the order is a function of ``(seed, epoch)``; all processes get equally many samples, for which samples
    from the front of the order are repeated or, with ``drop_last``, those at its end are left out.
    Not shuffled (a test): every sample exactly once over all processes, in order; shares may differ by one.

    rank, world: number of this process and of all; None: those of ``torch.distributed`` when iterating.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        shuffle: bool,
        rank: int | None = None,
        world: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self.length, self.seed, self.shuffle, self.drop_last = length, seed, shuffle, drop_last
        self.rank, self.world = rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration (Lightning calls this)."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in self._share().tolist())

    def __len__(self) -> int:
        return len(self._share())

    def _share(self) -> np.ndarray:
        rank, world = self._processes()
        if not self.shuffle:
            return np.arange(self.length)[rank::world]
        order = np.random.default_rng((_ORDER, self.seed, self.epoch)).permutation(self.length)
        each = self.length // world if self.drop_last else -(-self.length // world)
        return np.resize(order, each * world)[rank::world]

    def _processes(self) -> tuple[int, int]:
        """The number of this process, and of all."""
        in_group = dist.is_available() and dist.is_initialized()
        rank = self.rank if self.rank is not None else (dist.get_rank() if in_group else 0)
        return rank, self.world if self.world is not None else (dist.get_world_size() if in_group else 1)


class JointSampler(EpochSampler):
    """Yields ``(visit, index)`` of images of several datasets, which are numbered one after the other.

    An epoch shows each image of dataset i ``weights[i]`` times. Where that is a fraction, the next epoch continues
    where this one stops, so that over the training all images are seen equally often. ``visit`` counts how often an
    image was seen before; its augmentation depends on that.

    The datasets are spread evenly over the epoch, and of the images of one step each process gets its share of each
    dataset, up to one. Which images make a step depends on the number of images in it, not on the number of processes.
    ``drop_last`` leaves out the incomplete last step, unless it is the only one.

    sizes: images of each dataset. batch_size: images per process and step.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        seed: int,
        batch_size: int,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        self.sizes, self.batch_size = sizes, batch_size
        self.counts = [round(weight * size) for size, weight in zip(sizes, weights, strict=True)]
        super().__init__(sum(self.counts), seed, shuffle=True, rank=rank, world=world, drop_last=True)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((visit, index) for visit, index in self._share().tolist())

    def _share(self) -> np.ndarray:
        """(visit, index) of this process's images, int64 (images, 2)."""
        # 1. The images of each dataset in this epoch, and where in the epoch they come.
        shown, places, sources = [], [], []
        rng = np.random.default_rng((_ORDER, self.seed, self.epoch))
        for source, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            start = self.epoch * count  # in the endless sequence of this dataset's orders
            visits = (start + np.arange(count)) // max(size, 1)
            orders = (
                [
                    np.random.default_rng((_VISIT, self.seed, source, visit)).permutation(size)
                    for visit in range(visits[0], visits[-1] + 1)
                ]
                if count
                else [np.zeros(0, np.int64)]
            )
            indices = np.concatenate(orders)[start % max(size, 1) :][:count] + sum(self.sizes[:source])
            shown.append(np.stack([visits, indices], axis=1))
            places.append((np.arange(count) + rng.random(count)) / max(count, 1))
            sources.append(np.full(count, source))
        order = np.argsort(np.concatenate(places), kind="stable")
        epoch, source_of = np.concatenate(shown)[order], np.concatenate(sources)[order]
        # 2. Whole steps, each sorted by dataset and dealt out like cards.
        rank, world = self._processes()
        step = world * self.batch_size
        if len(epoch) >= step and self.drop_last:
            epoch, source_of = epoch[: len(epoch) // step * step], source_of[: len(epoch) // step * step]
        dealt = epoch[np.lexsort((source_of, np.arange(len(epoch)) // step))]
        return np.resize(dealt, (-(-len(dealt) // world) * world, 2))[rank::world]


class SeededDataset(Dataset):
    """Takes the ``(epoch, index)`` of an :class:`EpochSampler` and draws the augmentation from them and ``seed``.

    An item is a dict: what the dataset gives (a pair as ``image`` and ``mask``, or ``name`` where the second is a file
    name); ``index``, that of the sample used, unless the item states its own; ``skipped``, why others before it were
    skipped, or "".
    ``on_bad_image`` None: the dataset's own.
    """

    def __init__(self, dataset: Any, seed: int, on_bad_image: str | None = None) -> None:
        self.dataset, self.seed = dataset, seed
        self.on_bad_image = on_bad_image or dataset.on_bad_image

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        rng = self.generator(*place)
        used, item, skipped = sample_or_next(self.dataset, place[1], rng, self.on_bad_image)
        if not isinstance(item, dict):
            image, other = item
            item = {"image": image, "name" if isinstance(other, str) else "mask": other}
        return {"index": used, "skipped": skipped} | item

    def generator(self, epoch: int, index: int) -> np.random.Generator:
        """The generator of the augmentation of sample ``index`` in ``epoch``."""
        return np.random.default_rng((_AUGMENTATION, self.seed, epoch, index))


def _use_one_thread(_: int) -> None:
    """The workers already share the cores; PyTorch limits its own threads, but not OpenCV's."""
    cv2.setNumThreads(0)


def make_loader(
    dataset: Any,
    batch_size: int,
    seed: int,
    shuffle: bool,
    num_workers: int = 0,
    drop_last: bool = False,
    on_bad_image: str | None = None,
    rank: int | None = None,
    world: int | None = None,
    sampler: EpochSampler | None = None,
) -> DataLoader:
    """A loader of dict batches (see :class:`SeededDataset`; ``index`` int64 (B,), ``skipped`` a list of B texts).

    ``drop_last`` leaves out the incomplete last batch, unless it is the only one (a few images, to try it). Call
    ``loader.sampler.set_epoch`` before each epoch; Lightning does, with ``use_distributed_sampler=False``.
    ``sampler``: another than the :class:`EpochSampler` of these arguments.
    """
    sampler = sampler or EpochSampler(len(dataset), seed, shuffle, rank, world, drop_last)
    if len(sampler) < batch_size:
        sampler.drop_last = drop_last = False
    return DataLoader(
        SeededDataset(dataset, seed, on_bad_image),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=drop_last,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,  # each prepares two batches ahead
        worker_init_fn=_use_one_thread,
        # Its own generator: otherwise the loader would draw from torch's global one at the start of each epoch, and a
        # resumed run would continue with other random numbers than an undisturbed one.
        generator=torch.Generator().manual_seed(seed),
    )
