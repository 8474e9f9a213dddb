"""Print the README's table of speeds from the JSON of the benchmarks, as Markdown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import HEADER, RESULTS, cells
from encoding_ext.cli import Parser
from encoding_ext.errors import InputError, run_script

ORDER = ("forward", "train_step", "evaluate", "labels", "scaling")


def read(folder: Path) -> list[dict[str, Any]]:
    """The results in ``folder``, by machine and in the order of ``ORDER``; ``InputError`` if there are none."""
    paths = [folder / f"{name}_{kind}.json" for kind in ("cpu", "cuda") for name in ORDER]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    if not results:
        raise InputError(f"no results in {folder}; bash benchmarks/run_all.sh makes some")
    return results


def describe(result: dict[str, Any]) -> str:
    """The machine in a line."""
    machine, rates = result["machine"], result["matrix_product_flop_per_s"]
    place = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores"
    scale, unit = (1e12, "TFLOP/s") if "gpu" in machine else (1e9, "GFLOP/s")
    products = ", ".join(f"{rate / scale:.0f} {unit} in {dtype}" for dtype, rate in rates.items())
    return f"{place}, PyTorch {machine['torch']}; matrix product {products}"


def markdown(folder: Path = RESULTS) -> str:
    """A table for each machine, under its description."""
    lines: list[str] = []
    kind = None
    for result in read(folder):
        if ("gpu" in result["machine"]) != kind:
            kind = "gpu" in result["machine"]
            lines += ["", f"{describe(result)}:", "", f"| {' | '.join(HEADER)} |", "| --- " * len(HEADER) + "|"]
        before = None
        for row in result["rows"]:
            what, *others = cells(row)
            lines.append(f"| {what if what != before else ''} | {' | '.join(others)} |")
            before = what
    return "\n".join(lines[1:])


def main(argv: Sequence[str] | None = None) -> None:
    """Print."""
    parser = Parser(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON")
    print(markdown(parser.parse(argv).results))


if __name__ == "__main__":
    run_script(main)
