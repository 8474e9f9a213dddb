"""Time and memory of one image's segmentation against the number of labels, 2 to 10,000.

The project's ``LSegPredictor`` compares labels in chunks; its labels are encoded once, outside the timing (here: random
vectors). The plain procedure sends all labels through the text tower every time and makes all logits at full size; it
is measured only up to --plain_up_to labels.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import plain
from benchmarks.common import SEED, build_parser, network, parse, pictures, report
from benchmarks.measuring import Maker, Process, Work, alternate, row
from lseg_utils.errors import run_script
from modules.predictor import LSegPredictor


def plain_segment(labels: int, options: argparse.Namespace) -> Work:
    """All at once, float32."""
    options.labels = labels
    net = plain.prepare(network(options))
    mean, std = (torch.tensor(values, device=options.device).view(3, 1, 1) for values in (net.mean, net.std))
    images = (rgb(options) - mean) / std
    return Work(torch.no_grad()(lambda: [plain.logits(net, images, net.labels).argmax(1)]), options.batch)


def project_segment(labels: int, options: argparse.Namespace) -> Work:
    """In chunks, float32."""
    options.labels = 1
    net = network(options)
    predictor, images = LSegPredictor(net, options.device, "32", base_size=options.size), list(rgb(options))
    shape = (labels, net.text_encoder.embed_dim)
    text = F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(SEED)), dim=-1).to(options.device)

    def segment() -> list[Tensor]:
        results = predictor.segment_many(images, text, batch_size=options.batch)
        return [torch.stack([torch.from_numpy(result.mask) for result in results])]

    return Work(segment, options.batch)


def rgb(options: argparse.Namespace) -> Tensor:
    """(batch, 3, size, size) of noise in 0..1."""
    return pictures(options).div(2).add(0.5).clamp(0, 1)


def main() -> None:
    """Measure every number of labels in one run."""
    parser = build_parser(__doc__, "labels")
    parser.add_argument("--labels", type=int, nargs="+", help="measure each of these numbers of labels")
    parser.add_argument("--plain_up_to", type=int, help="leave out the plain procedure beyond this many labels")
    common = {"batch": 1, "labels": [2, 150, 1000, 10_000]}
    cpu, cuda = {"rounds": 3, "plain_up_to": 150}, {"rounds": 10, "plain_up_to": 1000}
    options = parse(parser, cpu=common | cpu, cuda=common | cuda)
    counts = [options.labels] if isinstance(options.labels, int) else options.labels
    makers: dict[str, Maker] = {f"project {count}": partial(project_segment, count) for count in counts}
    makers |= {f"plain {count}": partial(plain_segment, count) for count in counts if count <= options.plain_up_to}
    processes = {name: Process(maker, options) for name, maker in makers.items()}
    measured, _ = alternate(processes, options.rounds, [f"project {counts[-1]}"])
    rows = []
    for count in counts:
        what = f"segmentation, {options.backbone}, {options.size}x{options.size}, {count} labels"
        for procedure in ("plain", "project"):
            if each := measured.get(f"{procedure} {count}"):
                rows.append(row(what, procedure, each, measured.get(f"plain {count}"), labels=count))
    report("labels", options, rows)


if __name__ == "__main__":
    run_script(main)
