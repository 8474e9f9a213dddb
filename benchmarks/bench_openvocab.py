"""Time and memory of one picture with the 150 labels of A-150, the 459 of PC-459 and the 847 of A-847.

As in the suite with the published protocol, the picture goes through six scales, mirror images and windows, is
compared with all labels, and is counted (confusion, boundaries). ``ratio`` is the speed relative to 150 labels: a
picture of A-847 costs 1 / ratio of one of A-150. The labels are encoded once per benchmark, outside the timing (here:
random vectors).
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.common import SEED, build_parser, network, parse, report
from benchmarks.measuring import Maker, Process, Work, alternate, row
from encoding_ext.views import TEST_SCALES
from lseg_utils.errors import run_script
from openvocab.look import Look
from openvocab.models import LSegSegmenter
from openvocab.suite import counted

COUNTS = (150, 459, 847)


def one_picture(labels: int, options: argparse.Namespace) -> Work:
    """The suite's two steps on a picture of noise with the proportions of ADE20K's, 4 : 3."""
    generator = torch.Generator().manual_seed(SEED)
    options.labels = options.batch = 1
    model = LSegSegmenter(network(options), options.device, "32")
    shape = (labels, model.net.text_encoder.embed_dim)
    text = F.normalize(torch.randn(shape, generator=generator), dim=-1)
    size = (3, options.size * 3 // 4, options.size)
    image = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    look = Look(options.base, options.crop, TEST_SCALES, True)
    truth = np.random.default_rng(SEED).integers(0, labels, (size[1] // 16, size[2] // 16)).repeat(16, 0).repeat(16, 1)
    truth = np.pad(truth, ((0, size[1] - truth.shape[0]), (0, size[2] - truth.shape[1])), mode="edge")

    def test() -> list[torch.Tensor]:
        """What the suite does with a picture."""
        found = model.best(model.see(image, look), text)
        counted(truth, found.numpy(), labels)
        return [found[None]]

    return Work(test, 1)


def main() -> None:
    """Measure all numbers of labels in one run."""
    parser = build_parser(__doc__, "labels", "batch")
    parser.add_argument("--base", type=int, default=520, help="resize the long side to this at scale 1")
    parser.add_argument("--crop", type=int, default=480, help="use windows with sides of this many pixels")
    options = parse(parser, cpu={"size": 672, "batch": 1, "rounds": 2}, cuda={"size": 672, "batch": 1, "rounds": 10})
    if options.quick:
        options.base = options.crop = 64
    makers: dict[str, Maker] = {str(count): partial(one_picture, count) for count in COUNTS}
    measured, _ = alternate({name: Process(maker, options) for name, maker in makers.items()}, options.rounds)
    rows = []
    for count in COUNTS:
        what = f"published protocol, {options.backbone}, long side {options.size}, {count} labels"
        rows.append(row(what, "project", measured[str(count)], measured[str(COUNTS[0])], labels=count))
    report("openvocab", options, rows)


if __name__ == "__main__":
    run_script(main)
