"""The official-shaped network (modules.models.lseg_net) against our own and against the plain official procedure.

All have the same random weights and get the labels as texts at every call, as calling code written for the official
network gives them: the plain procedure encodes them each time, the other two once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import plain
from benchmarks.common import build_parser, network, parse, pictures, report
from benchmarks.measuring import Maker, Process, Work, agreement, alternate, row
from lseg_utils.errors import run_script
from modules.models.lseg_net import LSegNet


def plain_calls(options: argparse.Namespace) -> Work:
    """Compute everything again."""
    net, images = plain.prepare(network(options)), pictures(options)
    return Work(torch.no_grad()(lambda: [plain.logits(net, images, net.labels).argmax(1)]), options.batch)


def own_calls(options: argparse.Namespace) -> Work:
    """``build_lseg``'s network."""
    net, images = network(options), pictures(options)
    return Work(torch.no_grad()(lambda: [net(images, net.labels).argmax(1)]), options.batch)


def official_calls(options: argparse.Namespace) -> Work:
    """The same network under official names."""
    net, images = network(options), pictures(options)
    named = LSegNet.of(net)
    return Work(torch.no_grad()(lambda: [named(images, net.labels).argmax(1)]), options.batch)


def official_features(options: argparse.Namespace) -> Work:
    """What most projects use: the raw embedding at half size."""
    named, images = LSegNet.of(network(options)), pictures(options)
    return Work(torch.no_grad()(lambda: [named.raw_features(images)]), options.batch)


def own_features(options: argparse.Namespace) -> Work:
    """The same from our network."""
    net, images = network(options), pictures(options)
    return Work(torch.no_grad()(lambda: [net.embed(images)]), options.batch)


MAKERS: dict[str, Maker] = {"plain": plain_calls, "project": own_calls, "official names": official_calls}
FEATURES: dict[str, Maker] = {"project": own_features, "official names": official_features}


def main() -> None:
    """Logits, then features; the ratio is to the first procedure of each."""
    defaults = {"batch": 1, "rounds": 5, "labels": 20}
    options, rows = parse(build_parser(__doc__), cpu=defaults, cuda=defaults), []
    for name, makers in (("logits", MAKERS), ("features", FEATURES)):
        processes = {one: Process(maker, options) for one, maker in makers.items()}
        measured, results = alternate(processes, options.rounds, [])
        first = next(iter(makers))
        what = f"{name}, {options.backbone}, {options.size}x{options.size}, {options.labels} labels"
        for one, each in measured.items():
            same = agreement(results[one], results[first]) if name == "logits" else None
            rows.append(row(what, one, each, measured[first], agreement=same))
    report("dropin", options, rows)


if __name__ == "__main__":
    run_script(main)
