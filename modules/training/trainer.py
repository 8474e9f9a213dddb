"""The Lightning Trainer around a module: checks of a resumed run, devices, precision, checkpoints, loggers."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sized
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy

from lseg_utils.distributed import launched
from lseg_utils.errors import InputError
from lseg_utils.lock import locked
from lseg_utils.memory import memory_advice
from lseg_utils.progress import is_rank_zero

from ..checkpoint_metadata import METADATA_KEY, checked_metadata
from ..checkpoints import save_file
from ..device import allow_tf32, reduced_dtype
from ..lseg_module import LSegModule
from ..models import LSegNet
from ..models.precision import compile_parts
from ..safe_load import read_torch_file
from .display import EpochLines, ValidationPictures
from .official import check_training_checkpoint, loops_of, official_run
from .optimization import OptimizationConfig
from .report import PAGE, TrainingReport
from .run import Run, Training
from .start import build_network
from .together import LESS_MEMORY, Together

# Remarks of Lightning that tell our users nothing.
NO_NEWS = (
    "Found .* module.s. in eval mode",
    ".*isinstance.treespec, LeafSpec",
    ".*does not have many workers",
    ".*exists and is not empty",
    "The number of training batches",
    ".*sync_dist=True",
    "This DataLoader will create",
)


class TrainingData(Protocol):
    """The LightningDataModule of a training, as ``data.lightning`` makes it."""

    train_set: Sized
    val_set: Sized
    labels: list[str]
    sizes: tuple[int, int]
    first_epoch: int


class CheckpointFiles(TorchCheckpointIO):
    """Writes aside and renames; reads without running code from the file. ``read``: a file read already, by path."""

    def __init__(self, read: dict[Path, dict[str, Any]]) -> None:
        super().__init__()
        self._read = read

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        save_file(checkpoint, path)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._read.pop(Path(path), None) or read_torch_file(path)


def run_training(training: Training, data: TrainingData, make_module: Callable[[LSegNet], LSegModule]) -> None:
    """Build the network, resume the run if it exists, train, and print where the best checkpoint is.

    Args:
        training: all settings.
        data: a LightningDataModule with loaders, sets, labels and (base, crop) size.
        make_module: network -> the module to train.

    Raises:
        InputError: what only shows now: missing GPUs, too few images, a run that was started differently.
    """
    run = training.run
    training.processes.check_devices()
    per_node, nodes = training.processes.counts()
    if (count := len(data.val_set)) < per_node * nodes:
        raise InputError(f"{count} validation images are too few for {per_node * nodes} processes; start fewer")
    alone = is_rank_zero() and not run.dry_run
    with locked(run.folder, "--exp_name") if alone else nullcontext():
        pl.seed_everything(run.seed, workers=True, verbose=False)
        version, last = run.find_version()
        read = {last: read_torch_file(last)} if last else {}
        net = build_network(training.network, data.labels, weights=last is None, download=not run.dry_run)
        net.base_size, net.crop_size = data.sizes
        try:
            net.image_encoder.recompute(run.grad_checkpointing)
        except ValueError as error:
            raise InputError(str(error)) from error
        module = make_module(net)
        images, validation_images = len(data.train_set), len(data.val_set)
        facts = {"seed": run.seed, "accumulate_grad_batches": run.accumulate_grad_batches}
        facts |= {"images": images, "validation_images": validation_images}
        module.run_facts = facts | training.network.sources()
        module.settings = asdict(training, dict_factory=plain)
        if last:
            version += METADATA_KEY not in read[last]  # the official run's own files stay
            read[last], data.first_epoch = continued(last, read[last], module)
        what = f"{images} + {validation_images} images, {len(data.labels)} labels"
        pictures = ValidationPictures()
        callbacks = [Together(checkpoint=last, images=images, validation_images=validation_images), pictures]
        if not run.dry_run:
            shown = {"network": net.architecture["backbone"], "dataset": f"{module.dataset}: {what}"}
            callbacks.append(TrainingReport(run.version_folder(version), shown, module.settings, pictures))
        trainer = build_trainer(training, version, CheckpointFiles(read), *callbacks)
        if last and "loops" not in read[last]:
            read[last]["loops"] = loops_of(trainer, read[last])
        if trainer.is_global_zero:
            print(f"{net.architecture['backbone']} on {module.dataset}: {what}")
            print(training.optimization.describe())
            print(f"{trainer.precision}, {per_node} process(es) on each of {nodes} node(s)")
        allow_tf32(training.processes.on_gpu)
        if training.speed.compile:
            compile_parts(net)
        with memory_advice(LESS_MEMORY):
            trainer.fit(module, datamodule=cast(pl.LightningDataModule, data), ckpt_path=last)
    if trainer.is_global_zero and not run.dry_run:
        best = trainer.checkpoint_callback
        assert isinstance(best, ModelCheckpoint)  # from checkpoint_callbacks
        print(f"best validation mIoU {100 * float(best.best_model_score or 0):.2f} %: {best.best_model_path}")
        print(f"report: {run.version_folder(version) / PAGE}")


def continued(last: Path, content: dict[str, Any], module: LSegModule) -> tuple[dict[str, Any], int]:
    """What a run resumes from, given the ``content`` of its checkpoint ``last``, and its next epoch.

    A run of the official code becomes one of ours. ``InputError`` for a run that was started differently.
    """
    check_training_checkpoint(last, content)
    if METADATA_KEY not in content:
        return official_run(last, content, module), content["epoch"]
    before = checked_metadata(last, content[METADATA_KEY])
    check_same_run(last, before, module)
    return content, before["epoch"] + 1


def check_same_run(last: Path, before: dict[str, Any], module: LSegModule) -> None:
    """Refuse to resume with another dataset, network, optimiser, sizes or weights; print what else has changed.

    before: the metadata of the checkpoint ``last``; what an older version did not record is not compared.
    """
    settings, facts = before.get("optimization", {}), before.get("run", {})
    now = {"architecture": module.net.architecture, "labels": module.net.labels, "dataset": module.dataset}
    pairs = {key: (before.get(key), value) for key, value in (now | module.extra_metadata()).items()}
    pretrained = [known.get("use_pretrained", "True") for known in (facts, module.run_facts)]
    pairs["use_pretrained"] = pretrained[0], pretrained[1]  # with clip_fixed, other weights are trained
    frozen = [known.get("freeze_encoder", False) for known in (facts, module.run_facts)]
    pairs["freeze_encoder"] = frozen[0], frozen[1]
    pairs["optimizer"] = settings.get("optimizer"), module.config.optimizer
    pairs["layer_decay"] = settings.get("layer_decay", 1.0), module.config.layer_decay  # decides the parameter groups
    if normalised := before.get("normalization"):
        for key, value in (("mean", module.net.mean), ("std", module.net.std)):
            pairs[f"the images' {key}"] = list(normalised[key]), list(value)
    if sizes := before.get("sizes"):
        pairs["base_size"] = sizes["base"], module.net.base_size
        pairs["crop_size"] = sizes["crop"], module.net.crop_size
    # A resumed run needs no files of first weights; those that are given must be the same.
    weights = {name: value for name, value in module.run_facts.items() if "_weights" in name and value}
    pairs |= {name: (facts[name], value) for name, value in weights.items() if name in facts}
    changed = [f"{key} was {str(a)[:120]}, is now {str(b)[:120]}" for key, (a, b) in pairs.items() if a != b]
    if changed:
        raise InputError(
            f"the run of {last} was started differently: {'; '.join(changed)}. Give another --exp_name, or --no_resume"
        )
    if not is_rank_zero():
        return
    print(f"resuming {last}")
    if before.get("epoch", -1) + 1 >= module.config.max_epochs:
        print(f"this run already finished {module.config.max_epochs} epochs; increase --max_epochs to continue")
    names = ("seed", "accumulate_grad_batches", "images", "validation_images")
    free = {name: module.run_facts[name] for name in names if name in facts}
    free |= {"data_path": module.data_path and str(module.data_path.resolve())}
    defaults = asdict(OptimizationConfig())  # older files lack settings that came later
    for key, value in (asdict(module.config) | free).items():
        if (old := (before | defaults | settings | facts).get(key)) != value:
            print(f"note: {key} was {old} in this run and is {value} from now on")


def build_trainer(training: Training, version: int, files: CheckpointFiles, *callbacks: Callback) -> pl.Trainer:
    """The Trainer; it writes only to the folder of the run's version."""
    for message in NO_NEWS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    run, processes = training.run, training.processes
    progress = TQDMProgressBar(refresh_rate=10) if sys.stderr.isatty() else EpochLines()
    on_gpu, (devices, nodes) = processes.on_gpu, processes.counts()
    many = devices * nodes > 1
    if many and not on_gpu and is_rank_zero():
        print("several processes on the CPU: each has its own batch statistics (sync-BN needs GPUs)")
    # All trained weights take part in every step, so DDP need not search for unused ones.
    ddp = DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True)
    # The plugin starts our processes, unless torchrun or srun has started one for each GPU. By default, Lightning
    # takes every SLURM job for one in which srun did, and trains on one GPU in a job of one task.
    started = launched() or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    saving = [] if run.dry_run else checkpoint_callbacks(run, version)
    return pl.Trainer(
        accelerator="gpu" if on_gpu else ("cpu" if processes.accelerator == "auto" else processes.accelerator),
        devices=devices,
        num_nodes=nodes,
        strategy=ddp if many else "auto",
        sync_batchnorm=many and on_gpu,
        precision=lightning_precision(training.speed.precision, on_gpu),
        benchmark=on_gpu,
        max_epochs=training.optimization.max_epochs,
        accumulate_grad_batches=run.accumulate_grad_batches,
        check_val_every_n_epoch=run.check_val_every_n_epoch,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        fast_dev_run=run.dry_run,
        logger=False if run.dry_run else build_logger(run, version),
        callbacks=[progress, *callbacks, *saving],
        enable_progress_bar=isinstance(progress, TQDMProgressBar),
        enable_checkpointing=not run.dry_run,
        plugins=[files] if started else [files, LightningEnvironment()],
        log_every_n_steps=20,
        enable_model_summary=False,
    )


