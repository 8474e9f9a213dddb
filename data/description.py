"""A dataset is a YAML file: where its files are, what the labels are called, what the numbers in a mask mean.

Reading one opens no picture and imports neither torch nor OpenCV. docs/datasets.md lists every key.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from data.description_parts import SIDE_MULTIPLE, Description, Files, Masks, Sizes, TestProtocol
from data.label_values import label_list, labels_and_masks
from data.yaml_file import Place, YamlFile
from lseg_utils.errors import InputError, did_you_mean

__all__ = [
    "DESCRIPTIONS",
    "SIDE_MULTIPLE",
    "Description",
    "Files",
    "Masks",
    "Sizes",
    "TestProtocol",
    "is_description",
    "known_datasets",
    "read_description",
]

DESCRIPTIONS = Path(__file__).resolve().parent / "descriptions"
SUFFIXES = (".yaml", ".yml")


def known_datasets() -> list[str]:
    """The names of the descriptions that come with this repository."""
    return sorted(_known_files())


@cache
def _known_files() -> dict[str, Path]:
    return {path.stem: path for path in DESCRIPTIONS.rglob("*.yaml")}


def is_description(name: str) -> bool:
    """Whether ``name`` is one of :func:`known_datasets`, or meant as the path of a description."""
    return name.endswith(SUFFIXES) or os.sep in name or name in _known_files()


def read_description(name: str) -> Description:
    """The description ``name``: one of :func:`known_datasets`, or a path. ``InputError`` with all that is wrong."""
    if name in _known_files():
        return _parse(_known_files()[name], known=True)
    path = Path(os.path.abspath(Path(name).expanduser()))
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the YAML file that describes the dataset (docs/datasets.md)")
    if not path.is_file():
        there = [other.name for suffix in SUFFIXES for other in sorted(path.parent.glob(f"*{suffix}"))]
        raise InputError(f"there is no file {path}{did_you_mean(path.name, there)}; give the YAML file of a dataset")
    return _parse(path, known=path in _known_files().values())


KEYS = {
    "name": "what the dataset is called in results",
    "about": "a sentence about it",
    "source": "where the facts in the file are from",
    "licence": "what the dataset may be used for",
    "root": "the folder of the files; --data_path takes precedence",
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
FILE_KEYS = {"images", "masks", "list", "segments"}
SPLIT_KEYS = ("images", "masks", "list", "segments", "count")
NAME_KEYS = ("image_prefix", "image_suffix", "mask_prefix", "mask_suffix")


def _parse(path: Path, known: bool) -> Description:
    file = YamlFile(path)
    content = file.mapping((), file.content, tuple(KEYS), required=("name", "splits"))
    splits, counts = _splits(file, content.get("splits"))
    names = {
        key: file.text(("names", key), value) if value else ""
        for key, value in file.mapping(("names",), content.get("names", {}), NAME_KEYS).items()
    }
    labels, masks = labels_and_masks(file, content.get("labels"), content.get("mask"))
    lists = {}
    for key, value in file.mapping(("lists",), content.get("lists", {})).items():
        lists[key] = label_list(file, ("lists", key), value)
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
        licence=file.text(("licence",), content.get("licence")),
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
            given = [key for key in FILE_KEYS if key in entries and not isinstance(entries[key], list)]
            texts = {key: file.file_name((*where, key), entries[key]) for key in given}
            names = texts.get("list")
            for key in entries.keys() & FILE_KEYS - texts.keys():
                if key != "list":
                    file.fail((*where, key), f"{key} is a list; write one folder or glob, or make the split a list")
                names = tuple(file.text((*where, key, i), name) for i, name in enumerate(entries[key]))
            found.append(Files(texts.get("images", ""), texts.get("masks"), names, texts.get("segments")))
            total += file.number((*where, "count"), entries.get("count"), int, 0)
        splits[split] = tuple(found)
        counts |= {split: total} if total else {}
    if value == {}:
        file.fail(("splits",), "splits is empty; add train and val")
    return splits, counts


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
