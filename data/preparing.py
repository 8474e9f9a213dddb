"""Masks decoded once: whatever they are coded as, they become PNG files of label numbers, with a YAML file about them.

As in CAT-Seg's conversions, a pixel has the index of its label, and 255 (for over 255 labels 65535) is unlabelled.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from data.described import files_of, files_of_part, problems, segments_of
from data.description import read_description
from data.description_parts import Description
from data.masks import MaskReader, missing_package
from data.pairs import IMAGE_SUFFIXES, files_by_key, picture_size
from lseg_utils.errors import InputError, raise_all
from lseg_utils.files import write_aside
from lseg_utils.ledger import Ledger
from lseg_utils.progress import progress_bar

THREADS = 8  # decoding and writing PNG files releases Python's lock
FAULTS_SHOWN = 10


class Job(NamedTuple):
    """A mask to convert, with its image and the path of the result below the folder."""

    split: str
    image: Path
    mask: Path
    target: str


def prepare(
    description: Description, root: Path, splits: list[str], folder: Path
) -> tuple[Path, dict[str, int], np.ndarray]:
    """Convert the masks of ``splits``, or what an earlier run left of them.

    Returns the path of the new description, the number of masks of each split, and the pixels of each label, int64
    (number of splits, labels + 1), the last column unlabelled.
    Raises ``InputError`` for files that are missing, masks that cannot be read or have another size than their image,
    and if ``folder`` contains masks that were made by another description.
    """
    found = [missing_package(description.masks, description.name)]
    missing = [f"split {split}: {text}" for split in splits for text in files_of(description, root, split)[1]]
    if missing and len(splits) > 1:
        missing.append("Get what is missing, or convert one split alone with --split")
    raise_all(filter(None, [*found, *missing]))
    meaning = hashlib.sha256(repr((description.masks, description.labels)).encode()).hexdigest()
    try:
        ledger = Ledger(folder / "converted.jsonl", {"dataset": description.name, "masks_sha256": meaning})
    except InputError as error:
        raise InputError(f"{error}\nDelete {folder}, or give another --out") from None
    jobs, parts = [], {}
    for split in splits:
        parts[split] = list(_parts_of(description, root, split, folder))
        jobs += [job for _, several in parts[split] for job in several]
    done = {record["target"] for record in ledger.records}
    todo = [job for job in jobs if job.target not in done or not (folder / job.target).is_file()]
    reader, faults = MaskReader(description.masks, tuple(range(len(description.labels))), description.name), []

    def convert(job: Job) -> dict[str, Any] | str:
        """What the ledger keeps of a mask, or what is wrong with it."""
        try:
            return _convert(reader, job, segments_of(description, root, job.split, job.mask), folder)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        converted = pool.map(convert, todo)
        for record in progress_bar(converted, total=len(todo), desc=f"converting {description.name}", unit="mask"):
            if isinstance(record, str):
                faults.append(record)
            else:
                ledger.append(record)
    if faults:
        more = [f"... {len(faults)} masks in total could not be converted"] if len(faults) > FAULTS_SHOWN else []
        raise InputError("\n".join(faults[:FAULTS_SHOWN] + more))
    path = folder / f"{description.name}.yaml"
    with write_aside(path) as aside:
        content = _content(description, {split: [entry for entry, _ in parts[split]] for split in splits}, folder)
        content["root"] = os.path.relpath(root, folder)
        aside.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")
    raise_all(problems(read_description(str(path)), root, splits))
    pixels = np.zeros((len(splits), len(description.labels) + 1), np.int64)
    wanted = {job.target: splits.index(job.split) for job in jobs}
    for record in {record["target"]: record for record in ledger.records}.values():
        for label, count in record["pixels"] if record["target"] in wanted else ():
            pixels[wanted[record["target"]], label] += count
    return path, {split: sum(job.split == split for job in jobs) for split in splits}, pixels


def _parts_of(
    description: Description, root: Path, split: str, folder: Path
) -> Iterator[tuple[dict[str, Any], list[Job]]]:
    """For each part of a split that has masks: its entry in the new file, and its masks."""
    names = description.names
    affixes = names.get("image_prefix", ""), names.get("image_suffix", "")
    for number, part in enumerate(description.splits[split]):
        if part.masks is None:
            continue
        pairs, _ = files_of_part(description, root, part)
        keys = {path: key for key, path in files_by_key(root / part.images, IMAGE_SUFFIXES, *affixes)[0].items()}
        masks = f"{split}_{number}" if len(description.splits[split]) > 1 else split
        jobs = [Job(split, image, mask, f"{masks}/{keys[image]}.png") for image, mask in pairs if mask]
        entry = {"images": part.images, "masks": os.path.relpath(folder / masks, root)}
        if part.names:
            entry["list"] = os.path.relpath(folder / f"{masks}.txt", root)
            with write_aside(folder / f"{masks}.txt") as aside:
                aside.write_text("".join(f"{keys[job.image]}\n" for job in jobs), encoding="utf-8")
        if number == 0 and split in description.counts:
            entry["count"] = description.counts[split]
        yield entry, jobs


def _convert(reader: MaskReader, job: Job, segments: dict[int, int] | None, folder: Path) -> dict[str, Any]:
    """Write one mask; what the ledger keeps of it: [label, pixels] for each label, the last for unlabelled."""
    target = reader.target(job.mask, segments)  # (h, w): label + 1, 0 for unlabelled
    size, problem = picture_size(job.image)
    if problem or size != target.shape[::-1]:
        height, width = target.shape
        text = f"{job.mask} is {width}x{height}, but its image {job.image.name} is {'x'.join(map(str, size or ()))}"
        raise InputError(problem or text)
    labels = len(reader.indices)
    kind = np.uint8 if labels <= 255 else np.uint16
    with write_aside(folder / job.target) as aside:
        # 0 - 1 becomes the largest number of the kind.
        Image.fromarray(target.astype(kind) - kind(1)).save(aside)
    found, counts = np.unique(target, return_counts=True)
    pixels = [[int(label) - 1 if label else labels, int(count)] for label, count in zip(found, counts, strict=True)]
    return {"target": job.target, "pixels": pixels}


def _content(description: Description, splits: dict[str, list[dict[str, Any]]], folder: Path) -> dict[str, Any]:
    """The new description as the YAML file has it; its label lists become files in ``folder``."""

    def label_file(name: str, labels: Sequence[str]) -> dict[str, str]:
        """A file, because it may contain a label twice, as ADE20K's does; an inline list may not."""
        with write_aside(folder / name) as aside:
            aside.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        return {"file": name}

    sizes = asdict(description.sizes)
    sizes["scales"] = list(sizes["scales"])
    protocols = {name: asdict(protocol) for name, protocol in description.protocols.items()}
    content = {
        "name": description.name,
        "about": description.about,
        "source": f"python -m data prepare, from {description.path.name}: {description.source}".strip(": "),
        "licence": description.licence,
        "splits": {split: parts[0] if len(parts) == 1 else parts for split, parts in splits.items()},
        "names": {key: value for key, value in description.names.items() if key.startswith("image")},
        "labels": label_file("labels.txt", description.labels),
        "lists": {key: label_file(f"labels_{key}.txt", names) for key, names in description.label_lists.items()},
        "unseen": [description.labels[index] for index in description.unseen],
        "mask": {"first": 0, "ignore": [255 if len(description.labels) <= 255 else 65535]},
        "sizes": {key: value for key, value in sizes.items() if value is not None},
        "protocols": {name: {**entry, "scales": list(entry["scales"])} for name, entry in protocols.items()},
    }
    return {key: value for key, value in content.items() if value}
