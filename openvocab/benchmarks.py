"""The benchmarks of open-vocabulary segmentation: which dataset, which classes, which score the literature quotes.

Nothing is hidden in code per dataset: what a benchmark does about the background is in this table, and printed with
every result. Does not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lseg_utils.errors import InputError

BACKGROUND = "background"
BACKGROUNDS = {
    "none": "every label of the dataset is a class",
    "ignored": "pixels of the background do not count, and it is not offered as a label",
    "class": "the background is a class like the others, with texts of its own",
    "rest": "the background is a class; a pixel belongs to it if its best label is one of the remaining ones",
}

# PC-59 without VOC's classes: what a pixel outside VOC's objects may be called in PAS-20b.
REST_OF_PASCAL = (
    "bag, bed, bench, book, building, cabinet, ceiling, cloth, computer, cup, door, fence, floor, flower, food, grass, "
    "ground, keyboard, light, mountain, mouse, curtain, platform, sign, plate, road, rock, shelves, sidewalk, sky, "
    "snow, bedclothes, track, tree, truck, wall, water, window, wood"
)


# MESS, the multi-domain evaluation (arXiv 2306.15521): domain -> name, dataset, split. PAXRay-4 is the mean of four.
MESS = {
    "General": (
        ("BDD100K", "bdd100k", "val"),
        ("Dark Zurich", "dark_zurich", "val"),
        ("MHP v1", "mhp_v1", "test"),
        ("FoodSeg103", "foodseg103", "test"),
        ("ATLANTIS", "atlantis", "test"),
        ("DRAM", "dram", "test"),
    ),
    "Earth Monitoring": (
        ("iSAID", "isaid", "val"),
        ("ISPRS Potsdam", "isprs_potsdam", "test"),
        ("WorldFloods", "worldfloods", "test"),
        ("FloodNet", "floodnet", "test"),
        ("UAVid", "uavid", "val"),
    ),
    "Medical Sciences": (
        ("Kvasir-Instrument", "kvasir_instrument", "test"),
        ("CHASE DB1", "chase_db1", "test"),
        ("CryoNuSeg", "cryonuseg", "test"),
        ("PAXRay-Lungs", "paxray_lungs", "test"),
        ("PAXRay-Bones", "paxray_bones", "test"),
        ("PAXRay-Mediastinum", "paxray_mediastinum", "test"),
        ("PAXRay-Diaphragm", "paxray_diaphragm", "test"),
    ),
    "Engineering": (
        ("Corrosion CS", "corrosion_cs", "test"),
        ("DeepCrack", "deepcrack", "test"),
        ("PST900", "pst900", "test"),
        ("ZeroWaste-f", "zerowaste_f", "test"),
    ),
    "Agriculture and Biology": (
        ("SUIM", "suim", "test"),
        ("CUB-200", "cub_200", "test"),
        ("CWFID", "cwfid", "test"),
    ),
}


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
        domain: of the MESS benchmark; "" for all others.
        part_of: a dataset of MESS that counts as the mean of several benchmarks; "" for a whole one.
    """

    name: str
    dataset: str
    score: str = "miou_present_or_predicted"
    background: str = "none"
    background_labels: tuple[str, ...] = (BACKGROUND,)
    split: str = "val"
    domain: str = ""
    part_of: str = ""

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
        Benchmark("COCO-Stuff-27", "coco_stuff27"),
        *(
            Benchmark(name, dataset, split=split, domain=domain, part_of="PAXRay-4" if "PAXRay" in name else "")
            for domain, several in MESS.items()
            for name, dataset, split in several
        ),
    )
}
GROUPS = {
    "all": [name for name, benchmark in BENCHMARKS.items() if not benchmark.domain],
    "mess": [name for name, benchmark in BENCHMARKS.items() if benchmark.domain],
}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark of the table, or a dataset (a name or a YAML file) all of whose labels are classes.

    ``BENCHMARK=FILE``: the benchmark on the dataset of this YAML file, such as one with converted masks.
    """
    known, _, file = name.partition("=")
    for benchmark in BENCHMARKS.values():
        if benchmark.name.lower() == known.strip().lower():
            return replace(benchmark, dataset=file.strip()) if file else benchmark
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
        """The SHA-256 of the label list, written as one line per class with its labels separated by " | "."""
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
