"""What the benchmarks share: options, the machine and its matrix products, networks and inputs, tables and JSON."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data import get_labels
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError
from lseg_utils.files import unwritable
from lseg_utils.git import git_state
from lseg_utils.results import text_table, write_json
from modules.device import resolve_device
from modules.hardware import cpu_features, processor_name, product_rate, slowdown
from modules.models import BACKBONES, LSegNet, build_lseg
from modules.models.backbones import MULTIPLE

RESULTS = Path(__file__).resolve().parent / "results"
BACKBONE = {"cpu": "clip_vitb32_384", "cuda": "clip_vitl16_384"}
QUICK = {"backbone": "tiny_vit", "size": 64, "batch": 1, "labels": 5, "rounds": 1, "threads": 1}
SEED = 0
EMULATED = 4  # a precision that is this many times slower than float32 is not the processor's own
HEADER = ("what", "procedure", "seconds", "ratio", "throughput", "peak memory", "GFLOP/s", "share", "agreement")


def build_parser(description: str, *left_out: str) -> Parser:
    """A parser with the options of all benchmarks, less those ``left_out``; what is not given depends on the device."""
    parser = Parser(description)
    numbers = {
        "size": "make square images with sides of this many pixels",
        "batch": "put this many images into a batch",
        "labels": "use this many labels",
        "threads": "use this many CPU threads; default: one per core",
        "rounds": "time this many rounds and report the median",
    }
    for name in [name for name in numbers if name not in left_out]:
        parser.add_argument(f"--{name}", type=int, help=numbers[name])
    parser.add_argument("--backbone", choices=list(BACKBONES), help="measure this backbone")
    parser.add_argument("--device", default="auto", help="run on auto, cpu, cuda, cuda:1")
    parser.add_argument("--quick", action="store_true", help="use a tiny network and one round, to show that all runs")
    parser.add_argument("--output", type=Path, default=RESULTS, help="write the JSON files to this folder")
    return parser


def parse(parser: Parser, **defaults: dict[str, Any]) -> argparse.Namespace:
    """The options, completed from --quick's values or from ``defaults``, a dictionary for each device type.

    Adds ``command``, which gives the same again. ``InputError`` for numbers that are too small or do not fit.
    """
    options = parser.parse(None)
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}"]
    for name, value in vars(options).items():
        if value not in (None, False) and name != "output":
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name}", *map(str, values)]
    options.command = shlex.join(words)

    device = resolve_device(options.device)
    if device.type not in defaults:
        raise InputError(f"there is no benchmark for {device.type}; use --device {' or '.join(defaults)}")
    options.device = str(device)
    completed = {"backbone": BACKBONE[device.type], "size": 480, "labels": 150, "threads": os.cpu_count()}
    for name, value in (completed | defaults[device.type] | (QUICK if options.quick else {})).items():
        if getattr(options, name, 0) is None:
            setattr(options, name, value)

    problems = [
        f"--{name} is {value}, but must be at least 1"
        for name in ("batch", "labels", "threads", "rounds", "images")
        if np.min(value := getattr(options, name, 1)) < 1
    ]
    if options.size < MULTIPLE or options.size % MULTIPLE:
        problems.append(f"--size is {options.size}, but must be a multiple of {MULTIPLE}")
    if text := unwritable(options.output, "--output"):
        problems.append(text)
    if problems:
        raise InputError("\n".join(problems))
    torch.set_num_threads(options.threads)
    return options


def machine(device: str = "cpu") -> dict[str, Any]:
    """What timings depend on; nothing that names the machine."""
    result = {
        "processor": processor_name(),
        "features": cpu_features(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        result |= {"gpu": properties.name, "gpu_memory_gb": round(properties.total_memory / 2**30)}
    return result


def matrix_rates(device: str, quick: bool) -> dict[str, float]:
    """FLOP/s of the product of two large square matrices, by precision: the best of several."""
    on_gpu, place = device != "cpu", torch.device(device)
    side = 256 if quick else 8192 if on_gpu else 2048
    dtypes = [torch.float32, torch.bfloat16] + [torch.float16] * on_gpu
    rates = {}
    for dtype in dtypes:
        # A CPU that emulates a precision would take minutes for large matrices.
        emulated = not on_gpu and slowdown(dtype, place, torch.get_num_threads()) > EMULATED
        rates[precision_name(dtype)] = product_rate(place, dtype, 256 if emulated else side)
    if on_gpu:
        torch.set_float32_matmul_precision("high")
        rates["tf32"] = product_rate(place, torch.float32, side)
        torch.set_float32_matmul_precision("highest")
    return rates


def precision_name(dtype: torch.dtype | None, device: str = "cpu") -> str:
    """The key of ``matrix_rates`` for the project's products; None: float32, which on GPUs means TF32."""
    if dtype is None:
        return "float32" if device == "cpu" else "tf32"
    return str(dtype).removeprefix("torch.")


