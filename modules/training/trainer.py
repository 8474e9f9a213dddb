"""The Lightning Trainer around a module: devices, precision, checkpoints, loggers, resuming.

A run lives in ``<checkpoint_dir>/<exp_name>/version_<n>/checkpoints/``: ``last.ckpt`` and the best three by
validation mIoU. A run whose name is known goes on from its ``last.ckpt``.
"""

from __future__ import annotations

import argparse
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lseg_utils.errors import InputError
from lseg_utils.files import unwritable
from lseg_utils.memory import memory_advice
from lseg_utils.progress import is_rank_zero

from ..checkpoints import read_checkpoint, save_file
from ..device import allow_tf32, reduced_dtype
from ..lseg_module import LSegModule
from ..models.precision import compile_parts
from ..safe_load import read_torch_file
from .processes import Together, process_counts, process_problems, strategy, uses_gpu
from .validation_pictures import ValidationPictures

BEST = 3
LESS_MEMORY = "give a smaller --batch_size (and a larger --accumulate_grad_batches), or --grad_checkpointing"

# Lightning's own remarks that are no news to our users.
NO_NEWS = (
    "Found .* module.s. in eval mode",
    ".*isinstance.treespec, LeafSpec",
    ".*does not have many workers",
    ".*exists and is not empty",
    "The number of training batches",
    ".*sync_dist=True",
    "This DataLoader will create",
)


class LSegData(pl.LightningDataModule):
    """Loaders that are made when Lightning asks, since only then each process knows its rank."""

    def __init__(self, train_loader: Callable[[], Any], val_loader: Callable[[], Any], first_epoch: int) -> None:
        super().__init__()
        self._train_loader, self.val_dataloader, self._first_epoch = train_loader, val_loader, first_epoch

    def train_dataloader(self) -> Any:
        """The training loader, told where a resumed run goes on: workers fetch before Lightning sets the epoch."""
        loader = self._train_loader()
        loader.sampler.set_epoch(self._first_epoch)
        return loader


