"""Print the table of speeds from the benchmarks' JSON files; with --page, also write it into docs/speed.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import HEADER, RESULTS, cells
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.files import write_aside

BEGIN, END = "<!-- table.py begins -->", "<!-- table.py ends -->"
ORDER = ("forward", "train_step", "evaluate", "labels", "openvocab", "joint", "dropin", "scaling", "data")


def markdown(folder: Path = RESULTS) -> str:
    """The results in ``folder``: a table for each machine, under its description. ``InputError`` if there are none."""
    machines: dict[str, list[dict[str, Any]]] = {}  # the benchmarks may have run on several
    for path in (folder / f"{name}_{kind}.json" for kind in ("cpu", "cuda") for name in ORDER):
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            machine = {name: value for name, value in result["machine"].items() if name != "load_before"}
            machines.setdefault(json.dumps(machine, sort_keys=True), []).append(result)
    parts = []
    for results in machines.values():
        lines = ["| " + " | ".join(HEADER) + " |", "| --- " * len(HEADER) + "|"]
        before = None
        for what, *others in (cells(row) for result in results for row in result["rows"]):
            lines.append(f"| {what if what != before else ''} | {' | '.join(others)} |")
            before = what
        parts.append("\n".join([f"{describe(results[0])}:", "", *lines]))
    if not parts:
        raise InputError(f"no results in {folder}; run `bash benchmarks/run_all.sh` first")
    return "\n\n".join(parts)


def describe(result: dict[str, Any]) -> str:
    """The machine in a line."""
    machine, rates = result["machine"], result.get("matrix_product_flop_per_s", {})
    place = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores"
    scale, unit = (1e12, "TFLOP/s") if "gpu" in machine else (1e9, "GFLOP/s")
    if "gpu" not in machine and machine.get("features"):
        place += f" with {', '.join(machine['features'])}"
    products = ", ".join(f"{rate / scale:.0f} {unit} in {dtype}" for dtype, rate in rates.items())
    return f"{place}, PyTorch {machine['torch']}" + (f"; matrix product {products}" if rates else "")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, and replace the text between the two marks of the file given as --page by it."""
    parser = Parser(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="read the JSON files in this folder")
    parser.add_argument("--page", type=Path, help="replace the table in this Markdown file")
    options = parser.parse(argv)
    table = markdown(options.results)
    print(table)
    if page := options.page:
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            raise InputError(f"{page} has no line {BEGIN} followed by {END}; put them where the table belongs")
        with write_aside(page) as aside:
            aside.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
