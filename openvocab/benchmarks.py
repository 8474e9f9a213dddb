"""The benchmarks of open-vocabulary segmentation: which dataset, which classes, which score the literature quotes.

Nothing is hidden in code per dataset: what a benchmark does about the background is in this table, and printed with
every result. Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lseg_utils.errors import InputError

BACKGROUND = "background"
BACKGROUNDS = {
    "none": "every label of the dataset is a class",
    "ignored": "pixels of the background do not count, and it is not offered as a label",
    "class": "the background is a class like the others, with texts of its own",
    "rest": "the background is a class; a pixel gets it if it gets one of the rest of the labels",
}

# PC-59 without VOC's classes: what a pixel outside VOC's objects may be called in PAS-20b.
REST_OF_PASCAL = (
    "bag, bed, bench, book, building, cabinet, ceiling, cloth, computer, cup, door, fence, floor, flower, food, grass, "
    "ground, keyboard, light, mountain, mouse, curtain, platform, sign, plate, road, rock, shelves, sidewalk, sky, "
    "snow, bedclothes, track, tree, truck, wall, water, window, wood"
)


@dataclass(frozen=True)
class Benchmark:
    """One row of the table.

    Attributes:
        name: in the literature.
        dataset: a name or a YAML file of ``data.get_dataset``.
        score: the key of ``scores_from_confusion`` that the literature quotes.
        background: one of ``BACKGROUNDS``.
        background_labels: the texts of the background ("class"), or the rest of the labels ("rest").
        split: the split that is tested.
    """

    name: str
    dataset: str
    score: str = "miou_present_or_predicted"
    background: str = "none"
    background_labels: tuple[str, ...] = (BACKGROUND,)
    split: str = "val"

    def root(self, data_path: Path | None) -> Path | None:
        """``--data_path``, which is the folder of the known datasets; a user's file has a root of its own."""
        return None if self.dataset.endswith((".yaml", ".yml")) else data_path


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("A-150", "ade20k"),
        Benchmark("A-847", "ade847"),
        Benchmark("PC-59", "pascal_context59"),
        Benchmark("PC-60", "pascal_context60", background="class"),
        Benchmark("PC-459", "pascal_context459"),
        Benchmark("PAS-20", "voc2012", background="ignored"),
        Benchmark("PAS-20b", "voc2012", background="rest", background_labels=tuple(REST_OF_PASCAL.split(", "))),
        Benchmark("PAS-21", "voc2012", background="class"),
        Benchmark("Cityscapes", "cityscapes"),
        Benchmark("COCO-Stuff", "coco_stuff171"),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark of the table, or a dataset (a name or a YAML file) all of whose labels are classes."""
    for known, benchmark in BENCHMARKS.items():
        if known.lower() == name.lower():
            return benchmark
    path = Path(name)
    return Benchmark(path.stem if path.suffix in (".yaml", ".yml") else name, name)


@dataclass(frozen=True)
class Task:
    """What is scored: classes, the labels that stand for each, and where the dataset's labels went.

    Attributes:
        classes: N names.
        labels: for each class, the labels of which any stands for it (one, except for the rest of a background).
        class_of: for each label index of the dataset, its class; -1: its pixels do not count.
        background: the benchmark's choice, in words.
    """

    classes: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    class_of: tuple[int, ...]
    background: str

    @property
    def sha256(self) -> str:
        """Of the label list: one line per class, its labels separated by " | "."""
        return hashlib.sha256("\n".join(" | ".join(labels) for labels in self.labels).encode()).hexdigest()


def task_of(benchmark: Benchmark, labels: Sequence[str]) -> Task:
    """The classes of a benchmark on a dataset with these labels; ``InputError`` if it needs a background they lack."""
    described = f"{benchmark.background}: {BACKGROUNDS[benchmark.background]}"
    if benchmark.background == "none":
        return Task(tuple(labels), tuple((label,) for label in labels), tuple(range(len(labels))), described)
    backgrounds = [i for i, label in enumerate(labels) if label.split(",")[0].strip().lower() == BACKGROUND]
    if benchmark.background != "ignored" and not backgrounds:
        raise InputError(
            f"{benchmark.name} scores the class {BACKGROUND!r}, which is not a label of {benchmark.dataset}; use a "
            "description of the dataset in which the background is a label"
        )
    kept = [label for i, label in enumerate(labels) if i not in backgrounds]
    number = iter(range(len(kept)))
    class_of = [-1 if i in backgrounds else next(number) for i in range(len(labels))]
    classes, texts = list(kept), [(label,) for label in kept]
    if benchmark.background != "ignored":
        class_of = [len(kept) if i in backgrounds else place for i, place in enumerate(class_of)]
        classes.append(BACKGROUND)
        texts.append(benchmark.background_labels)
        described += f" ({', '.join(benchmark.background_labels)})"
    return Task(tuple(classes), tuple(texts), tuple(class_of), described)
