"""How fast this machine computes: its features, and the rate of its matrix products in each precision.

``python -m modules.hardware`` prints the table. Rates are measured, not looked up by the processor's name.
"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lseg_utils.errors import run_script
from lseg_utils.progress import is_rank_zero
from lseg_utils.results import text_table

if TYPE_CHECKING:  # torch takes two seconds to import: each function imports it, so that --help answers at once
    import torch

SIDE = {"cpu": 768, "cuda": 8192, "mps": 2048}  # of the measured square matrices: milliseconds each
REPEATS = 5
SLOWER = 1.1  # a ratio below this one is noise


def processor_name() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """The instruction sets that decide about precision, as PyTorch detects them."""
    import torch

    names = {
        "AVX2": "_is_avx2_supported",
        "AVX512": "_is_avx512_supported",
        "AVX512-BF16": "_is_avx512_bf16_supported",
        "VNNI": "_is_vnni_supported",
        "AMX": "_is_amx_tile_supported",
    }
    # Private names: a PyTorch that lacks one of them says nothing about that feature.
    return [name for name, check in names.items() if getattr(torch.cpu, check, lambda: False)()]


def gpu_features(device: torch.device) -> list[str]:
    """The model, compute capability and memory of a CUDA GPU."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    return [properties.name, f"sm_{properties.major}{properties.minor}", f"{properties.total_memory / 2**30:.0f} GiB"]


def product_rate(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """FLOP/s of the product of two square matrices: the best of several, after one that does not count."""
    import torch

    side = side or SIDE[device.type]
    random = torch.Generator().manual_seed(0)  # a GPU is faster with ones; the global state must not change
    left, right = (torch.randn(side, side, generator=random).to(device, dtype) for _ in range(2))
    best = float("inf")
    for repeat in range(REPEATS + 1):
        started = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for a GPU
        if repeat:
            best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


@lru_cache
def slowdown(dtype: torch.dtype, device: torch.device, threads: int) -> float:
    """How many times longer a matrix product takes in ``dtype`` than in float32; below 1: it is faster.

    ``threads`` is there for the cache alone: what is fast may depend on it.
    """
    import torch

    return product_rate(device, torch.float32) / product_rate(device, dtype)


def warn_if_slower(dtype: torch.dtype, device: torch.device) -> None:
    """Warn, with the factor, where a reduced precision that was asked for is slower than float32 on this CPU."""
    import torch

    if device.type != "cpu" or not is_rank_zero():
        return
    factor = slowdown(dtype, device, torch.get_num_threads())
    if factor > SLOWER:
        warnings.warn(
            f"{str(dtype).removeprefix('torch.')} is {factor:.1f} times slower than float32 on this CPU "
            f"({', '.join(cpu_features()) or 'no vector instructions found'}); choose precision 32 or auto",
            stacklevel=3,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Print what there is, and how fast it multiplies."""
    from lseg_utils.cli import Parser  # here: the predictor imports this file, and needs no command line

    Parser("Measure how fast this machine multiplies matrices in each precision.").parse(argv)
    import torch

    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    devices += [torch.device("mps")] if torch.backends.mps.is_available() else []
    rows = []
    for device in devices:
        features = ["Apple GPU"] if device.type == "mps" else cpu_features()
        features = gpu_features(device) if device.type == "cuda" else features
        rates = {dtype: product_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)}
        for dtype, rate in rates.items():
            name = str(dtype).removeprefix("torch.")
            ratio = rate / rates[torch.float32]
            rows.append([str(device), name, f"{rate / 1e9:.0f}", f"{ratio:.2f}", ", ".join(features)])
    print(text_table(["device", "precision", "GFLOP/s", "against float32", "features"], rows))
    print(
        f"\nMatrix products, PyTorch {torch.__version__}, threads: {torch.get_num_threads()}. --precision auto uses "
        "float32 on a CPU, so that results depend less on the machine; try --precision bf16 if its row is well above 1."
    )


if __name__ == "__main__":
    run_script(main)
