"""Learning rates and their decay: a function of the epoch or step and of nothing else. Does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lseg_utils.errors import InputError, raise_all

from ..choices import OPTIMIZERS, SCHEDULES
from ..models.backbones import MULTIPLE


@dataclass(frozen=True)
class OptimizationConfig:
    """How LSeg is trained; the defaults are the paper's (official repository, ADE20K recipe)."""

    base_lr: float = 0.004
    """Scaled with the batch: the image encoder learns at base_lr / 16 * batch_size."""
    batch_size: int = 1
    """Images per process and step; the numbers of processes and of accumulated batches do not change the rate."""
    scratch_factor: float = 10.0
    """The decoder and the head start from random weights and learn at this multiple of the encoder's rate."""
    encoder_lr_factor: float = 1.0
    """The image encoder learns at this multiple of base_lr / 16 * batch_size; decoder and head do not change."""
    layer_decay: float = 1.0
    """Each block of the image encoder learns at this multiple of the next one's rate; 1: all alike."""
    optimizer: str = "sgd"
    """sgd (with momentum), adam (betas 0.9 and 0.999; the official --midasproto) or adamw."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "poly"
    """poly: (1 - epoch / schedule_epochs) ** 0.9, constant within an epoch. cosine: per step, down to 0."""
    warmup_steps: int = 0
    """Optimiser steps over which the rates rise linearly from 0; with cosine only."""
    max_epochs: int = 240
    """Epochs after which training ends."""
    schedule_epochs: int | None = None
    """Epochs over which the rates decay; None: max_epochs."""
    ignore_index: int = -1
    """A label number left out of the loss, in addition to unlabelled pixels (negative numbers)."""

    def __post_init__(self) -> None:
        problems = []
        if self.optimizer not in OPTIMIZERS:
            problems.append(f"optimizer {self.optimizer!r} is unknown; choose one of {', '.join(OPTIMIZERS)}")
        if self.schedule not in SCHEDULES:
            problems.append(f"schedule {self.schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}")
        if self.warmup_steps and self.schedule != "cosine":
            problems.append("warmup_steps needs --schedule cosine; poly starts at the full rate")
        problems += [
            f"{name} is {getattr(self, name)}, but must be positive and finite"
            for name in ("base_lr", "batch_size", "scratch_factor", "encoder_lr_factor", "max_epochs")
            if not 0 < getattr(self, name) < math.inf
        ]
        problems += [
            f"{name} is {getattr(self, name)}, but must not be negative"
            for name in ("weight_decay", "warmup_steps")
            if not getattr(self, name) >= 0
        ]
        if self.schedule_epochs is not None and self.schedule_epochs < self.max_epochs:
            problems.append(
                f"schedule_epochs is {self.schedule_epochs}, but max_epochs {self.max_epochs}: the rate would be 0 at "
                "the end; give at least as many"
            )
        if not 0 < self.layer_decay <= 1:
            problems.append(f"layer_decay is {self.layer_decay}, but must be above 0 and at most 1")
        if not 0 <= self.momentum < 1:
            problems.append(f"momentum is {self.momentum}, but must be at least 0 and below 1")
        raise_all(problems)

    @property
    def encoder_lr(self) -> float:
        """Initial rate of the image encoder (backbone and reassemble blocks)."""
        return self._rate * self.encoder_lr_factor

    @property
    def scratch_lr(self) -> float:
        """Initial rate of the decoder and the head."""
        return self._rate * self.scratch_factor

    @property
    def _rate(self) -> float:
        return self.base_lr / 16 * self.batch_size

    def check_batch_statistics(self, crop_size: int | None, images: int) -> None:
        """``InputError`` if batch normalisation would get one value per channel from ``images`` crops.

        The coarsest feature map of a crop has (crop_size / 32) ** 2 values per channel. None: the dataset's size,
        which is large enough.
        """
        if crop_size is not None and images * (crop_size // MULTIPLE) ** 2 == 1:
            raise InputError(
                f"--crop_size {crop_size} with a single image per step gives batch normalisation one value per "
                f"channel; use --batch_size 2 or --crop_size {2 * MULTIPLE}"
            )

    def describe(self) -> str:
        """The two rates with the formula, for the log."""
        early = f", ending after {self.max_epochs}" if self.schedule_epochs else ""
        rate = f"base_lr / 16 * batch_size = {self.base_lr:g} / 16 * {self.batch_size} = {self._rate:g}"
        scaled = "" if self.encoder_lr_factor == 1 else f", times {self.encoder_lr_factor:g} = {self.encoder_lr:g}"
        decay = "" if self.layer_decay == 1 else f", {self.layer_decay:g} of it for each block before the last"
        base = "that" if not scaled else f"{self._rate:g}"
        early = f", ending after {self.max_epochs}" if self.schedule_epochs else ""
        return (
            f"{self.optimizer}, image encoder lr = {rate}{scaled}{decay}; decoder and head lr = "
            f"{self.scratch_factor:g} * {base} = {self.scratch_lr:g}; weight decay {self.weight_decay:g}; "
            f"{self.schedule} over {self.schedule_epochs or self.max_epochs} epochs{early}"
        )

    def factor(self, epoch: int, step: int, total_steps: int) -> float:
        """The factor on the initial rates, 1 to 0.

        A function of the current epoch and step alone, so that a resumed run cannot be off by one.
        """
        epochs = self.schedule_epochs or self.max_epochs
        if self.schedule == "poly":
            return max(1 - epoch / epochs, 0.0) ** 0.9
        last_step = total_steps * epochs / self.max_epochs
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(last_step - self.warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