class CheckpointFiles(TorchCheckpointIO):
    """Writes aside and renames, reads without running code from the file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        save_file(checkpoint, path)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return read_torch_file(path)


def trainer_problems(options: argparse.Namespace) -> list[str]:
    """What would go wrong later: missing GPUs, an unwritable folder, a logger that is not installed."""
    problems = process_problems(options)
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        if getattr(options, name) < 1:
            problems.append(f"--{name} is {getattr(options, name)}, but has to be at least 1")
    if text := unwritable(options.checkpoint_dir, "--checkpoint_dir"):
        problems.append(text)
    if options.logger == "wandb":
        try:
            import wandb  # noqa: F401
        except ImportError:
            problems.append("--logger wandb needs the package: pip install wandb")
    return problems


def find_version(options: argparse.Namespace) -> tuple[int, Path | None]:
    """(version number, checkpoint to resume from): the newest version that has one, else the next new version."""
    if options.dry_run:
        return 0, None
    run = options.checkpoint_dir / options.exp_name
    matches = [re.fullmatch(r"version_(\d+)", path.name) for path in run.glob("version_*")]
    versions = sorted(int(match[1]) for match in matches if match)
    if not options.no_resume:
        for version in reversed(versions):
            last = run / f"version_{version}" / "checkpoints" / "last.ckpt"
            if last.exists():
                return version, last
    # No process makes the new folder before all have joined the group, so that all find the same number.
    return (versions[-1] + 1 if versions else 0), None


def fit(
    module: LSegModule,
    train_set: Any,
    val_set: Any,
    make_loader: Callable[..., Any],
    options: argparse.Namespace,
    version: int,
    last: Path | None,
) -> None:
    """Train ``module``, from ``last`` if that is a checkpoint, and say where the best one is."""
    if last is not None:
        check_same_run(last, module)
    per_node, nodes = process_counts(options)
    if len(val_set) < per_node * nodes:
        raise InputError(f"{len(val_set)} validation images are too few for {per_node * nodes} processes; start fewer")
    together = Together(version=version, checkpoint=last, images=len(train_set), validation_images=len(val_set))
    trainer = build_trainer(options, version, together)
    if trainer.is_global_zero:
        backbone, labels = module.net.architecture["backbone"], module.net.labels
        print(f"{backbone} on {options.dataset}: {len(train_set)} + {len(val_set)} images, {len(labels)} labels")
        print(module.config.describe())
        print(f"{trainer.precision}, {per_node} process(es) on each of {nodes} node(s)")

    def loader(dataset: Any, shuffle: bool) -> Any:
        return make_loader(
            dataset, options.batch_size, options.seed, shuffle, num_workers=options.workers, drop_last=shuffle
        )

    first_epoch = 0 if last is None else read_checkpoint(last).metadata.get("epoch", -1) + 1
    data = LSegData(lambda: loader(train_set, shuffle=True), lambda: loader(val_set, shuffle=False), first_epoch)
    module.net.image_encoder.checkpointing = options.grad_checkpointing
    allow_tf32(uses_gpu(options))
    if options.compile:
        compile_parts(module.net)
    with memory_advice(LESS_MEMORY):
        trainer.fit(module, datamodule=data, ckpt_path=last)
    if trainer.is_global_zero and not options.dry_run:
        best = trainer.checkpoint_callback
        print(f"best validation mIoU {100 * float(best.best_model_score or 0):.2f} %: {best.best_model_path}")


def check_same_run(last: Path, module: LSegModule) -> None:
    """Refuse to go on with another dataset, network or optimiser; say what of the optimisation has changed.

    Not seen, since checkpoints do not keep them: seed, crop, accumulation, and the files of the first weights.
    """
    before = read_checkpoint(last).metadata
    settings = before.get("optimization", {})
    now = {
        "architecture": module.net.architecture,
        "labels": module.net.labels,
        "dataset": module.dataset,
        **module.extra_metadata(),
    }
    pairs = {key: (before.get(key), value) for key, value in now.items()}
    pairs["optimizer"] = settings.get("optimizer"), module.config.optimizer
    changed = [f"{key} was {str(a)[:120]}, is now {str(b)[:120]}" for key, (a, b) in pairs.items() if a != b]
    if changed:
        raise InputError(
            f"the run of {last} was started differently: {'; '.join(changed)}. Give another --exp_name, or --no_resume"
        )
    if is_rank_zero():
        print(f"resuming {last}")
        if before.get("epoch", -1) + 1 >= module.config.max_epochs:
            print(f"this run has finished its {module.config.max_epochs} epochs; a larger --max_epochs goes on")
        for key, value in asdict(module.config).items():
            if settings.get(key) != value:
                print(f"note: {key} was {settings.get(key)} in this run and is {value} from now on")


def build_trainer(options: argparse.Namespace, version: int, *callbacks: Callback) -> pl.Trainer:
    """The Trainer of ``options``; everything it will write is under the version's folder."""
    for message in NO_NEWS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    on_gpu, (devices, nodes) = uses_gpu(options), process_counts(options)
    many = devices * nodes > 1
    if many and not on_gpu and is_rank_zero():
        print("several processes on the CPU: batch norm stays local to each (sync-BN needs GPUs)")
    saving = [] if options.dry_run else checkpoint_callbacks(options, version)
    return pl.Trainer(
        accelerator="gpu" if on_gpu else ("cpu" if options.accelerator == "auto" else options.accelerator),
        devices=devices,
        num_nodes=nodes,
        strategy=strategy(many),
        sync_batchnorm=many and on_gpu,
        precision=lightning_precision(options.precision, on_gpu),
        benchmark=on_gpu,
        max_epochs=options.max_epochs,
        accumulate_grad_batches=options.accumulate_grad_batches,
        check_val_every_n_epoch=options.check_val_every_n_epoch,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        fast_dev_run=options.dry_run,
        logger=False if options.dry_run else build_logger(options, version),
        callbacks=[TQDMProgressBar(refresh_rate=10), ValidationPictures(), *callbacks, *saving],
        enable_checkpointing=not options.dry_run,
        plugins=[CheckpointFiles()],
        log_every_n_steps=20,
        enable_model_summary=False,
    )


def checkpoint_callbacks(options: argparse.Namespace, version: int) -> list[ModelCheckpoint]:
    """last.ckpt after every epoch, and the best three by validation mIoU."""
    folder = options.checkpoint_dir / options.exp_name / f"version_{version}" / "checkpoints"
    common: dict[str, Any] = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(
        filename="result-{epoch}-{val_miou_epoch:.4f}",
        monitor="val_miou_epoch",
        mode="max",
        save_top_k=BEST,
        every_n_epochs=options.check_val_every_n_epoch,
        **common,
    )
    return [best, ModelCheckpoint(filename="last", **common)]


def build_logger(options: argparse.Namespace, version: int) -> Logger | bool:
    """TensorBoard's files (written by tensorboardX) beside the checkpoints, or wandb, or nothing."""
    if options.logger == "tensorboard":
        return TensorBoardLogger(options.checkpoint_dir, name=options.exp_name, version=version)
    if options.logger == "wandb":
        folder = options.checkpoint_dir / options.exp_name
        name = f"{options.exp_name}_v{version}"
        return WandbLogger(name=name, id=name, save_dir=folder)
    return False


def lightning_precision(precision: str, on_gpu: bool) -> str:
    """Lightning's name of a training precision; auto: bf16 on GPUs that have it, fp16 with a scaler on others."""
    dtype = reduced_dtype(precision, torch.device("cuda" if on_gpu else "cpu"))
    return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", None: "32-true"}[dtype]
