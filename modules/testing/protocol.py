"""How a test looks at its images: scales, mirror images, windows, precision; and what the results say of it."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from encoding_ext.evaluator import TEST_SCALES, MultiScaleEvaluator
from lseg_utils.cli import Parser

from ..device import reduced_dtype, resolve_device
from ..models import LSegNet
from .common import derangement, predictor, speed_up


def add_protocol_options(parser: Parser) -> None:
    """The published protocol, or what departs from it."""
    group = parser.add_argument_group("protocol")
    group.add_argument(
        "--protocol",
        choices=("official", "single"),
        default="official",
        help="official: six scales, each with its mirror image, as published; single: scale 1 only, a quick look",
    )
    group.add_argument("--scales", type=float, nargs="+", help="instead of those of the protocol")
    group.add_argument("--no_flip", action="store_true", help="leave out the mirrored forwards")
    group.add_argument(
        "--window_batch", type=_window_batch, default="auto", help="crops per forward; auto: as the free memory allows"
    )


def protocol_problems(options: argparse.Namespace) -> list[str]:
    """Numbers of ``add_protocol_options`` that are none."""
    if options.window_batch is not None and options.window_batch < 1:
        return [f"--window_batch is {options.window_batch}; give at least 1, or auto"]
    return []


def build_evaluator(
    net: LSegNet, dataset: Any, options: argparse.Namespace, device: torch.device
) -> MultiScaleEvaluator:
    """The test protocol around the network; the labels are encoded here, once."""
    text = net.encode_labels(net.labels)
    if options.shuffle_labels is not None:
        text = text[derangement(len(text), options.shuffle_labels)]
    speed_up(net, options, device)
    predict, (scales, flip) = predictor(net, options, device), scales_and_flip(options)
    return MultiScaleEvaluator(
        lambda images: predict(images, text),
        len(net.labels),
        base_size=dataset.base_size,
        crop_size=dataset.crop_size,
        scales=scales,
        flip=flip,
        mean=net.mean,
        std=net.std,
        window_batch=options.window_batch,
    )


def scales_and_flip(options: argparse.Namespace) -> tuple[tuple[float, ...], bool]:
    """What is summed: the scales, and whether mirror images are."""
    single = options.protocol == "single"
    return tuple(options.scales or ((1.0,) if single else TEST_SCALES)), not (single or options.no_flip)


def describe_protocol(options: argparse.Namespace, dataset: Any) -> str:
    """The protocol's name, or what departs from the published one."""
    scales, flip = scales_and_flip(options)
    sizes = f"windows of {dataset.crop_size}, base {dataset.base_size}"
    if scales == TEST_SCALES and flip:
        return f"official (six scales, flip), {sizes}"
    if scales == (1.0,) and not flip:
        return f"single (scale 1, no flip), {sizes}"
    return f"scales {' '.join(map(str, scales))}{', flip' if flip else ', no flip'}, {sizes}"


def describe_precision(options: argparse.Namespace) -> str:
    """float32, bfloat16 or float16: what the convolutions and products were computed in."""
    dtype = reduced_dtype(options.precision, resolve_device(options.device)) or torch.float32
    return str(dtype).removeprefix("torch.")


def _window_batch(text: str) -> int | None:
    return None if text == "auto" else int(text)
