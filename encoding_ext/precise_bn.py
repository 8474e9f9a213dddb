"""Batch normalisation with the exact statistics of some data instead of the moving averages from training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

    ``forward(batch)`` must run ``module``. Meanwhile the batch norms normalise by the batch, as in training;
    everything else (dropout, train/eval flags, momentum, counters, gradients) stays as it was. Mean and variance are
    those of all pixels of all batches in all processes; each process uses at most ``num_batches`` batches (each the
    same number, if the batch norms are synchronised). A batch norm that ``forward`` never reaches keeps its
    statistics. Returns the number of batches used in all processes; raises ``InputError`` if there was none.

    Wu & Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3; ``--acc-bn`` of the official test script.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    statistics = [_Population(norm) for norm in norms]
    flags = [(norm.training, norm.track_running_stats) for norm in norms]
    hooks = [norm.register_forward_pre_hook(population.add) for norm, population in zip(norms, statistics)]
    used = 0
    try:
        for norm in norms:  # normalise by the batch and keep the buffers
            norm.training, norm.track_running_stats = True, False
        for batch in progress_bar(islice(batches, num_batches), desc="batch norm statistics", total=num_batches):
            forward(batch)
            used += 1
    finally:
        for norm, hook, (training, tracking) in zip(norms, hooks, flags):
            hook.remove()
            norm.training, norm.track_running_stats = training, tracking
    used = int(sum_over_processes(torch.tensor(used)))
    if not used:
        raise InputError("there is no batch to estimate batch norm statistics from: give images and num_batches >= 1")
    for norm, population in zip(norms, statistics):
        population.write_to(norm)
    return used


class _Population:
    """Count, sum and sum of squares per channel of everything that entered one batch norm, in float64."""

    def __init__(self, norm: _BatchNorm) -> None:
        # (count, sum, sum of squares), one column per channel; Apple's GPUs have no float64
        assert norm.running_mean is not None  # as the caller has checked
        device = norm.running_mean.device
        home = torch.device("cpu") if device.type == "mps" else device
        self.moments = torch.zeros(3, norm.num_features, dtype=torch.float64, device=home)

    def add(self, _norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A forward pre-hook: takes (B, C, ...)."""
        values = inputs[0]
        count = values.numel() // values.shape[1]
        axes = [axis for axis in range(values.dim()) if axis != 1]
        moments = torch.var_mean(values.float(), dim=axes, correction=0)
        variance, mean = (each.to(self.moments.device).double() for each in moments)
        self.moments += torch.stack([torch.full_like(mean, count), mean * count, (variance + mean**2) * count])

    def write_to(self, norm: _BatchNorm) -> None:
        """Make these the running statistics of ``norm``, unless nothing entered it in any process."""
        count, total, squares = sum_over_processes(self.moments)
        if count[0] == 0:
            return
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=0)
        for buffer, value in ((norm.running_mean, mean), (norm.running_var, variance)):
            assert buffer is not None
            buffer.copy_(value.to(buffer.dtype))