def checkpoint_callbacks(run: Run, version: int) -> list[ModelCheckpoint]:
    """last.ckpt after every epoch, and the best three by validation mIoU."""
    folder = run.checkpoints(version)
    common: dict[str, Any] = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    ranked: dict[str, Any] = {"monitor": "val_miou_epoch", "mode": "max", "save_top_k": 3}
    ranked["every_n_epochs"] = run.check_val_every_n_epoch
    best = ModelCheckpoint(filename="result-{epoch}-{val_miou_epoch:.4f}", **ranked, **common)
    return [best, ModelCheckpoint(filename="last", **common)]


def build_logger(run: Run, version: int) -> Logger | bool:
    """TensorBoard's files (written by tensorboardX) next to the checkpoints, or wandb, or nothing."""
    if run.logger == "tensorboard":
        return TensorBoardLogger(
            run.logpath or run.checkpoint_dir, name=run.exp_name, version=version, default_hp_metric=False
        )
    if run.logger == "wandb":
        name = f"{run.exp_name}_v{version}"
        return WandbLogger(name=name, id=name, project=run.project_name, save_dir=run.logpath or run.folder)
    return False


def lightning_precision(precision: str, on_gpu: bool) -> Any:
    """Lightning's name of a training precision; auto: bf16 on GPUs that have it, fp16 with a scaler on others."""
    dtype = reduced_dtype(precision, torch.device("cuda" if on_gpu else "cpu"))
    return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", None: "32-true"}[dtype]


def plain(values: list[tuple[str, Any]]) -> dict[str, Any]:
    """Values by name with paths as text, for loggers."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in values}
