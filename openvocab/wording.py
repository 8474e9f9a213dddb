"""How labels become texts: sentence templates, and several names for one label. Does not import torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lseg_utils.errors import InputError

SYNONYMS = ("first", "mean", "max", "whole")

# Of ViLD, as the open-vocabulary segmentation literature uses them.
VILD_TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)


@dataclass(frozen=True)
class Wording:
    """What is read to the text tower.

    Attributes:
        templates: "none" (the label alone), "imagenet" (CLIP's 80), "vild" (14), or a file with one template per line.
            A label's vector is the mean of its sentences' unit vectors, made a unit vector.
        synonyms: what happens to the names in a label such as "car, automobile". "first": only the first counts.
            "mean": the label's vector is the mean of theirs. "max": a pixel gets the label if it gets any of its names.
            "whole": the label is one text, commas included.
    """

    templates: str = "none"
    synonyms: str = "first"

    def __post_init__(self) -> None:
        if self.synonyms not in SYNONYMS:
            raise InputError(f"--synonyms is {self.synonyms!r}; choose one of {', '.join(SYNONYMS)}")
        _ = self.sentences  # reads and checks the file

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """The templates, each with one {}."""
        if self.templates == "none":
            return ("{}",)
        if self.templates == "vild":
            return VILD_TEMPLATES
        if self.templates == "imagenet":
            from modules.inference.clip_templates import IMAGENET_TEMPLATES

            return tuple(IMAGENET_TEMPLATES)
        path = Path(self.templates).expanduser()
        if not path.is_file():
            raise InputError(f"--templates is {self.templates!r}; give none, imagenet, vild, or a file of templates")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        wrong = [line for line in lines if line.count("{}") != 1]
        if wrong or not lines:
            found = f"; {wrong[0]!r} does not have it" if wrong else "; the file is empty"
            raise InputError(f"{path} needs one template per line, each with exactly one {{}} for the label{found}")
        return tuple(lines)

    def names_of(self, label: str) -> list[str]:
        """The names in a label that are used, without templates."""
        names = [label] if self.synonyms == "whole" else [name.strip() for name in label.split(",") if name.strip()]
        return names[:1] if self.synonyms == "first" else names

    def describe(self) -> dict[str, str]:
        """For tables and JSON."""
        count = len(self.sentences)
        sha256 = hashlib.sha256("\n".join(self.sentences).encode()).hexdigest()[:12]
        named = self.templates if self.templates == "none" else f"{self.templates} ({count}, sha256 {sha256})"
        return {"templates": named, "synonyms": self.synonyms}


def word_similarity(labels: Sequence[str]) -> np.ndarray:
    """How much two labels have in common, 0..1, float64 (N, N): by Dice, the words that their most similar names share.

    "pool table" and "table" are alike by 2/3. It needs no model and no dictionary, so that no model is judged by its
    own text tower; figures with it are not comparable with those of a WordNet similarity.
    """
    names = [[{*name.lower().split()} for name in label.split(",") if name.strip()] for label in labels]
    number = {
        word: i for i, word in enumerate(sorted({word for several in names for name in several for word in name}))
    }
    flat = [name for several in names for name in several]
    contains = np.zeros((len(flat), len(number)), np.float32)
    for row, name in enumerate(flat):
        contains[row, [number[word] for word in name]] = 1
    shared, length = (contains @ contains.T).astype(np.float64), contains.sum(axis=1)
    alike = 2 * shared / (length[:, None] + length)  # of names
    starts = np.cumsum([0, *map(len, names[:-1])])
    alike = np.maximum.reduceat(np.maximum.reduceat(alike, starts, axis=0), starts, axis=1)
    np.fill_diagonal(alike, 1)
    return alike
