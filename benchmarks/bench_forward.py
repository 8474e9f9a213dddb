"""A forward of an image with 150 labels: the project's default and its variants against the plain procedure.

Random weights, the same for all; "agreement" is the share of pixels with the plain procedure's label. Random weights
have many near ties, so that bfloat16 agrees less than with trained weights.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import plain
from benchmarks.common import build_parser, network, parse, pictures, precision_name, report
from benchmarks.measuring import Maker, Process, Work, agreement, alternate, row
from lseg_utils.errors import run_script
from modules.choices import Speed
from modules.device import reduced_dtype
from modules.models.streaming import upsampled_max
from modules.testing.common import prepare_forward

BACKBONES = ("clip_vitl16_384", "clip_vitb32_384", "clip_resnet101")


def plain_forward(options: argparse.Namespace) -> Work:
    """Compute everything again, in float32."""
    net, images = plain.prepare(network(options)), pictures(options)
    return Work(torch.no_grad()(lambda: [plain.logits(net, images, net.labels).argmax(1)]), options.batch)


def project_forward(
    options: argparse.Namespace, precision: str = "32", layout: torch.memory_format | None = None, alone: bool = False
) -> Work:
    """What the test scripts do, with labels encoded once, before; ``alone``: only the image encoder of that."""
    net, images = network(options), pictures(options)
    if layout:
        net.to(memory_format=layout)
    text, forward = net.encode_labels(net.labels), prepare_forward(net, Speed(precision), images.device)

    @torch.no_grad()
    def run() -> list[torch.Tensor]:
        return net.image_encoder(images) if alone else [upsampled_max(forward(images, text))[1]]

    return Work(run, options.batch, precision_name(reduced_dtype(precision, images.device), options.device))


MAKERS: dict[str, Maker] = {
    "plain": plain_forward,
    "project": project_forward,
    "project, bfloat16": partial(project_forward, precision="bf16"),  # the default on GPUs
}
MORE_MAKERS: dict[str, Maker] = {
    "project, channels first": partial(project_forward, layout=torch.contiguous_format),
    "project, image encoder alone": partial(project_forward, alone=True),
}


def main() -> None:
    """Measure one backbone, or three."""
    cpu, cuda = {"backbone": None, "batch": 1, "rounds": 3}, {"backbone": None, "batch": 8, "rounds": 10}
    options, rows = parse(build_parser(__doc__), cpu=cpu, cuda=cuda), []
    backbones = [options.backbone] if options.backbone else BACKBONES
    for backbone in backbones:
        makers = MAKERS | (MORE_MAKERS if backbone == backbones[0] else {})
        here = argparse.Namespace(**vars(options) | {"backbone": backbone})
        processes = {name: Process(maker, here) for name, maker in makers.items()}
        measured, results = alternate(processes, options.rounds, ["project"])
        what = f"forward, {backbone}, {options.size}x{options.size}, batch {options.batch}, {options.labels} labels"
        for name, each in measured.items():
            same = agreement(results[name], results["plain"]) if "alone" not in name else None
            rows.append(row(what, name, each, measured["plain"], agreement=same))
    report("forward", options, rows)


if __name__ == "__main__":
    run_script(main)
