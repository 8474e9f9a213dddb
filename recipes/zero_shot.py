"""The zero-shot recipes: rate, batch size and epochs for each benchmark and backbone, with the source of each number.

``python -m recipes.zero_shot pascal clip_resnet101`` prints one with its sources. The table is ``zero_shot.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, did_you_mean, run_script
from modules.models.backbones import BACKBONES

FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Recipe:
    """What ``train_lseg_zs.py`` uses for options that are not given, by their names, and where each value is from."""

    benchmark: str
    backbone: str
    values: dict[str, Any]
    sources: dict[str, str]


@cache
def recipes() -> tuple[Recipe, ...]:
    """All rows of the table."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    names = table["columns"][2:]
    return tuple(
        Recipe(
            benchmark,
            backbone,
            {name: value for name, (value, _) in zip(names, cells, strict=True)},
            {name: table["sources"][source] for name, (_, source) in zip(names, cells, strict=True)},
        )
        for benchmark, backbone, *cells in table["rows"]
    )


def recipe_for(benchmark: str, backbone: str) -> tuple[Recipe, str]:
    """The recipe, and a note if it is that of another backbone (the nearest that has one), else "".

    Raises ``InputError`` for a benchmark without recipes.
    """
    rows = [recipe for recipe in recipes() if recipe.benchmark == benchmark]
    if not rows:
        known = dict.fromkeys(recipe.benchmark for recipe in recipes())
        instead = f"choose one of {', '.join(known)}, or give --base_lr, --batch_size and --max_epochs"
        hint = did_you_mean(benchmark, known)
        raise InputError(f"there is no zero-shot recipe for {benchmark!r}{hint}; {instead}")

    def nearness(recipe: Recipe) -> tuple[bool, bool, float]:
        same_kind = BACKBONES[recipe.backbone].encoder == (
            BACKBONES[backbone].encoder if backbone in BACKBONES else "vit"
        )
        return recipe.backbone == backbone, same_kind, SequenceMatcher(None, recipe.backbone, backbone).ratio()

    nearest = max(rows, key=nearness)
    if nearest.backbone == backbone:
        return nearest, ""
    known = ", ".join(recipe.backbone for recipe in rows)
    note = f"there is no recipe for {benchmark} with {backbone} (only with {known}); using that of {nearest.backbone}"
    return nearest, note


def main(argv: Sequence[str] | None = None) -> None:
    """Print a recipe with its sources, or one value of it."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("benchmark", help="print the recipe for this benchmark: pascal, coco, fss or miniature_zs")
    parser.add_argument("backbone", choices=list(BACKBONES), help="print the recipe for this backbone")
    parser.add_argument("--value", help="print only this value, such as base_lr")
    options = parser.parse(argv)
    recipe, note = recipe_for(options.benchmark, options.backbone)
    if options.value is None:
        for name, value in recipe.values.items():
            print(f"{name:16}{'max_epochs' if value is None else value:<12}{recipe.sources[name]}")
        if note:
            print(f"note: {note}")
    elif options.value in recipe.values:
        print(recipe.values[options.value])
    else:
        raise InputError(f"a recipe has no {options.value!r}; choose one of {', '.join(recipe.values)}")


if __name__ == "__main__":
    run_script(main)
