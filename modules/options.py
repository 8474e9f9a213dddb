"""Command-line options that several scripts share. Importing this file imports neither torch nor timm."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lseg_utils.cli import Parser, chosen
from lseg_utils.errors import raise_all
from lseg_utils.files import REPOSITORY

from .choices import OPTIMIZERS, PRECISIONS, SCHEDULES, USE_PRETRAINED, Speed, precision
from .models.backbones import BACKBONES, MULTIPLE, RANDOM, TIMM
from .training.optimization import OptimizationConfig
from .training.processes import Processes
from .training.run import Run, Training
from .training.start import NetworkChoice


class BackboneNames(tuple[str, ...]):
    """What ``--backbone`` takes: the names, and anything that begins with timm:, which is checked when it is built."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.startswith(TIMM))


NO_EFFECT = "accepted for old command lines; changes nothing, as in the official code"


def backbone_names() -> BackboneNames:
    """The rows of ``BACKBONES``, those added since the program started too, and timm:NAME."""
    return BackboneNames((*BACKBONES, f"{TIMM}NAME"))


def add_weights_options(parser: Parser, default: str = "") -> None:
    """The checkpoint that a test, a prediction or an export reads. default: what is used if none is given, in words."""
    what = "use this checkpoint, official or your own" + (f"; default: {default}" if default else "")
    parser.add_argument("--weights", "--checkpoint", type=Path, required=not default, help=what)
    parser.add_argument("--trust_checkpoint", action="store_true", help="run code contained in the checkpoint: risky")


def weights_name(path: Path) -> str:
    """What results are named after: the file, and for a checkpoint of a run also the run (each has a last.ckpt)."""
    path = path.resolve()
    if path.parent.name == "checkpoints" and path.parent.parent.name.startswith("version_"):
        return f"{path.parents[2].name}_{path.parents[1].name}_{path.stem}"
    return path.stem


def add_data_options(parser: Parser, default_dataset: str = "ade20k", base_size: bool = True) -> None:
    """Dataset, labels, image sizes, loading. ``base_size`` False: images are only resized to the crop."""
    add = parser.add_argument_group("data").add_argument
    add("--dataset", default=default_dataset, help="use the dataset with this name, or the one in this YAML file")
    places = (
        "default: ../datasets next to the repository, or that of the YAML file; data/Dataset_HSN for pascal, coco, fss"
    )
    add("--data_path", "--datapath", type=Path, help=f"look for the datasets in this folder; {places}")
    lists = "default, corrected, another list of the dataset, or a file; default: the dataset's or the checkpoint's own"
    add("--label_src", help=f"read the labels from this list: {lists}")
    if base_size:
        add("--base_size", type=int, help="give pictures this long side at scale 1; default: the dataset's")
    add("--crop_size", type=int, help=f"use crops of this side, a multiple of {MULTIPLE}; default: the dataset's")
    add("--workers", "--nworker", type=int, default=4, help="load images in this many processes")


def add_network_options(parser: Parser, backbone: str | None) -> None:
    """The architecture. ``backbone`` None: for a test, which reads from the checkpoint whatever the file tells."""
    add = parser.add_argument_group("network").add_argument
    encoders = f"use this image encoder; {TIMM}NAME: any network of timm with maps (docs/encoders.md)"
    add("--backbone", default=backbone, choices=backbone_names(), help=encoders)
    if backbone is not None:
        add("--num_features", type=int, default=256, help="set the width of the decoder")
    blocks = "choose the regularisation block: 0 none, 1 bottleneck, 2 depthwise"
    add("--arch_option", type=int, choices=(0, 1, 2), help=blocks)
    add("--block_depth", type=int, help="apply the block this many times (0 counts as 1)")
    add("--activation", choices=("relu", "lrelu", "tanh"), help="use this activation between applications of the block")


def add_device_options(parser: Parser, compiled: bool = True) -> None:
    """Device and precision of a test or a prediction; ``compiled``: also ``--compile``."""
    group = parser.add_argument_group("device")
    group.add_argument("--device", default="auto", help="run on auto, cpu, cuda, cuda:1 or mps")
    add_speed_options(group, compiled)


def add_speed_options(group: argparse._ArgumentGroup, compiled: bool = True) -> None:
    """The fields of ``Speed``."""
    numbers = "compute in this precision; auto: bf16, else fp16, on a GPU, 32 on the CPU"
    group.add_argument("--precision", type=precision, choices=PRECISIONS, default="auto", help=numbers)
    if compiled:
        pays = "compile the network with torch.compile, which pays off in long runs"
        group.add_argument("--compile", action="store_true", help=pays)


