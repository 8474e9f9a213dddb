"""The six-scale flip test of images: the project's evaluator against crops and mirror images one by one.

ADE20K-like sizes; "agreement" is the share of pixels with the plain procedure's label. On a CPU the plain procedure's
text tower, which does the same work at each of the 36 forwards of an image, runs and is timed at the first ones only
(--texts); the time of the others is taken to be the median of those. --texts 0 leaves nothing out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.common import build_parser, matrix_rates, network, parse, pictures, precision_name, report
from benchmarks.measuring import Maker, Work, agreement, alternate, row
from encoding_ext.evaluator import MultiScaleEvaluator
from encoding_ext.views import TEST_SCALES, scaled_size, window_starts
from lseg_utils.errors import run_script
from modules.choices import Speed
from modules.device import reduced_dtype
from modules.models import LSegNet
from modules.testing.common import prepare_forward

DEFAULTS = {
    "cpu": {"backbone": "clip_vitb32_384", "size": 480, "labels": 150, "rounds": 1, "images": 1, "texts": 2},
    "cuda": {"backbone": "clip_vitl16_384", "size": 480, "labels": 150, "rounds": 2, "images": 6, "texts": 0},
}
SIZES = ((512, 683), (683, 512), (512, 683), (512, 512), (768, 1024), (1000, 1504))  # (height, width)
VALIDATION_IMAGES = 2000


def images(options: argparse.Namespace) -> list[Tensor]:
    """Noise of ADE20K-like sizes; with another crop size than 480, of as much smaller or larger ones."""
    sizes = [SIZES[i % len(SIZES)] for i in range(options.images)]
    return [pictures(options, *(round(side * options.size / 480) for side in size)) for size in sizes]


def base_size(options: argparse.Namespace) -> int:
    """520 for crops of 480."""
    return round(520 * options.size / 480)


def forwards(options: argparse.Namespace) -> int:
    """How many crops and mirror images the test of all images consists of."""
    sizes = [
        scaled_size(image.shape[-2], image.shape[-1], math.ceil(base_size(options) * scale))
        for image in images(options)
        for scale in TEST_SCALES
    ]
    return 2 * sum(math.prod(len(window_starts(side, options.size)) for side in size) for size in sizes)


def black(net: LSegNet) -> list[float]:
    """The normalised value of black."""
    return [-mean / std for mean, std in zip(net.mean, net.std, strict=True)]


def plain_test(options: argparse.Namespace) -> Work:
    """Crop by crop, labels encoded for each, float32."""
    net, inputs, count = plain.prepare(network(options)), images(options), forwards(options)
    spent: list[float] = []  # seconds of the text tower
    text: list[Tensor] = []

    @torch.no_grad()
    def predict(crop: Tensor) -> Tensor:
        if not options.texts or len(spent) < options.texts:
            started = time.perf_counter()
            text[:] = [plain.encode_text(net, net.labels)]
            spent.append(time.perf_counter() - started)
        return plain.logits(net, crop, text[0])

    def run() -> list[Tensor]:
        spent.clear()
        return [
            plain.multi_scale_scores(predict, image, black(net), base_size(options), options.size).argmax(1)
            for image in inputs
        ]

    def complete(seconds: float) -> float:
        return seconds + (count - len(spent)) * statistics.median(spent)

    crop = inputs[0].new_zeros(1, 3, options.size, options.size)
    part = torch.no_grad()(lambda: plain.logits(net, crop, net.labels))
    return Work(run, options.images, "float32", part, count, complete)


def project_test(options: argparse.Namespace) -> Work:
    """What ``test_lseg.py --eval`` does by default here: float32 on a CPU, bfloat16 on a GPU."""
    return _project(options, "auto")


def project_bfloat16(options: argparse.Namespace) -> Work:
    """``test_lseg.py --eval --precision bf16``."""
    return _project(options, "bf16")


def _project(options: argparse.Namespace, precision: str) -> Work:
    net, inputs = network(options), images(options)
    device, text = inputs[0].device, net.encode_labels(net.labels)
    predict = prepare_forward(net, Speed(precision), device)
    evaluator = MultiScaleEvaluator(
        lambda crops: predict(crops, text),
        options.labels,
        base_size(options),
        options.size,
        mean=net.mean,
        std=net.std,
    )
    crop = inputs[0].new_zeros(1, 3, options.size, options.size)
    return Work(
        lambda: [evaluator(image).argmax(1) for image in inputs],
        options.images,
        precision_name(reduced_dtype(precision, device), options.device),
        torch.no_grad()(lambda: predict(crop, text)),
        forwards(options),
    )


MAKERS: dict[str, Maker] = {"plain": plain_test, "project": project_test, "project, bfloat16": project_bfloat16}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and project to ADE20K's whole validation set."""
    parser = build_parser(__doc__, "batch")
    parser.add_argument("--images", type=int, help="test this many images of ADE20K-like sizes")
    parser.add_argument("--texts", type=int, help="forwards of the plain procedure that encode the text; 0: all")
    options = parse(parser, argv, DEFAULTS)
    options.batch = 1
    rates, on_gpu = matrix_rates(options.device, options.quick), options.device != "cpu"
    makers = {name: maker for name, maker in MAKERS.items() if not (on_gpu and "bfloat16" in name)}  # the default there
    measured, results = alternate(makers, options)
    height, width = images(options)[0].shape[-2:]
    kind = f"{height}x{width}" if options.images == 1 else f"{options.images} images like ADE20K's"
    what = f"six-scale flip test, {options.backbone}, {kind}, {options.labels} labels"
    rows = []
    for name, each in measured.items():
        line = row(what, name, each, rates, "images", measured["plain"])
        line["agreement"] = agreement(results[name], results["plain"])
        line["validation_set_seconds"] = VALIDATION_IMAGES / line["per_second"]
        rows.append(line)
        print(f"{name}: {VALIDATION_IMAGES} such images would take {line['validation_set_seconds'] / 60:.1f} minutes")
    report("evaluate", options, rates, rows)


if __name__ == "__main__":
    run_script(main)
