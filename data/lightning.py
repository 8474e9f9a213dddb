"""The data of a training as a LightningDataModule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from data.choice import DataChoice
from data.joint import JointChoice, JointDataset
from data.loading import JointSampler, make_loader


class TrainingData(pl.LightningDataModule):
    """The training and the validation set of a dataset, in batches of ``data.loading``.

    Args:
        choice: the dataset, or several, and its options; support images (``nshot``) are only for training.
        transform: RGB image -> float tensor (3, h, w), normalised as the network expects.
        batch_size: images per process and step.
        seed: of order and augmentation.
        train_split: the split to train on.

    Attributes:
        labels: all labels of the dataset.
        sizes: base size and crop size of training, in pixels; the benchmarks have one size for both.
        first_epoch: the epoch with which a resumed run continues.
    """

    def __init__(
        self,
        choice: DataChoice | JointChoice,
        transform: Callable[[Image.Image], Tensor],
        *,
        batch_size: int,
        seed: int,
        train_split: str = "train",
    ) -> None:
        super().__init__()
        self.choice, self.batch_size, self.seed = choice, batch_size, seed
        self.first_epoch = 0
        self.train_set: Any = choice.load(train_split, transform=transform)
        self.val_set = choice.for_validation().load("val", transform=transform)
        crop = self.train_set.crop_size
        self.labels, self.sizes = self.train_set.labels, (getattr(self.train_set, "base_size", crop), crop)

    def train_dataloader(self) -> DataLoader:
        """Called by Lightning once each process has its rank."""
        loader = self._loader(self.train_set, shuffle=True)
        loader.sampler.set_epoch(self.first_epoch)  # workers fetch before Lightning sets the epoch
        return loader

    def val_dataloader(self) -> DataLoader:
        """Every validation image once over all processes."""
        return self._loader(self.val_set, shuffle=False)

    def _loader(self, dataset: Any, shuffle: bool) -> DataLoader:
        sampler = None
        if shuffle and isinstance(dataset, JointDataset):
            sampler = JointSampler([len(part) for part in dataset.parts], dataset.weights, self.seed, self.batch_size)
        options = {"num_workers": self.choice.workers, "drop_last": shuffle, "sampler": sampler}
        return make_loader(dataset, self.batch_size, self.seed, shuffle, **options)
