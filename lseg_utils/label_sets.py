"""The labels of one dataset among several that are trained together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lseg_utils.errors import InputError


def plain_name(label: str) -> str:
    """A label as text towers read it: without regard to case and to the number of spaces."""
    return " ".join(label.lower().split())


@dataclass(frozen=True)
class LabelSet:
    """What the masks of a dataset distinguish.

    Attributes:
        name: of the dataset.
        labels: N names, in the order of the numbers in its masks.
        unions: label -> texts. Such a label stands for all of these together: its probability is the sum of theirs.

    Raises:
        InputError: a text that would belong to two labels.
    """

    name: str
    labels: tuple[str, ...]
    unions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        owners: dict[str, str] = {}
        for label in self.labels:
            for text in self.texts_of(label):
                if (other := owners.setdefault(plain_name(text), label)) != label:
                    raise InputError(
                        f"{self.name}: {text!r} belongs to the labels {other!r} and {label!r}; each pixel has one "
                        "label, so take it out of one of them"
                    )

    def texts_of(self, label: str) -> tuple[str, ...]:
        """The texts that pixels of a label are compared with: its own name, or those of a union."""
        return self.unions.get(label, (label,))


def all_texts(sets: Iterable[LabelSet]) -> list[str]:
    """Every text of these sets once, in the order of first occurrence; the first spelling counts."""
    texts = (text for one in sets for label in one.labels for text in one.texts_of(label))
    return list({plain_name(text): text for text in reversed(list(texts))}.values())[::-1]
