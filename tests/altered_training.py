"""train_lseg.py with a change, for tests: ``ALTER=freeze:FOLDER`` or ``ALTER=<fault>:<process>:<step>``.

freeze: batch norm stays as it is, and each process writes its losses to FOLDER. Faults: kill (SIGKILL), nan (a loss),
worker (SIGKILL for those that load its images).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import modules.training.display  # noqa: F401  it must know the classes as they are before the change
import train_lseg
from lseg_utils.distributed import run_distributed
from modules import lseg_module, lseg_module_joint
from modules.lseg_module import LSegModule
from modules.lseg_module_joint import LSegModuleJoint


class Frozen:
    """Before a module: batch norm in eval mode; losses go to a file."""

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        with open(Path(os.environ["ALTER"].split(":")[1]) / f"losses{self.global_rank}", "a") as file:
            file.write(f"{loss.item()!r}\n")
        return loss


class Faulty:
    """Before a module: one process fails at one step."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        fault, rank, step = os.environ["ALTER"].split(":")
        if (self.global_rank, self.global_step) == (int(rank), int(step)):
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "nan":
                batch["image"].fill_(torch.nan)
            for worker in multiprocessing.active_children() if fault == "worker" else ():
                worker.kill()
        return super().training_step(batch, batch_idx)


if __name__ == "__main__":
    change = Frozen if os.environ["ALTER"].startswith("freeze") else Faulty
    lseg_module.LSegModule = type("Altered", (change, LSegModule), {})
    lseg_module_joint.LSegModuleJoint = type("AlteredJoint", (change, LSegModuleJoint), {})
    run_distributed(train_lseg.main)
