"""Peak memory of LSegPredictor: a large photo, and very many labels, each in a process of its own.

Random weights of an official network: memory does not depend on what they are. Prints a table and writes JSON.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.common import RESULTS, machine
from benchmarks.measuring import resident_bytes
from lseg_utils.cli import Parser
from lseg_utils.errors import run_script
from lseg_utils.results import text_table, write_json
from modules.models import BACKBONES, build_lseg
from modules.predictor import LSegPredictor

HEADER = ("image", "labels", "mode", "peak GB, network loaded", "image segmented", "overlay drawn", "seconds")


CASES = (  # width, height, number of labels, mode
    (6000, 4000, 150, "whole"),
    (640, 480, 10_000, "whole"),
    (6000, 4000, 150, "windows"),
)


def measure(backbone: str, width: int, height: int, labels: int, mode: str) -> dict[str, Any]:
    """Segment and draw the overlay; the time of the first, and the largest resident size in GB after each step."""
    net = build_lseg(backbone, None)
    predictor = LSegPredictor(net, "cpu", "32")
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    text = torch.randn(labels, net.text_encoder.embed_dim, generator=torch.Generator().manual_seed(0))
    found = {"width": width, "height": height, "labels": labels, "mode": mode}
    found["loaded_gb"] = resident_bytes(peak=True) / 1e9
    start = time.perf_counter()
    result = predictor.segment(image, F.normalize(text, dim=1), mode)
    found["seconds"] = time.perf_counter() - start
    found["segment_gb"] = resident_bytes(peak=True) / 1e9
    result.overlay()
    found["overlay_gb"] = resident_bytes(peak=True) / 1e9
    return found


def main() -> None:
    """Measure every case, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--backbone", choices=list(BACKBONES), default="clip_vitb32_384", help="measure this backbone")
    options = parser.parse(None)
    results = []
    for case in CASES:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # peaks are those of a whole process
            results.append(pool.submit(measure, options.backbone, *case).result())
    write_json(RESULTS / "memory.json", {"backbone": options.backbone, "machine": machine(), "cases": results})
    rows = []
    for (width, height, labels, mode), result in zip(CASES, results):
        gigabytes = (f"{result[key]:.2f}" for key in ("loaded_gb", "segment_gb", "overlay_gb"))
        rows.append((f"{width} x {height}", labels, mode, *gigabytes, round(result["seconds"])))
    print(text_table(HEADER, rows))


if __name__ == "__main__":
    run_script(main)
