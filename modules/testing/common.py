"""What the two test scripts share: their options, the checkpoint, the forward in reduced precision."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lseg_utils.cli import Parser
from lseg_utils.files import REPOSITORY, unwritable

from ..checkpoints import load_lseg
from ..device import allow_tf32, reduced_dtype
from ..models import LSegNet
from ..models.precision import cast_products, compile_parts
from ..options import block_options, weights_name
from ..training.start import check_backbone


def add_test_options(parser: Parser) -> None:
    """The checkpoint, where results go, and the control."""
    group = parser.add_argument_group("test")
    group.add_argument("--weights", "--checkpoint", type=Path, required=True, help="official or own checkpoint")
    group.add_argument("--trust_checkpoint", action="store_true", help="run code found in the file: risky")
    group.add_argument("--shuffle_labels", type=int, metavar="SEED", help="control: exchange the labels' embeddings")
    group.add_argument("--output_dir", type=Path, help="default: outputs/<dataset>_<weights>")
    group.add_argument("--log_dir", "--logpath", type=Path, default=REPOSITORY / "logs", help="gets a line per test")
    group.add_argument("--jobname", default="default", help="part of the log's file name")
    group.add_argument("--seed", type=int, default=0, help="of what a test draws at random")


def default_folder(options: argparse.Namespace, test: str) -> Path:
    """Where results go unless ``--output_dir`` says: a control does not overwrite the test that it belongs to."""
    control = "" if options.shuffle_labels is None else f"_shuffled{options.shuffle_labels}"
    return REPOSITORY / "outputs" / f"{test}_{weights_name(options.weights)}{control}"


def load_for_test(options: argparse.Namespace) -> LSegNet:
    """The network of ``--weights``; ``InputError`` if ``--backbone`` names another one."""
    net = load_lseg(options.weights, trust_checkpoint=options.trust_checkpoint, **block_options(options))
    check_backbone(net, options.backbone, options.weights)
    return net


def output_problems(options: argparse.Namespace, output_folder: Path) -> list[str]:
    """Folders that the results could not be written to at the end of the test."""
    folders = (("--output_dir", output_folder), ("--log_dir", options.log_dir))
    return [text for flag, folder in folders if (text := unwritable(folder, flag))]


def speed_up(net: LSegNet, options: argparse.Namespace, device: torch.device) -> None:
    """Before the first forward: weights in the precision of the test, TF32 where it is float32, compilation."""
    cast_products(net, reduced_dtype(options.precision, device))
    allow_tf32(device.type == "cuda")
    if options.compile:
        compile_parts(net)


def predictor(net: LSegNet, options: argparse.Namespace, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """(images, text matrix) -> logits at half size, in the precision that was asked for."""
    dtype = reduced_dtype(options.precision, device)

    def predict(images: Tensor, text: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            return net.half_logits(images, text)

    return predict


def derangement(count: int, seed: int) -> list[int]:
    """A random cyclic order of 0..count-1: nobody keeps its place (for one label there is no other place)."""
    order = np.random.default_rng(seed).permutation(count)
    target = np.empty(count, dtype=int)
    target[order] = np.roll(order, 1)
    return target.tolist()
