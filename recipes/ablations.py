"""The paper's ablations on ADE20K: text encoder, regularisation block, plain classifier.

``python -m recipes.ablations`` lists them, ``python -m recipes.ablations bottleneck_2`` prints the commands that train
and test one. The table is ``ablations.json``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, did_you_mean, run_script
from lseg_utils.results import text_table

FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Ablation:
    """A row of the paper's ablations.

    Attributes:
        name: unique; the run and its checkpoints are named after it.
        ablation: the table that it belongs to.
        shows: what is varied, in words.
        options: of ``train_lseg.py``, by their names.
        miou, pixel_accuracy: as published, in percent; None: unknown.
        source: where these figures are from.
        options_source: where the options that no ablation varies are from.
    """

    name: str
    ablation: str
    shows: str
    options: dict[str, Any]
    miou: float | None
    pixel_accuracy: float | None
    source: str
    options_source: str

    def train_command(self) -> list[str]:
        """The words that train it."""
        given = [word for name, value in self.options.items() for word in (f"--{name}", str(value))]
        return ["python", "train_lseg.py", "--dataset", "ade20k", "--exp_name", f"ablation_{self.name}", *given]

    def test_command(self) -> list[str]:
        """The words that test it by the published protocol."""
        weights = f"checkpoints/ablation_{self.name}/version_0/checkpoints/last.ckpt"
        return ["python", "test_lseg.py", "--eval", "--dataset", "ade20k", "--weights", weights]


@cache
def ablations() -> tuple[Ablation, ...]:
    """All rows of the table."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    common = {name: value for name, value in table["common"].items() if name != "source"}
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    return tuple(
        Ablation(
            **row
            | {
                "options": row["options"] | common,
                "source": table["sources"][row["source"]],
                "options_source": table["sources"][table["common"]["source"]],
            }
        )
        for row in rows
    )


def ablation(name: str) -> Ablation:
    """The row of this name; ``InputError`` with the nearest ones if there is none."""
    names = [row.name for row in ablations()]
    if name not in names:
        raise InputError(f"there is no ablation {name!r}{did_you_mean(name, names)}; choose one of {', '.join(names)}")
    return ablations()[names.index(name)]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, or the commands of one row."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="print the commands of this ablation; default: list all")
    options = parser.parse(argv)
    if options.name is None:
        rows = [
            (row.name, row.ablation, row.shows, "" if row.miou is None else f"{row.miou:.2f}") for row in ablations()
        ]
        print(text_table(("name", "ablation", "what", "published mIoU"), rows))
        return
    row = ablation(options.name)
    print(shlex.join(row.train_command()))
    print(shlex.join(row.test_command()))
    print(f"published mIoU: {row.miou} ({row.source})")
    print(f"options: {row.options_source}")


if __name__ == "__main__":
    run_script(main)
