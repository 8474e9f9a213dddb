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
ORDER = ("forward", "train_step", "evaluate", "labels", "scaling")


def read(folder: Path) -> list[dict[str, Any]]:
    """The results in ``folder``, by machine and in the order of ``ORDER``; ``InputError`` if there are none."""
    paths = [folder / f"{name}_{kind}.json" for kind in ("cpu", "cuda") for name in ORDER]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    if not results:
        raise InputError(f"no results in {folder}; run `bash benchmarks/run_all.sh` first")
    return results


def data_rows(folder: Path) -> list[dict[str, Any]]:
    """What ``bench_data.py`` measured, as rows of the others."""
    path = folder / "data.json"
    pictures = json.loads(path.read_text(encoding="utf-8"))["pictures"] if path.is_file() else {}
    return [
        {
            "what": f"training samples, one core, pictures: {kind}",
            "procedure": procedure,
            "seconds": [1 / rates[f"{procedure}_samples_per_s"]],
            "ratio": rates["ratio"] if procedure == "project" else 1.0,
            "per_second": rates[f"{procedure}_samples_per_s"],
            "unit": "samples",
        }
        for kind, rates in pictures.items()
        for procedure in ("plain", "project")
    ]


def describe(result: dict[str, Any]) -> str:
    """The machine in a line."""
    machine, rates = result["machine"], result["matrix_product_flop_per_s"]
    place = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores"
    scale, unit = (1e12, "TFLOP/s") if "gpu" in machine else (1e9, "GFLOP/s")
    products = ", ".join(f"{rate / scale:.0f} {unit} in {dtype}" for dtype, rate in rates.items())
    return f"{place}, PyTorch {machine['torch']}; matrix product {products}"


def markdown(folder: Path = RESULTS) -> str:
    """A table for each machine, under its description."""
    results, parts = read(folder), []
    for on_gpu in (False, True):
        here = [result for result in results if ("gpu" in result["machine"]) == on_gpu]
        rows = [row for result in here for row in result["rows"]] + ([] if on_gpu else data_rows(folder))
        if here:
            parts.append(f"{describe(here[0])}:\n\n{markdown_table(rows)}")
    return "\n\n".join(parts)


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """One line per row; what was measured is written once."""
    lines, before = [f"| {' | '.join(HEADER)} |", "| --- " * len(HEADER) + "|"], None
    for what, *others in map(cells, rows):
        lines.append(f"| {what if what != before else ''} | {' | '.join(others)} |")
        before = what
    return "\n".join(lines)


def put_into(page: Path, table: str) -> None:
    """Replace the text between the two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise InputError(f"{page} has no line {BEGIN} followed by {END}; put them where the table belongs")
    with write_aside(page) as aside:
        aside.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, and write it into the file given as --page."""
    parser = Parser(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the JSON files")
    parser.add_argument("--page", type=Path, help="Markdown file whose table is replaced")
    options = parser.parse(argv)
    table = markdown(options.results)
    print(table)
    if options.page:
        put_into(options.page, table)


if __name__ == "__main__":
    run_script(main)
