"""Loading in an order and with augmentation that depend on the seed and the epoch alone.

The numbers of workers and processes, the batch size and interruptions do not change what sample ``index`` looks like
in an epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
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
_ORDER, _AUGMENTATION = 1, 2


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
        in_group = dist.is_available() and dist.is_initialized()
        rank = self.rank if self.rank is not None else (dist.get_rank() if in_group else 0)
        world = self.world if self.world is not None else (dist.get_world_size() if in_group else 1)
        if not self.shuffle:
            return np.arange(self.length)[rank::world]
        order = np.random.default_rng((_ORDER, self.seed, self.epoch)).permutation(self.length)
        each = self.length // world if self.drop_last else -(-self.length // world)
        return np.resize(order, each * world)[rank::world]


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
) -> DataLoader:
    """A loader of dict batches (see :class:`SeededDataset`; ``index`` int64 (B,), ``skipped`` a list of B texts).

    ``drop_last`` leaves out the incomplete last batch, unless it is the only one (a few images, to try it). Call
    ``loader.sampler.set_epoch`` before each epoch; Lightning does, with ``use_distributed_sampler=False``.
    """
    sampler = EpochSampler(len(dataset), seed, shuffle, rank, world, drop_last)
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
