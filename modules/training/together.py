"""The processes of a training begin with the same facts and end together."""

from __future__ import annotations

import signal
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from lseg_utils.distributed import end_because_of, from_first, watch_others
from lseg_utils.errors import InputError
from lseg_utils.memory import advised, is_out_of_memory

LESS_MEMORY = "give a smaller --batch_size (and a larger --accumulate_grad_batches), or --grad_checkpointing"


class Together(Callback):
    """Processes begin with the same facts and end when one of them fails.

    facts: what all processes must have found alike, by name (a checkpoint to resume, numbers of images).
    """

    def __init__(self, **facts: Any) -> None:
        self.facts = {name: str(fact) for name, fact in facts.items()}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start watching; ``InputError`` if this process has not found what the first one has."""
        watch_others(getattr(trainer.strategy.launcher, "procs", ()))
        first = from_first(self.facts)
        pairs = {name: (here, first[name]) for name, here in self.facts.items()}
        unlike = [f"{name}: here {here}, there {there}" for name, (here, there) in pairs.items() if here != there]
        if unlike:
            raise InputError(
                f"process {trainer.global_rank} disagrees with process 0 about {'; '.join(unlike)}. Put "
                "--checkpoint_dir on a file system that all nodes share, and the same data on all nodes"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning's handler broadcasts in the middle of whatever the processes exchange, and waits. Files survive.
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        end_because_of(advised(exception, LESS_MEMORY) if is_out_of_memory(exception) else exception)
