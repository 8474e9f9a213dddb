"""A table, as YAML, that settles how the labels of several datasets go together: what is renamed, dropped, united."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from data import get_available_datasets
from data.description_parts import UNLABELLED
from data.yaml_file import YamlFile
from lseg_utils.errors import did_you_mean
from lseg_utils.label_sets import LabelSet, plain_name

KEYS = ("rename", "drop", "unions")


class LabelTable:
    """What a file changes about the label sets of datasets, by their names.

    For each dataset: ``rename``, a map from labels to names; ``drop``, labels whose pixels become unlabelled;
    ``unions``, a map from labels to the names that they stand for. Unions are applied last, thus to new names. Labels
    of a dataset that have the same name become one label, with or without a table.

    path: the file; None: a table without entries. Raises ``InputError`` with everything that is wrong in it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.file = None if path is None else YamlFile(path)
        self.entries: dict[str, dict[str, Any]] = {}
        if self.file:
            for name, entry in self.file.mapping((), self.file.content).items():
                self.entries[name] = self.file.mapping((name,), entry, KEYS)
            self.file.raise_problems()

    def check_names(self, used: Collection[str]) -> None:
        """``InputError`` for an entry whose dataset is neither among those that are used nor a known one."""
        known = {*used, *get_available_datasets()}
        if self.file:
            for name in self.entries.keys() - known:
                self.file.fail((name,), f"there is no dataset {name!r} here{did_you_mean(name, sorted(known))}")
            self.file.raise_problems()

    def settle(self, name: str, labels: Sequence[str]) -> tuple[LabelSet, tuple[int, ...]]:
        """The label set of a dataset, and for each of its ``labels`` the number in that set, -1 where it is dropped."""
        new_names = dict.fromkeys(labels, "") | {label: label for label in labels}
        unions: dict[str, tuple[str, ...]] = {}
        if self.file:
            place = (name, "rename")
            for label, new in self.file.mapping(place, self._entry(name, "rename", {})).items():
                if self._exists((*place, label), label, labels):
                    new_names[label] = self.file.text((*place, label), new, label)
            for i, label in enumerate(self.file.sequence(self._entry(name, "drop"))):
                if self._exists((name, "drop", i), label, labels):
                    del new_names[label]
            place = (name, "unions")
            for label, members in self.file.mapping(place, self._entry(name, "unions", {})).items():
                if self._exists((*place, label), label, list(new_names.values())):
                    texts = [self.file.text((*place, label, i), one) for i, one in enumerate(members)]
                    unions[label] = tuple(text for text in texts if text)
            if not new_names:
                self.file.fail((name, "drop"), f"every label of {name} is dropped; keep some")
            self.file.raise_problems()
        # Labels with the same name become one, the place of the first.
        places: dict[str, int] = {}
        kept = tuple(dict.fromkeys(new_names.values()))
        for label in kept:
            places.setdefault(plain_name(label), len(places))
        first = {place: label for label in reversed(kept) for place in [places[plain_name(label)]]}
        numbers = tuple(places[plain_name(new_names[label])] if label in new_names else UNLABELLED for label in labels)
        return LabelSet(name, tuple(first[place] for place in range(len(places))), unions), numbers

    def _entry(self, name: str, key: str, default: Any = None) -> Any:
        return self.entries.get(name, {}).get(key, default)

    def _exists(self, place: tuple[str | int, ...], label: Any, labels: Collection[str]) -> bool:
        """Whether it is one of these labels; if not, that is noted."""
        assert self.file
        if label in labels:
            return True
        self.file.fail(place, f"{place[0]} has no label {label!r}{did_you_mean(label, labels)}")
        return False
