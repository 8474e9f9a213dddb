"""Train LSeg on a dataset with a fixed label set. ``bash train.sh`` holds the paper's recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl

from data import check_dataset, get_dataset
from data.loading import make_loader
from encoding_ext.errors import InputError, run_script
from encoding_ext.transforms import image_to_tensor
from modules.checkpoints import load_lseg
from modules.lseg_module import LSegModule
from modules.models import BACKBONES, LSegNet, build_lseg
from modules.models.pretrained import RANDOM, load_pretrained
from modules.options import (
    Parser,
    add_compatibility_options,
    add_data_options,
    add_network_options,
    add_optimization_options,
    block_options,
    compatibility_problems,
    optimization_config,
)
from modules.safe_load import read_torch_file, read_torchscript_weights
from modules.trainer import (
    LSegData,
    add_trainer_options,
    build_trainer,
    check_same_run,
    device_count,
    find_version,
    trainer_problems,
)


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    add_data_options(parser)
    add_network_options(parser, backbone="clip_vitl16_384")
    parser.add_argument("--finetune_weights", type=Path, help="checkpoint to start from instead of ImageNet weights")
    parser.add_argument("--clip_weights", help=f"CLIP file for the text tower, or '{RANDOM}'; default: download")
    parser.add_argument("--backbone_weights", help=f"ImageNet weights as a file, or '{RANDOM}'; default: download")
    parser.add_argument("--trust_checkpoint", action="store_true", help="run code found in --finetune_weights: risky")
    add_optimization_options(parser)
    add_trainer_options(parser)
    add_compatibility_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, build, resume if the run is known, train."""
    options = build_parser().parse(argv)
    check_all(options)
    config = optimization_config(options)
    pl.seed_everything(options.seed, workers=True, verbose=False)

    train_set, val_set = (load_split(options, split) for split in ("train", "val"))
    version, last = (0, None) if options.dry_run else find_version(options)
    net = build_network(options, train_set.labels, resuming=last is not None)
    if last is not None:
        check_same_run(last, net, config)
        print(f"resuming {last}")
    module = LSegModule(net, config, dataset=options.dataset, seed=options.seed)
    trainer = build_trainer(options, version)
    if trainer.is_global_zero:
        print(f"{options.backbone} on {options.dataset}: {len(train_set)} + {len(val_set)} images, {len(net.labels)} labels")
        print(f"{config.describe()}; {trainer.precision}, {device_count(options)} process(es) x {options.num_nodes} node(s)")

    def loader(dataset: object, shuffle: bool) -> object:
        return make_loader(
            dataset, options.batch_size, options.seed, shuffle, num_workers=options.workers, drop_last=shuffle
        )

    data = LSegData(lambda: loader(train_set, shuffle=True), lambda: loader(val_set, shuffle=False))
    trainer.fit(module, datamodule=data, ckpt_path=last)
    if trainer.is_global_zero and not options.dry_run:
        best = trainer.checkpoint_callback
        print(f"best validation mIoU {float(best.best_model_score or 0):.4f}: {best.best_model_path}")


def check_all(options: argparse.Namespace) -> None:
    """One ``InputError`` with everything that is wrong, before anything is built."""
    problems = compatibility_problems(options) + trainer_problems(options)
    for name in ("finetune_weights", "clip_weights", "backbone_weights"):
        path = getattr(options, name)
        if path and str(path) != RANDOM and not Path(path).is_file():
            problems.append(f"--{name}: there is no file {path}")
    if options.finetune_weights and (options.clip_weights or options.backbone_weights):
        problems.append("--finetune_weights replaces --clip_weights and --backbone_weights; give only one kind")
    try:
        check_dataset(options.dataset, options.data_path, ("train", "val"))
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))


def load_split(options: argparse.Namespace, split: str) -> object:
    """The training or validation set, normalised as the backbone wants it."""
    spec = BACKBONES[options.backbone]
    return get_dataset(
        options.dataset,
        root=options.data_path,
        split=split,
        mode=split,
        transform=image_to_tensor(spec.mean, spec.std),
        base_size=options.base_size,
        crop_size=options.crop_size,
        label_src=options.label_src,
        on_bad_image=options.on_bad_image,
    )


def build_network(options: argparse.Namespace, labels: list[str], resuming: bool) -> LSegNet:
    """The network to train; nothing is downloaded where a checkpoint overwrites it anyway."""
    if options.finetune_weights and not resuming:
        return load_lseg(
            options.finetune_weights,
            labels=labels,
            trust_checkpoint=options.trust_checkpoint,
            **block_options(options),
        ).train()
    try:
        net = build_lseg(
            options.backbone, labels, features=options.num_features, dropout=options.dropout, **block_options(options)
        )
        if not resuming:
            sources = (options.clip_weights, options.backbone_weights)
            if options.dry_run:  # tries the mechanism; it downloads nothing
                sources = tuple(source or RANDOM for source in sources)
            load_pretrained(net, *sources, read=read_weights)
    except ValueError as error:
        raise InputError(str(error)) from error
    return net.train()


def read_weights(path: Path) -> dict:
    """A CLIP or ImageNet file: a TorchScript archive, a state dict, or a dict that holds one."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    weights = read_torchscript_weights(path)
    weights = read_torch_file(path) if weights is None else weights
    return weights.get("state_dict", weights)


if __name__ == "__main__":
    run_script(main)
