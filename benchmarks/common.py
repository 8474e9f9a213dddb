"""What the benchmarks share: options, the machine and its matrix products, networks and inputs, tables and JSON."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data import get_labels
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError
from lseg_utils.files import unwritable
from lseg_utils.results import text_table, write_json
from modules.checkpoints import git_state
from modules.device import resolve_device
from modules.models import BACKBONES, LSegNet, build_lseg
from modules.models.backbones import MULTIPLE

RESULTS = Path(__file__).resolve().parent / "results"
QUICK = {"backbone": "tiny_vit", "size": 64, "batch": 1, "labels": 5, "rounds": 1, "threads": 1}
TINY_FEATURES, FEATURES = 16, 256
PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}
SEED = 0
CENTRED_ON = 128  # pixels of an image


def build_parser(description: str, *left_out: str) -> Parser:
    """A parser with the options of all benchmarks, less those ``left_out``; what is not given depends on the device."""
    parser = Parser(description)
    numbers = {
        "size": "side of the square images in pixels",
        "batch": "images per batch",
        "labels": "number of labels",
        "threads": "CPU threads; default: one per core",
        "rounds": "timed rounds, of which the median is reported",
    }
    if "backbone" not in left_out:
        parser.add_argument("--backbone", choices=list(BACKBONES))
    for name, text in numbers.items():
        if name not in left_out:
            parser.add_argument(f"--{name}", type=int, help=text)
    parser.add_argument("--device", default="auto", help="device to use: auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--quick", action="store_true", help="use a tiny network and one round, to show that everything runs"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON files")
    return parser


def parse(parser: Parser, argv: Sequence[str] | None, defaults: dict[str, dict[str, Any]]) -> argparse.Namespace:
    """The options, completed from ``defaults[device type]``, and from ``QUICK`` with --quick.

    Adds ``command``: how to get the same again. ``InputError`` for numbers that are too small or do not fit.
    """
    options = parser.parse(argv)
    options.command = command_line(options)
    device = resolve_device(options.device)
    if device.type not in defaults:
        raise InputError(f"there is no benchmark for {device.type}; use --device {' or '.join(defaults)}")
    options.device = str(device)
    chosen = {"threads": os.cpu_count()} | defaults[device.type] | (QUICK if options.quick else {})
    for name, value in chosen.items():
        if getattr(options, name, 0) is None:
            setattr(options, name, value)
    problems = [
        f"--{name} is {value}, but must be at least 1"
        for name in ("batch", "labels", "threads", "rounds", "images")
        if isinstance(value := getattr(options, name, None), int) and value < 1
    ]
    if getattr(options, "size", None) is not None and (options.size < MULTIPLE or options.size % MULTIPLE):
        problems.append(f"--size is {options.size}, but must be a multiple of {MULTIPLE}")
    if text := unwritable(options.output, "--output"):
        problems.append(text)
    if problems:
        raise InputError("\n".join(problems))
    torch.set_num_threads(options.threads)
    return options


def command_line(options: argparse.Namespace) -> str:
    """The command that gave these options, less where the results went."""
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}"]
    for name, value in vars(options).items():
        if value not in (None, False) and name != "output":
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name}", *map(str, values)]
    return shlex.join(words)


# ------------------------------------------------------------------------------------------------- the machine


def machine(device: str = "cpu") -> dict[str, Any]:
    """What timings depend on; nothing that names the machine."""
    result = {
        "processor": processor_name(),
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


def processor_name() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def matrix_rates(device: str, quick: bool = False) -> dict[str, float]:
    """FLOP/s of the product of two large square matrices, by precision: the best of several."""
    side = 256 if quick else PRODUCT_SIDE[torch.device(device).type]

    def rate(dtype: torch.dtype) -> float:
        """FLOP/s in one precision."""
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        seconds = []
        for _ in range(3 if quick else 8):
            synchronize(device)
            started = time.perf_counter()
            torch.mm(left, right)
            synchronize(device)
            seconds.append(time.perf_counter() - started)
        return 2 * side**3 / min(seconds)

    rates = {"float32": rate(torch.float32), "bfloat16": rate(torch.bfloat16)}
    if torch.device(device).type == "cuda":
        rates["float16"] = rate(torch.float16)
        torch.set_float32_matmul_precision("high")
        rates["tf32"] = rate(torch.float32)
        torch.set_float32_matmul_precision("highest")
    return rates


def precision_name(dtype: torch.dtype | None, device: str) -> str:
    """The key of ``matrix_rates`` for the project's products; None: float32, which on GPUs means TF32."""
    if dtype is None:
        return "float32" if torch.device(device).type == "cpu" else "tf32"
    return str(dtype).removeprefix("torch.")


def synchronize(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


# ------------------------------------------------------------------------------------------- networks and inputs


def network(options: argparse.Namespace) -> LSegNet:
    """The network in eval mode, on the device, with labels; random weights, the same in every process."""
    torch.manual_seed(SEED)
    features = TINY_FEATURES if options.backbone.startswith("tiny") else FEATURES
    net = build_lseg(options.backbone, label_names(options.labels), features=features).eval().to(options.device)
    # Embeddings of random networks all point the same way, and all pixels get one label: no test of agreement.
    with torch.no_grad():
        corner = pictures(options)[:1, :, :CENTRED_ON, :CENTRED_ON]
        net.decoder.embedding.bias -= net.coarse_embedding(corner).mean(dim=(0, 2, 3))
    return net


def label_names(count: int) -> list[str]:
    """ADE20K's 150 labels (the corrected ones), as many as asked for; beyond them, numbered ones."""
    names = get_labels("ade20k", "corrected")
    return [*names, *(f"thing {number}" for number in range(count - len(names)))][:count]


def pictures(options: argparse.Namespace, height: int | None = None, width: int | None = None) -> Tensor:
    """(batch, 3, size, size) of noise, or of another size."""
    shape = (options.batch, 3, height or options.size, width or options.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).to(options.device)


# ------------------------------------------------------------------------------------------------------- results


def report(name: str, options: argparse.Namespace, rates: dict[str, float], rows: list[dict[str, Any]]) -> None:
    """Print the table of ``rows`` (as ``measuring.row`` makes them) and write ``<name>_<cpu or cuda>.json``."""
    print(text_table(HEADER, [cells(row) for row in rows]))
    for dtype, rate in rates.items():
        print(f"matrix product, {dtype}: {rate / 1e9:.0f} GFLOP/s")
    kind = torch.device(options.device).type
    content = {
        "benchmark": name,
        "command": options.command,
        "git": git_state(),
        "machine": machine(options.device),
        "settings": {k: v for k, v in vars(options).items() if k not in ("command", "output")},
        "matrix_product_flop_per_s": rates,
        "rows": rows,
    }
    for each in (each for each in rows if each.get("profile")):
        longest = ", ".join(f"{operator} {share:.0%}" for operator, share in each["profile"].items())
        print(f"{each['what']}, {each['procedure']}: {longest}")
    path = options.output / f"{name}_{kind}.json"
    write_json(path, content)
    print(f"wrote {path}")


HEADER = ("what", "procedure", "seconds", "ratio", "throughput", "peak memory", "GFLOP/s", "share", "agreement")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as texts: what was not measured stays empty."""

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
