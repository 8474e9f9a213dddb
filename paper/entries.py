"""The paper's tables and figures as data (``entries.json``): rows, published figures with their sources, cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lseg_utils.errors import InputError, did_you_mean
from modules.models.backbones import BACKBONES
from recipes.ablations import ablations
from recipes.zero_shot import recipe_for

DATA: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Row:
    """One network of a table.

    Attributes:
        name: unique in its table; its folder is named after it.
        title: the network in words.
        options: of the training script, by their names; ``backbone`` is always there.
        published: measure -> (percent, source in words). Measures: "fold 0" to "fold 3", "mean", "mIoU", "FB-IoU",
            "pixel accuracy".
        released: the file of the model zoo, in which % stands for the fold; "": none was released.
        trains: False: only a released file can be tested.
    """

    name: str
    title: str
    options: Mapping[str, Any]
    published: Mapping[str, tuple[float, str]]
    released: str = ""
    trains: bool = True

    @property
    def backbone(self) -> str:
        """The name of its image and text encoder."""
        return self.options["backbone"]


@dataclass(frozen=True)
class Entry:
    """A table, or the figures. ``kind``: "zero_shot", "labels" (a fixed label set) or "figures"."""

    name: str
    alias: str
    title: str
    shows: str
    kind: str
    dataset: str | None
    rows: tuple[Row, ...] = field(default=())

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds of the benchmark; (0,) where there are none."""
        return (0, 1, 2, 3) if self.dataset in ("pascal", "coco") else (0,)

    def hours(self, row: Row) -> float | None:
        """Hours of training of all folds on one GPU, by the method in ``entries.json``; None: nothing is trained."""
        if not row.trains or self.dataset is None:
            return None
        cost = DATA["cost"]
        items = sum(cost["items_per_epoch"][self.dataset])
        if self.kind == "zero_shot":  # each item comes with its support images
            recipe = recipe_for(self.dataset, row.backbone)[0].values
            items *= recipe["max_epochs"] * (1 + recipe["nshot"])
        else:
            items *= row.options["max_epochs"]
        rates = cost["images_per_second"]  # by backbone, or for all with the same image encoder
        return items / rates.get(row.backbone, rates[BACKBONES[row.backbone].image])[self.kind] / 3600


@cache
def entries() -> tuple[Entry, ...]:
    """All entries, in the paper's order."""
    return tuple(_entry(**entry) for entry in DATA["entries"])


def _entry(
    rows: Sequence[dict[str, Any]] = (), ablation: str = "", options: Mapping[str, Any] | None = None, **facts: Any
) -> Entry:
    """An entry with its rows, those of ``recipes/ablations.json`` first."""
    sources, found = DATA["sources"], []
    for one in ablations():
        if one.ablation == ablation:
            figures = {"mIoU": one.miou, "pixel accuracy": one.pixel_accuracy}
            published = {name: (value, one.source) for name, value in figures.items() if value is not None}
            found.append(Row(one.name, one.shows, one.options, published))
    for row in rows:
        rest = dict(row)
        trained = {"backbone": rest.pop("backbone"), **(options or {})}
        published = {name: (value, sources[source]) for name, (value, source) in rest.pop("published").items()}
        found.append(Row(options=trained, published=published, **rest))
    return Entry(rows=tuple(found), **facts)


def chosen_entries(names: Sequence[str]) -> list[Entry]:
    """The entries of these names or aliases, "all" for all; ``InputError`` with what is near an unknown name."""
    known = {name: entry for entry in entries() for name in (entry.name, entry.alias)}
    problems = []
    for name in names:
        if name not in known and name != "all":
            hint = did_you_mean(name, known)
            problems.append(f"there is no entry {name!r}{hint}; give all, or some of {', '.join(known)}")
    if problems:
        raise InputError("\n".join(problems))
    wanted = [known[name].name for name in names if name != "all"]
    return [entry for entry in entries() if "all" in names or entry.name in wanted]
