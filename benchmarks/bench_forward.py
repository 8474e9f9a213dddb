"""A forward of an image with 150 labels: the project's default and its variants against the plain procedure.

Random weights, the same for all; "agreement" is the share of pixels with the plain procedure's label. Random weights
have many near ties, so that bfloat16 agrees less than with trained weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import plain
from benchmarks.common import build_parser, matrix_rates, network, parse, pictures, precision_name, report
from benchmarks.measuring import Maker, Work, agreement, alternate, row
from lseg_utils.errors import run_script
from modules.choices import Speed
from modules.device import reduced_dtype
from modules.models.streaming import upsampled_max
from modules.testing.common import prepare_forward

DEFAULTS = {
    "cpu": {"size": 480, "batch": 1, "labels": 150, "rounds": 3},
    "cuda": {"size": 480, "batch": 8, "labels": 150, "rounds": 10},
}
BACKBONES = ("clip_vitl16_384", "clip_vitb32_384", "clip_resnet101")


def plain_forward(options: argparse.Namespace) -> Work:
    """Everything anew, in float32."""
    net, images = plain.prepare(network(options)), pictures(options)
    return Work(torch.no_grad()(lambda: [plain.logits(net, images, net.labels).argmax(1)]), options.batch)


def project_forward(options: argparse.Namespace) -> Work:
    """The default in float32: labels encoded once, before."""
    return _forward(options, "32")


def project_bfloat16(options: argparse.Namespace) -> Work:
    """As ``--precision bf16`` of the test scripts does it; the default on GPUs."""
    return _forward(options, "bf16")


def project_contiguous(options: argparse.Namespace) -> Work:
    """The default, but for the memory layout of convolutions."""
    return _forward(options, "32", torch.contiguous_format)


def _forward(options: argparse.Namespace, precision: str, layout: torch.memory_format | None = None) -> Work:
    net, images = network(options), pictures(options)
    if layout:
        net.to(memory_format=layout)
    text, forward = net.encode_labels(net.labels), prepare_forward(net, Speed(precision), images.device)
    run = torch.no_grad()(lambda: [upsampled_max(forward(images, text))[1]])  # what the test scripts do
    return Work(run, options.batch, precision_name(reduced_dtype(precision, images.device), options.device))


def encoder_alone(options: argparse.Namespace) -> Work:
    """The image encoder of the default in float32."""
    net, images = network(options), pictures(options)
    prepare_forward(net, Speed("32"), images.device)
    return Work(torch.no_grad()(lambda: net.image_encoder(images)), options.batch, precision_name(None, options.device))


MAKERS: dict[str, Maker] = {
    "plain": plain_forward,
    "project": project_forward,
    "project, bfloat16": project_bfloat16,
}
MORE_MAKERS: dict[str, Maker] = {
    "project, channels first": project_contiguous,
    "project, image encoder alone": encoder_alone,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one backbone, or three."""
    options = parse(build_parser(__doc__), argv, DEFAULTS)
    rates, rows = matrix_rates(options.device, options.quick), []
    backbones = [options.backbone] if options.backbone else BACKBONES
    for backbone in backbones:
        makers = MAKERS | (MORE_MAKERS if backbone == backbones[0] else {})
        here = argparse.Namespace(**vars(options) | {"backbone": backbone})
        measured, results = alternate(makers, here, ["project"])
        what = f"forward, {backbone}, {options.size}x{options.size}, batch {options.batch}, {options.labels} labels"
        for name in makers:
            same = agreement(results[name], results["plain"]) if "alone" not in name else None
            rows.append(row(what, name, measured[name], rates, "images", measured["plain"], agreement=same))
    report("forward", options, rates, rows)


if __name__ == "__main__":
    run_script(main)
