"""The labels of a description and the mask values that stand for them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from data.description_parts import CODINGS, UNLABELLED, Masks
from data.labels import LABEL_FILES, read_label_file
from data.yaml_file import Place, YamlFile
from lseg_utils.errors import InputError, did_you_mean
from lseg_utils.label_list import duplicates

MASK_KEYS = ("first", "ignore", "values", "colours", "coding", "variable")
LARGEST = 2**31 - 1  # of a mask's numbers
_COLOUR = re.compile(r"#([0-9a-fA-F]{6})|(\d{1,3})[ ,]+(\d{1,3})[ ,]+(\d{1,3})")
Given = list[tuple[Place, Any, Any]]
"""Place, value and name of a label, for each value that the file gives to a label."""


def label_list(file: YamlFile, place: Place, value: Any) -> tuple[str, ...]:
    """The names in a list, or in the file of ``{file: NAME}``."""
    if isinstance(value, dict):
        entries = file.mapping(place, value, ("file",), required=("file",))
        name = Path(os.path.expanduser(file.file_name((*place, "file"), entries.get("file"), "labels.txt")))
        nearby = [folder / name for folder in (file.path.parent, LABEL_FILES)]
        try:
            return tuple(read_label_file(next((path for path in nearby if path.is_file()), nearby[0]))[0])
        except InputError as error:
            file.fail((*place, "file"), str(error))
            return ()
    labels = [file.text((*place, i), label, f"label {i}") for i, label in enumerate(file.sequence(value))]
    for label, positions in duplicates(labels).items():
        file.fail((*place, positions[1]), f"the label {label!r} was given before; each needs a name of its own")
    if not labels:
        file.fail(place, f"{place[-1]} is empty; write the names of the labels")
    return tuple(labels)


def labels_and_masks(file: YamlFile, labels: Any, mask: Any) -> tuple[tuple[str, ...], Masks]:
    """Bring the keys ``labels`` and ``mask`` together: each value of a mask gets the index of its label."""
    entries = file.mapping(("mask",), {} if mask is None else mask, MASK_KEYS)
    coding = file.choice(("mask", "coding"), entries.get("coding"), CODINGS)
    if "colours" in entries:
        if coding not in ("values", "colours") or "values" in entries:
            file.fail(("mask", "colours"), "colours cannot be combined with values or another coding; keep one of them")
        coding = "colours"
    if "variable" in entries and coding != "mat":
        file.fail(("mask", "variable"), "variable is the name of an array in a .mat file; use it with coding: mat")
    names, given = _names_and_values(file, labels, entries, "colours" if "colours" in entries else "values")
    if given and "first" in entries:
        file.fail(("mask", "first"), "first is for labels that are numbered in order; remove it, or the values")

    table = _Table(file, coding)
    if given:
        for place, value, name in given:
            if not isinstance(name, str):
                file.fail(place, f"{name!r} is not the name of a label; write VALUE: NAME, such as 7: road")
            elif name in names:
                table.add(place, value, names.index(name), name)
            else:
                file.fail(place, f"{name!r} is not one of the {len(names)} labels{did_you_mean(name, names)}")
    elif coding in ("colours", "polygons"):
        file.fail(("mask",), f"masks of {coding} need a value for each label; add them below mask")
    else:
        first = file.number(("mask", "first"), entries.get("first"), int, 0, least=0)
        for index, name in enumerate(names):
            table.add(("mask", "first"), str(first + index), index, name)
    others = None
    standard = [] if given or 255 in table.indices or coding not in ("values", "mat") else ["255"]
    ignore = entries.get("ignore", standard)
    if ignore == "rest":
        others, ignore = UNLABELLED, []
    for i, value in enumerate(file.sequence(ignore)):
        table.add(("mask", "ignore", i), value, UNLABELLED, "ignore")
    variable = file.text(("mask", "variable"), entries.get("variable"), "LabelMap")
    return names, Masks(coding, table.indices, others, table.texts, variable)


def _names_and_values(file: YamlFile, labels: Any, mask: dict[str, Any], key: str) -> tuple[tuple[str, ...], Given]:
    """The labels, and which value belongs to which, in the order of the file.

    The values are in ``labels`` if that is a map, or in ``mask`` below ``key``; in neither if they are numbered.
    """
    by_value = file.mapping(("mask", key), mask.get(key, {}))
    of_values: Given = [(("mask", key, value), value, name) for value, name in by_value.items()]
    if isinstance(labels, dict) and set(labels) != {"file"}:
        for name in [name for name, several in labels.items() if not file.sequence(several)]:
            file.fail(("labels", name), f"the label {name!r} has no value; write the mask values that it covers")
        if by_value:
            file.fail(("mask", key), f"labels gives the values already; remove {key} from mask, or make labels a list")
            return tuple(labels), of_values
        values: Given = [
            (("labels", name), value, name) for name, several in labels.items() for value in file.sequence(several)
        ]
        return tuple(labels), values
    if labels is None:
        names = tuple(dict.fromkeys(str(name) for name in by_value.values()))
        if not names:
            file.fail((), "the key 'labels' is missing; add the names of the labels")
        return names, of_values
    names = label_list(file, ("labels",), labels)
    used = {name for _, _, name in of_values if isinstance(name, str)}
    for i in [i for i, name in enumerate(names) if of_values and name not in used]:
        file.fail(("labels", i), f"the label {names[i]!r} has no value in mask; add its value, or remove the label")
    return names, of_values


class _Table:
    """Number in a mask -> label index. ``texts``: the numbers of texts, for masks of polygons."""

    def __init__(self, file: YamlFile, coding: str) -> None:
        self.file, self.coding = file, coding
        self.indices, self.texts, self._owners = dict[int, int](), dict[str, int](), dict[int, str]()

    def add(self, place: Place, value: Any, index: int, name: str) -> None:
        """Give a value as typed to the label ``name``; a fault if it is not a value, or if another label has it."""
        number = self._number(place, value)
        if number is None:
            return
        if number in self._owners:
            owner = self._owners[number]
            self.file.fail(place, f"the value {value} is given to {owner!r} and to {name!r}; keep one of them")
        self._owners[number], self.indices[number] = name, index

    def _number(self, place: Place, value: Any) -> int | None:
        if self.coding == "polygons":
            return self.texts.setdefault(str(value), len(self.texts)) if self.file.text(place, value) else None
        if self.coding == "colours":
            found = _COLOUR.fullmatch(value.strip()) if isinstance(value, str) else None
            if found and found[1]:
                return int(found[1], 16)
            parts = [int(part) for part in found.groups()[1:]] if found else [256]
            if max(parts) < 256:
                return parts[0] << 16 | parts[1] << 8 | parts[2]
            advice = "write its red, green and blue, such as 128 64 0, or '#804000'"
            self.file.fail(place, f"{value!r} is not a colour; {advice}")
            return None
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value) and int(value) <= LARGEST:
            return int(value)
        self.file.fail(place, f"{value!r} is not a mask value; write a whole number of at least 0")
        return None
