"""The six-scale flip test of images: the project's evaluator against crops and mirror images one by one.

ADE20K-like sizes; "agreement" is the share of pixels with the plain procedure's label. On a CPU the plain procedure's
text tower, which does the same work at each of the 36 forwards of an image, runs and is timed at the first ones only
(--texts); the time of the others is taken to be the median of those. --texts 0 leaves nothing out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.common import build_parser, network, parse, pictures, precision_name, report
from benchmarks.measuring import Maker, Process, Work, agreement, alternate, row
from encoding_ext.evaluator import MultiScaleEvaluator
from encoding_ext.views import protocol_canvases
from lseg_utils.errors import run_script
from modules.choices import Speed
from modules.device import reduced_dtype
from modules.testing.common import prepare_forward

SIZES = ((512, 683), (683, 512), (512, 683), (512, 512), (768, 1024), (1000, 1504))  # (height, width)
VALIDATION_IMAGES = 2000


def images(options: argparse.Namespace) -> list[Tensor]:
    """Noise of ADE20K-like sizes; with another crop size than 480, of as much smaller or larger ones."""
    sizes = [SIZES[i % len(SIZES)] for i in range(options.images)]
    return [pictures(options, *(round(side * options.size / 480) for side in size)) for size in sizes]


def forwards(options: argparse.Namespace) -> int:
    """How many crops and mirror images the test of all images consists of."""
    canvases = [protocol_canvases(*image.shape[-2:], options.base_size, options.size) for image in images(options)]
    return sum(len(canvas.views) for each in canvases for canvas in each)


def plain_test(options: argparse.Namespace) -> Work:
    """Crop by crop, labels encoded for each, float32."""
    net, inputs, count = plain.prepare(network(options)), images(options), forwards(options)
    black = [-mean / std for mean, std in zip(net.mean, net.std, strict=True)]
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
        scores = (plain.multi_scale_scores(predict, each, black, options.base_size, options.size) for each in inputs)
        return [each.argmax(1) for each in scores]

    def complete(seconds: float) -> float:
        return seconds + (count - len(spent)) * statistics.median(spent)

    crop = inputs[0].new_zeros(1, 3, options.size, options.size)
    part = torch.no_grad()(lambda: plain.logits(net, crop, net.labels))
    return Work(run, options.images, "float32", part, count, complete)


def project_test(options: argparse.Namespace, precision: str = "auto") -> Work:
    """What ``test_lseg.py --eval`` does with this --precision; auto: float32 on a CPU, bfloat16 on a GPU."""
    net, inputs = network(options), images(options)
    device, text = inputs[0].device, net.encode_labels(net.labels)
    forward = prepare_forward(net, Speed(precision), device)

    def predict(crops: Tensor) -> Tensor:
        return forward(crops, text)

    sizes = (options.labels, options.base_size, options.size)
    evaluator = MultiScaleEvaluator(predict, *sizes, mean=net.mean, std=net.std)
    crop = inputs[0].new_zeros(1, 3, options.size, options.size)
    return Work(
        lambda: [evaluator(image).argmax(1) for image in inputs],
        options.images,
        precision_name(reduced_dtype(precision, device), options.device),
        torch.no_grad()(lambda: predict(crop)),
        forwards(options),
    )


MAKERS: dict[str, Maker] = {
    "plain": plain_test,
    "project": project_test,
    "project, bfloat16": partial(project_test, precision="bf16"),
}


def main() -> None:
    """Measure and project to ADE20K's whole validation set."""
    parser = build_parser(__doc__, "batch")
    parser.add_argument("--images", type=int, help="test this many images of ADE20K-like sizes")
    parser.add_argument(
        "--texts", type=int, help="encode the text in this many forwards of the plain procedure; 0: in all"
    )
    cpu, cuda = {"rounds": 1, "images": 1, "texts": 2}, {"rounds": 2, "images": 6, "texts": 0}
    options = parse(parser, cpu=cpu, cuda=cuda)
    options.batch, options.base_size = 1, round(520 * options.size / 480)
    on_gpu = options.device != "cpu"
    makers = {name: maker for name, maker in MAKERS.items() if not (on_gpu and "bfloat16" in name)}  # the default there
    processes = {name: Process(maker, options) for name, maker in makers.items()}
    measured, results = alternate(processes, options.rounds)
    height, width = images(options)[0].shape[-2:]
    kind = f"{height}x{width}" if options.images == 1 else f"{options.images} images like ADE20K's"
    what = f"six-scale flip test, {options.backbone}, {kind}, {options.labels} labels"
    rows = []
    for name, each in measured.items():
        line = row(what, name, each, measured["plain"], agreement=agreement(results[name], results["plain"]))
        line["validation_set_seconds"] = VALIDATION_IMAGES / line["per_second"]
        rows.append(line)
        print(f"{name}: {VALIDATION_IMAGES} such images would take {line['validation_set_seconds'] / 60:.1f} minutes")
    report("evaluate", options, rows)


if __name__ == "__main__":
    run_script(main)