def network(options: argparse.Namespace) -> LSegNet:
    """The network in eval mode, on the device; random weights, the same in every process.

    Its labels are ADE20K's 150 (the corrected ones), as many as asked for; beyond them, numbered ones.
    """
    torch.manual_seed(SEED)
    names = get_labels("ade20k", "corrected")
    names = [*names, *(f"thing {number}" for number in range(options.labels - len(names)))]
    features = 16 if options.backbone.startswith("tiny") else 256
    net = build_lseg(options.backbone, names[: options.labels], features=features).eval().to(options.device)
    # Embeddings of random networks all point the same way, and all pixels get one label: no test of agreement.
    with torch.no_grad():
        corner = pictures(options)[:1, :, :128, :128]
        net.decoder.embedding.bias -= net.coarse_embedding(corner).mean(dim=(0, 2, 3))
    return net


def pictures(options: argparse.Namespace, height: int | None = None, width: int | None = None) -> Tensor:
    """(batch, 3, size, size) of noise, or of another size."""
    shape = (options.batch, 3, height or options.size, width or options.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).to(options.device)


def report(name: str, options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Print the table of ``rows`` (as ``measuring.row`` makes them) and write ``<name>_<cpu or cuda>.json``."""
    rates = matrix_rates(options.device, options.quick)
    for row in rows:
        row["share"] = row["flop_per_s"] / rates[row["precision"]] / row.pop("gpus", 1)
    print(text_table(HEADER, [cells(row) for row in rows]))
    for dtype, rate in rates.items():
        print(f"matrix product, {dtype}: {rate / 1e9:.0f} GFLOP/s")
    for row in rows:
        if row["profile"]:
            longest = ", ".join(f"{operator} {share:.0%}" for operator, share in row["profile"].items())
            print(f"{row['what']}, {row['procedure']}: {longest}")
    content = {
        "benchmark": name,
        "command": options.command,
        "git": git_state(),
        "machine": machine(options.device),
        "settings": {k: v for k, v in vars(options).items() if k not in ("command", "output")},
        "matrix_product_flop_per_s": rates,
        "rows": rows,
    }
    path = options.output / f"{name}_{torch.device(options.device).type}.json"
    write_json(path, content)
    print(f"wrote {path}")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as texts under ``HEADER``: what was not measured stays empty."""

    def text(name: str, form: str, factor: float = 1.0) -> str:
        value = row.get(name)
        return "" if value is None else form.format(value * factor)

    seconds = statistics.median(row["seconds"])
    return (
        row["what"],
        row["procedure"],
        f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}",
        text("ratio", "{:.2f}"),
        f"{row['per_second']:.3g} {row['unit']}/s",
        text("peak_bytes", "{:.2f} GB", 1e-9),
        text("flop_per_s", "{:.0f}", 1e-9),
        text("share", "{:.0%}"),
        text("agreement", "{:.2%}"),
    )
