"""Batch normalisation with the true statistics of some data, in place of the moving average that training left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lseg_utils.distributed import sum_over_processes
from lseg_utils.errors import InputError
from lseg_utils.progress import progress_bar


@torch.no_grad()
def precise_batch_norm(
    module: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object], num_batches: int
) -> int:
    """Set the running mean and variance of every batch norm in ``module`` to those of its inputs over the batches.

    ``forward(batch)`` has to run ``module``; the batch norms normalise by the batch meanwhile, as in training, and
    everything else (dropout, train/eval flags, momentum, counters, gradients) is as before. Mean and variance are
    those of the population of all pixels of all batches, in all processes together; at most ``num_batches`` batches
    are taken in each process (the same number in each, if the batch norms are synchronised). A batch norm that
    ``forward`` never reaches keeps its statistics. Returns the number of batches used, in all processes together;
    raises ``InputError`` if there was none.

    Wu & Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3; ``--acc-bn`` of the official test script.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    statistics = [_Population(norm) for norm in norms]
    used = 0
    with _gathering(norms, statistics):
        for batch in progress_bar(islice(batches, num_batches), desc="batch norm statistics", total=num_batches):
            forward(batch)
            used += 1
    used = int(sum_over_processes(torch.tensor(used)))
    if not used:
        raise InputError("no batch to estimate batch norm statistics from: give images, and num_batches of at least 1")
    for norm, population in zip(norms, statistics):
        population.write_to(norm)
    return used


class _Population:
    """Count, sum and sum of squares per channel of everything that entered one batch norm, in float64."""

    def __init__(self, norm: _BatchNorm) -> None:
        # (count, sum, sum of squares), one column per channel
        self.moments = torch.zeros(3, norm.num_features, dtype=torch.float64, device=norm.running_mean.device)

    def add(self, _norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A forward pre-hook: takes (B, C, ...)."""
        values = inputs[0]
        count = values.numel() // values.shape[1]
        axes = [axis for axis in range(values.dim()) if axis != 1]
        variance, mean = torch.var_mean(values.float(), dim=axes, correction=0)
        variance, mean = variance.double(), mean.double()
        self.moments += torch.stack([torch.full_like(mean, count), mean * count, (variance + mean**2) * count])

    def write_to(self, norm: _BatchNorm) -> None:
        """Make these the running statistics of ``norm``, unless nothing entered it in any process."""
        count, total, squares = sum_over_processes(self.moments)
        if count[0] == 0:
            return
        mean = total / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((squares / count - mean**2).clamp(min=0))


@contextmanager
def _gathering(norms: list[_BatchNorm], statistics: list[_Population]) -> Iterator[None]:
    """Batch norms that normalise by their batch, leave their buffers alone and show their inputs to ``statistics``."""
    flags = [(norm.training, norm.track_running_stats) for norm in norms]
    hooks = [norm.register_forward_pre_hook(population.add) for norm, population in zip(norms, statistics)]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, (training, tracking) in zip(norms, flags):
            norm.training, norm.track_running_stats = training, tracking
