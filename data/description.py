"""A dataset is a YAML file: where its files are, what the labels are called, what the numbers in a mask mean.

Reading one opens no picture and imports neither torch nor OpenCV. docs/datasets.md lists every key.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from data.labels import LABEL_FILES, read_label_file, resolve_labels
from data.yaml_file import Place, YamlFile
from lseg_utils.errors import InputError, did_you_mean
from lseg_utils.label_list import duplicates

DESCRIPTIONS = Path(__file__).resolve().parent / "descriptions"
SIDE_MULTIPLE = 32  # what networks with a feature map at 1/32 take
UNLABELLED = -1
CODINGS = ("values", "colours", "ade_full", "panoptic", "polygons", "mat")
SUFFIXES = (".yaml", ".yml")
MAX_VALUE = {"values": 2**31 - 1, "colours": 2**24 - 1}
_COLOUR = re.compile(r"#([0-9a-fA-F]{6})|(\d{1,3})[ ,]+(\d{1,3})[ ,]+(\d{1,3})")


@dataclass(frozen=True)
class Files:
    """A part of a split, as the description states it: folders or globs below the root, perhaps a list of names.

    masks: None where the split has images only. names: the list file. segments: the JSON of a panoptic mask folder.
    """

    images: str
    masks: str | None = None
    names: str | None = None
    segments: str | None = None


@dataclass(frozen=True)
class Sizes:
    """Pixels of the transforms. ``scales``: long side in training, in multiples of ``base``.

    max_short_side: a picture with a longer short side is reduced to it, with its mask, except for training crops.
    """

    base: int = 520
    crop: int = 480
    scales: tuple[float, float] = (0.5, 2.0)
    max_short_side: int | None = None


@dataclass(frozen=True)
class TestProtocol:
    """How a published figure was measured: sizes in pixels, scales of the long side, mirror images."""

    __test__ = False  # its name must not make pytest collect it

    base: int
    crop: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


@dataclass(frozen=True)
class Masks:
    """What the numbers in a mask mean.

    coding: how a file becomes numbers, one of ``CODINGS``. table: number -> label index, or ``UNLABELLED``; the texts
    of ``polygons`` are numbered by ``texts``. others: what any other number is; None: an error. variable: of ``mat``.
    """

    coding: str
    table: dict[int, int]
    others: int | None = None
    texts: dict[str, int] = field(default_factory=dict)
    variable: str = "LabelMap"


@dataclass(frozen=True)
class Description:
    """A dataset. ``labels``: the names of its label indices; the other fields are the keys of the file."""

    path: Path
    name: str
    labels: tuple[str, ...]
    masks: Masks
    root: Path | None = None  # None: the folder of all datasets
    about: str = ""
    source: str = ""
    splits: dict[str, tuple[Files, ...]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    label_lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unseen: tuple[int, ...] = ()
    sizes: Sizes = Sizes()
    protocols: dict[str, TestProtocol] = field(default_factory=dict)
    fetch: str = ""
    archives: tuple[str, ...] = ()
    known: bool = False

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """The label indices that training may use."""
        return tuple(index for index in range(len(self.labels)) if index not in self.unseen)

    def read_labels(self, label_src: str | None, testing: bool) -> tuple[list[str], tuple[int, ...]]:
        """The labels that ``label_src`` stands for, and the label index of each.

        ``default`` or ``all``: those of the description; ``seen``: without the unseen ones; one of ``lists``; or a
        file with a name for each label. None: ``seen`` for training, ``default`` for a test. Raises ``InputError``.
        """
        every = tuple(range(len(self.labels)))
        label_src = label_src or ("default" if testing or not self.unseen else "seen")
        if label_src in ("default", "all"):
            return list(self.labels), every
        if label_src == "seen" and self.unseen:
            return [self.labels[index] for index in self.seen], self.seen
        if label_src in self.label_lists:
            return list(self.label_lists[label_src]), every
        lists = ["default", *(["seen"] if self.unseen else []), *self.label_lists]
        return resolve_labels(self.name, label_src, lists, len(self.labels)), every


def known_datasets() -> list[str]:
    """The names of the descriptions that come with this repository."""
    return sorted(path.stem for path in DESCRIPTIONS.glob("*.yaml"))


def is_description(name: str) -> bool:
    """Whether ``name`` is one of :func:`known_datasets`, or meant as the path of a description."""
    return name.endswith(SUFFIXES) or os.sep in name or (DESCRIPTIONS / f"{name}.yaml").is_file()


def read_description(name: str) -> Description:
    """The description ``name``: one of :func:`known_datasets`, or a path. ``InputError`` with all that is wrong."""
    known = DESCRIPTIONS / f"{name}.yaml"
    if not name.endswith(SUFFIXES) and os.sep not in name:
        return _parse(known, known=True)
    path = Path(os.path.abspath(Path(name).expanduser()))
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the YAML file that describes the dataset (docs/datasets.md)")
    if not path.is_file():
        there = [other.name for suffix in SUFFIXES for other in sorted(path.parent.glob(f"*{suffix}"))]
        raise InputError(f"there is no file {path}{did_you_mean(path.name, there)}; give the YAML file of a dataset")
    return _parse(path, known=path.parent == DESCRIPTIONS)


KEYS = {
    "name": "what the dataset is called in results",
    "about": "a sentence about it",
    "source": "where the facts in the file are from",
    "root": "the folder of the files; --data_path wins",
    "splits": "the images and masks of train, val and others",
    "names": "how a mask's name follows from its image's",
    "labels": "the names of the labels",
    "lists": "other names for the same labels, for --label_src",
    "unseen": "labels that training must not use",
    "mask": "what the numbers in a mask mean",
    "sizes": "pixels of training crops and tests",
    "protocols": "how published figures were measured",
    "fetch": "the command that downloads or makes the dataset",
    "archives": "downloads that become the folders once unpacked",
}
SPLIT_KEYS = ("images", "masks", "list", "segments", "count")
NAME_KEYS = ("image_prefix", "image_suffix", "mask_prefix", "mask_suffix")
MASK_KEYS = ("first", "ignore", "values", "colours", "coding", "variable")


def _parse(path: Path, known: bool) -> Description:
    file = YamlFile(path)
    content = file.mapping((), file.content, tuple(KEYS), required=("name", "splits"))
    splits, counts = _splits(file, content.get("splits"))
    names = {
        key: file.text(("names", key), value) if value else ""
        for key, value in file.mapping(("names",), content.get("names", {}), NAME_KEYS).items()
    }
    labels, masks = _labels_and_masks(file, content.get("labels"), content.get("mask"))
    lists = {}
    for key, value in file.mapping(("lists",), content.get("lists", {})).items():
        lists[key] = _label_list(file, ("lists", key), value)
        if key in ("default", "all", "seen"):
            file.fail(("lists", key), f"the list {key!r} exists for every dataset; choose another name")
        if len(lists[key]) != len(labels):
            file.fail(("lists", key), f"the list {key!r} has {len(lists[key])} names for {len(labels)} labels")
    unseen = []
    for i, label in enumerate(file.sequence(content.get("unseen"))):
        if label in labels:
            unseen.append(labels.index(label))
        else:
            file.fail(("unseen", i), f"unseen: the label {label!r} does not exist{did_you_mean(label, labels)}")
    if labels and len(unseen) == len(labels):
        file.fail(("unseen",), "every label is unseen; leave some to train on")
    archives = tuple(
        file.file_name(("archives", i), name) for i, name in enumerate(file.sequence(content.get("archives")))
    )
    root = content.get("root")
    description = Description(
        path,
        file.text(("name",), content.get("name"), path.stem),
        labels,
        masks,
        root=None if known and root is None else path.parent / os.path.expanduser(file.file_name(("root",), root, ".")),
        about=file.text(("about",), content.get("about")),
        source=file.text(("source",), content.get("source")),
        splits=splits,
        counts=counts,
        names=names,
        label_lists=lists,
        unseen=tuple(unseen),
        sizes=_sizes(file, content.get("sizes", {})),
        protocols=_protocols(file, content.get("protocols", {})),
        fetch=file.text(("fetch",), content.get("fetch")),
        archives=archives,
        known=known,
    )
    if re.search(r"[\\/\s]", description.name):
        file.fail(("name",), f"the name {description.name!r} becomes part of file names; leave out spaces and slashes")
    if masks.coding == "panoptic":
        for split, parts in splits.items():
            if any(part.masks and not part.segments for part in parts):
                file.fail(("splits", split), f"split {split} has panoptic masks; add segments: the JSON file for them")
    file.raise_problems()
    return description


def _splits(file: YamlFile, value: Any) -> tuple[dict[str, tuple[Files, ...]], dict[str, int]]:
    splits, counts = {}, {}
    for split, parts in file.mapping(("splits",), value).items() if value is not None else ():
        place: Place = ("splits", split)
        several = parts if isinstance(parts, list) else [parts]
        if not several:
            file.fail(place, f"split {split} is empty; write images: FOLDER, masks: FOLDER")
        total, found = 0, []
        for i, part in enumerate(several):
            where = (*place, i) if isinstance(parts, list) else place
            entries = file.mapping(where, part, SPLIT_KEYS, required=("images",))
            texts = {key: file.file_name((*where, key), entries[key]) for key in SPLIT_KEYS[:4] if key in entries}
            found.append(Files(texts.get("images", ""), texts.get("masks"), texts.get("list"), texts.get("segments")))
            total += file.number((*where, "count"), entries.get("count"), int, 0)
        splits[split] = tuple(found)
        counts |= {split: total} if total else {}
    if value == {}:
        file.fail(("splits",), "splits is empty; add train and val")
    return splits, counts


def _label_list(file: YamlFile, place: Place, value: Any) -> tuple[str, ...]:
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
    labels = []
    for i, label in enumerate(file.sequence(value)):
        labels.append(file.text((*place, i), label, f"label {i}"))
    for label, positions in duplicates(labels).items():
        file.fail((*place, positions[1]), f"the label {label!r} was given before; each needs a name of its own")
    if not labels:
        file.fail(place, f"{place[-1]} is empty; write the names of the labels")
    return tuple(labels)


def _labels_and_masks(file: YamlFile, labels: Any, mask: Any) -> tuple[tuple[str, ...], Masks]:
    """Bring the two keys together: each value of a mask gets the index of its label."""
    entries = file.mapping(("mask",), {} if mask is None else mask, MASK_KEYS)
    coding = file.choice(("mask", "coding"), entries.get("coding"), CODINGS)
    if "colours" in entries:
        if coding not in ("values", "colours") or "values" in entries:
            file.fail(("mask", "colours"), "colours cannot be combined with values or another coding; keep one of them")
        coding = "colours"
    if "variable" in entries and coding != "mat":
        file.fail(("mask", "variable"), "variable is the name of an array in a .mat file; use it with coding: mat")

    # Which value belongs to which name, in the order of the file: from the map of labels, or that of values.
    given: list[tuple[Place, Any, str]] = []
    names: tuple[str, ...] | None = None
    key = "colours" if coding == "colours" and "colours" in entries else "values"
    by_value = file.mapping(("mask", key), entries.get(key, {}))
    is_map = isinstance(labels, dict) and set(labels) != {"file"}
    if is_map:
        given = [
            (("labels", name), value, name) for name, several in labels.items() for value in file.sequence(several)
        ]
        names = tuple(labels)
        for name in [name for name, several in labels.items() if not file.sequence(several)]:
            file.fail(("labels", name), f"the label {name!r} has no value; write the mask values that it covers")
        if by_value:
            file.fail(("mask", key), f"labels gives the values already; remove {key} from mask, or make labels a list")
    elif labels is not None:
        names = _label_list(file, ("labels",), labels)
    if by_value:
        given = [(("mask", key, value), value, name) for value, name in by_value.items()]
        names = names or tuple(dict.fromkeys(str(name) for name in by_value.values()))
    if names is None:
        file.fail((), "the key 'labels' is missing; add the names of the labels")
        names = ()
    if given and "first" in entries:
        file.fail(("mask", "first"), "first is for labels that are numbered in order; remove it, or the values")

    table: dict[int, int] = {}
    texts: dict[str, int] = {}
    owner: dict[int, str] = {}

    def add(place: Place, value: Any, index: int, name: str) -> None:
        number = _value(file, place, value, coding, texts)
        if number is None:
            return
        if number in owner:
            file.fail(place, f"the value {value} is given to {owner[number]!r} and to {name!r}; keep one of them")
        owner[number], table[number] = name, index

    if given:
        for place, value, name in given:
            if not isinstance(name, str):
                file.fail(place, f"{name!r} is not the name of a label; write VALUE: NAME, such as 7: road")
            elif name in names:
                add(place, value, names.index(name), name)
            else:
                file.fail(place, f"{name!r} is not one of the {len(names)} labels{did_you_mean(name, names)}")
        used = {name for _, _, name in given if isinstance(name, str)}
        for i in [i for i, name in enumerate(names) if name not in used and not is_map]:
            file.fail(("labels", i), f"the label {names[i]!r} has no value in mask; add its value, or remove the label")
    elif coding in ("colours", "polygons"):
        file.fail(("mask",), f"masks of {coding} need a value for each label; add them below mask")
    else:
        first = file.number(("mask", "first"), entries.get("first"), int, 0, least=0)
        for index, name in enumerate(names):
            owner[first + index], table[first + index] = name, index
    others = None
    standard = [] if given or 255 in table or coding not in ("values", "mat") else ["255"]
    ignore = entries.get("ignore", standard)
    if ignore == "rest":
        others, ignore = UNLABELLED, []
    for i, value in enumerate(file.sequence(ignore)):
        add(("mask", "ignore", i), value, UNLABELLED, "ignore")
    variable = file.text(("mask", "variable"), entries.get("variable"), "LabelMap")
    return names, Masks(coding, table, others, texts, variable)


def _value(file: YamlFile, place: Place, value: Any, coding: str, texts: dict[str, int]) -> int | None:
    """The number of a mask value as typed; None, and a fault, if it is none."""
    if coding == "polygons":
        return texts.setdefault(str(value), len(texts)) if file.text(place, value) else None
    if coding == "colours":
        found = _COLOUR.fullmatch(value.strip()) if isinstance(value, str) else None
        if found and found[1]:
            return int(found[1], 16)
        parts = [int(part) for part in found.groups()[1:]] if found else [256]
        if max(parts) < 256:
            return parts[0] << 16 | parts[1] << 8 | parts[2]
        file.fail(place, f"{value!r} is not a colour; write its red, green and blue, such as 128 64 0, or '#804000'")
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) <= MAX_VALUE["values"]:
        return int(value)
    file.fail(place, f"{value!r} is not a mask value; write a whole number of at least 0")
    return None


def _sizes(file: YamlFile, value: Any) -> Sizes:
    entries = file.mapping(("sizes",), value, ("base", "crop", "scales", "max_short_side"))
    base = file.number(("sizes", "base"), entries.get("base"), int, Sizes.base)
    crop = _crop(file, ("sizes", "crop"), entries.get("crop"), Sizes.crop)
    scales = _scales(file, ("sizes", "scales"), entries.get("scales"), Sizes.scales)
    if len(scales) != 2 or scales[0] > scales[1]:
        file.fail(
            ("sizes", "scales"), "scales needs the smallest and the largest scale of training, such as [0.5, 2.0]"
        )
        scales = Sizes.scales
    limit = file.number(("sizes", "max_short_side"), entries.get("max_short_side"), int)
    return Sizes(base, crop, (scales[0], scales[1]), limit)


def _protocols(file: YamlFile, value: Any) -> dict[str, TestProtocol]:
    protocols = {}
    for name, entry in file.mapping(("protocols",), value).items():
        place = ("protocols", name)
        keys = ("base", "crop", "scales", "flip")
        entries = file.mapping(place, entry, keys, required=("base", "crop"))
        protocols[name] = TestProtocol(
            file.number((*place, "base"), entries.get("base"), int, Sizes.base),
            _crop(file, (*place, "crop"), entries.get("crop"), Sizes.crop),
            _scales(file, (*place, "scales"), entries.get("scales"), (1.0,)),
            file.choice((*place, "flip"), entries.get("flip"), ("false", "true")) == "true",
        )
    return protocols


def _crop(file: YamlFile, place: Place, value: Any, default: int) -> int:
    crop = file.number(place, value, int, default)
    if crop % SIDE_MULTIPLE:
        fitting = -(-crop // SIDE_MULTIPLE) * SIDE_MULTIPLE
        file.fail(place, f"crop is {crop}, but must be a multiple of {SIDE_MULTIPLE}, such as {fitting}")
    return crop


def _scales(file: YamlFile, place: Place, value: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    if value is None:
        return default
    numbers = [file.number((*place, i), each, float, 1.0, least=1e-3) for i, each in enumerate(file.sequence(value))]
    return tuple(numbers) or default