def add_optimization_options(parser: Parser) -> None:
    """Optimiser, rates, schedule: the fields of ``OptimizationConfig``, and dropout."""
    group = parser.add_argument_group("optimisation")
    defaults = OptimizationConfig()

    def add(name: str, help: str, **more: Any) -> None:
        default = getattr(defaults, name)
        group.add_argument(f"--{name}", default=default, help=help, **({"type": type(default)} | more))

    add("batch_size", "use this many images per process and step")
    add("base_lr", "set the learning rate per 16 images of a batch")
    add("scratch_factor", "train decoder and head at this multiple of the encoder's rate")
    add("encoder_lr_factor", "multiply the image encoder's rate alone")
    add("layer_decay", "train each block of the encoder at this multiple of the next one's rate; 1: the same for all")
    add("weight_decay", "set the weight decay")
    add("momentum", "set the momentum of sgd")
    group.add_argument(
        "--dropout", type=float, default=0.0, help="set the dropout of the ViT; the official networks use none"
    )
    add("optimizer", "choose the optimiser", choices=OPTIMIZERS)
    group.add_argument("--midasproto", action="store_true", help="use adam: the official name for --optimizer adam")
    add("schedule", "let the rates decay by epoch (poly) or by step (cosine)", choices=SCHEDULES)
    add("warmup_steps", "raise the rates linearly over this many steps; with --schedule cosine")
    add("max_epochs", "train for this many epochs")
    longer = "let the rates decay over this many epochs, if training ends earlier; default: --max_epochs"
    add("schedule_epochs", longer, type=int)
    add("ignore_index", "leave this label number out of the loss")


def add_training_options(parser: Parser, backbone: str, exp_name: str) -> None:
    """Everything that the two training scripts share except the data; the arguments are defaults."""
    add_network_options(parser, backbone)
    add = parser.add_argument_group("start").add_argument
    add("--finetune_weights", type=Path, help="start from this checkpoint instead of ImageNet weights")
    other = f"'{RANDOM}' for random weights; default: download"
    add(
        "--text_tower", help="train against this text encoder: a CLIP model; default: the backbone's (docs/encoders.md)"
    )
    add("--clip_weights", "--text_weights", help=f"read the text encoder from this file; {other}")
    add("--backbone_weights", help=f"read ImageNet weights from this file; {other}")
    start = "True: ImageNet weights, False: random ones, clip: those of CLIP's image tower, clip_fixed: those, frozen"
    add(
        "--use_pretrained",
        choices=USE_PRETRAINED,
        default="True",
        help=f"start the image encoder from these weights; {start}",
    )
    frozen = "freeze the pretrained image encoder and train only what is built on it"
    add("--freeze_encoder", action="store_true", help=frozen)
    add("--trust_checkpoint", action="store_true", help="run code contained in --finetune_weights: risky")
    add_optimization_options(parser)

    group = parser.add_argument_group("run")
    add = group.add_argument
    add("--exp_name", default=exp_name, help="name the run; a run that exists is resumed")
    add("--checkpoint_dir", type=Path, default=REPOSITORY / "checkpoints", help="keep the runs in this folder")
    add("--no_resume", action="store_true", help="start a new version of the run instead of resuming")
    add("--dry_run", action="store_true", help="do one training and one validation batch, save nothing")
    add("--seed", type=int, default=0, help="seed the weights, the order and the augmentation")
    add("--accumulate_grad_batches", type=int, default=1, help="make one optimiser step of this many batches")
    add_speed_options(group)
    recompute = "save memory, take more time: compute the image encoder's activations again in the backward pass"
    add("--grad_checkpointing", action="store_true", help=recompute)
    add("--logger", choices=("tensorboard", "wandb", "none"), default="tensorboard", help="log to this program")
    add("--project_name", default="lightseg", help="log the run to this project of Weights & Biases")
    add("--logpath", type=_path_or_none, help="write the logs to this folder; default: the run's own folder")
    add("--check_val_every_n_epoch", type=int, default=1, help="validate after every n-th epoch")
    bad = "stop at an unreadable image, or skip it and report it"
    add("--on_bad_image", choices=("stop", "skip"), default="stop", help=bad)

    add = parser.add_argument_group("processes (torchrun's own numbers take precedence)").add_argument
    accelerators = ("auto", "cpu", "gpu", "mps")
    add("--accelerator", choices=accelerators, default="auto", help="train on this kind of device")
    add("--devices", "--gpus", type=int, default=-1, help="start this many processes; -1: one per GPU")
    add("--num_nodes", type=int, help="train on this many nodes; default: torchrun's number, else 1")
    add_compatibility_options(parser)


def _path_or_none(text: str) -> Path | None:
    return Path(text) if text else None  # the official default is an empty text


def training_settings(options: argparse.Namespace) -> Training:
    """The settings of ``add_training_options``; one ``InputError`` with everything wrong with them."""
    config = {"optimizer": "adam"} if options.midasproto else {}
    parts = raise_all(
        compatibility_problems(options),
        lambda: chosen(NetworkChoice, options),
        lambda: chosen(OptimizationConfig, options, **config),
        lambda: chosen(Run, options),
        lambda: chosen(Processes, options),
        lambda: chosen(Speed, options),
    )
    return Training(*parts)


def add_compatibility_options(parser: Parser) -> None:
    """Flags of the official README that never had an effect, and two that crashed."""
    add = parser.add_argument_group("compatibility with official command lines").add_argument
    for flag in ("widehead", "widehead_hr", "no_scaleinv", "no_batchnorm", "use_relabeled", "scale_inv"):
        add(f"--{flag}", action="store_true", help=NO_EFFECT)
    for flag in ("module", "model", "aux_weight", "se_weight"):
        add(f"--{flag}", help=NO_EFFECT)
    for flag in ("aux", "se_loss"):
        add(f"--{flag}", action="store_true", help="refused: the network has no such head")


def compatibility_problems(options: argparse.Namespace) -> list[str]:
    """What cannot be done although the official parser accepted it."""
    return [
        f"--{flag} asks for a head that LSeg does not have (the official code crashes here); leave it out"
        for flag in ("aux", "se_loss")
        if getattr(options, flag)
    ]
