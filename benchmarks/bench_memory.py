"""Peak memory of LSegPredictor: a large photo, and very many labels, each in a process of its own.

Random weights of an official network: memory does not depend on what they are. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F

from lseg_utils.results import text_table, write_json
from modules.models import build_lseg
from modules.predictor import LSegPredictor

RESULTS = Path(__file__).resolve().parent / "results" / "memory.json"


class Case(NamedTuple):
    """One image, segmented once against random label embeddings."""

    width: int
    height: int
    labels: int
    mode: str


CASES = (
    Case(6000, 4000, 150, "whole"),
    Case(640, 480, 10_000, "whole"),
    Case(6000, 4000, 150, "windows"),
)


def measure(backbone: str, case: Case) -> dict[str, Any]:
    """Segment, draw the overlay, and say what the process took at its peak."""
    net = build_lseg(backbone, None)
    predictor = LSegPredictor(net, "cpu", "32")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (case.height, case.width, 3), dtype=np.uint8)
    text = torch.randn(case.labels, net.text_encoder.embed_dim, generator=torch.Generator().manual_seed(0))
    loaded = peak_gb()
    start = time.perf_counter()
    result = predictor.segment(image, F.normalize(text, dim=1), case.mode)
    seconds = time.perf_counter() - start
    assert result.mask.shape == (case.height, case.width)
    segmented = peak_gb()
    result.overlay()
    return {
        **case._asdict(),
        "loaded_gb": loaded,
        "segment_gb": segmented,
        "overlay_gb": peak_gb(),
        "seconds": seconds,
    }


def peak_gb() -> float:
    """The largest resident size this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB, on a Mac bytes
    return peak / (1e9 if sys.platform == "darwin" else 1e9 / 1024)


def in_own_process(backbone: str, number: int) -> dict[str, Any]:
    """``measure`` one of ``CASES`` in a process that has done nothing else."""
    command = [sys.executable, __file__, "--backbone", backbone, "--case", str(number)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Measure every case, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="clip_vitb32_384")
    parser.add_argument("--case", type=int, help="measure only this one, here, and print it as JSON")
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(options.backbone, CASES[options.case])))
        return
    machine = f"{platform.machine()}, {os.cpu_count()} cores, PyTorch {torch.__version__}"
    results: list[dict[str, Any]] = []
    for number in range(len(CASES)):
        results.append(in_own_process(options.backbone, number))
        write_json(RESULTS, {"backbone": options.backbone, "machine": machine, "cases": results})
    print(text_table(HEADER, [row(result) for result in results]))


HEADER = ("image", "labels", "mode", "peak GB, network loaded", "image segmented", "overlay drawn", "seconds")


def row(result: dict[str, Any]) -> tuple[Any, ...]:
    """A case's line of the table."""
    gigabytes = (f"{result[key]:.2f}" for key in ("loaded_gb", "segment_gb", "overlay_gb"))
    image = f"{result['width']} x {result['height']}"
    return image, result["labels"], result["mode"], *gigabytes, round(result["seconds"])


if __name__ == "__main__":
    main()
