"""Images and masks on disk: finding the pairs of a split, and everything that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lseg_utils.picture_files import DECODING_ERRORS, open_picture
from lseg_utils.progress import progress_bar

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIXES = (".png",)
SHOWN = 5  # names shown of a longer list
HEADER_THREADS = 16  # opening a file waits for the disk, not for the processor


def standard_splits(folder: str) -> dict[str, tuple[str, str | None]]:
    """ADE20K's layout under ``folder``: split -> (folder of images, folder of masks), relative to the data root."""
    return {
        split: (f"{folder}/images/{part}", f"{folder}/annotations/{part}")
        for split, part in (("train", "training"), ("val", "validation"))
    }


def files_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files of ``folder`` with one of the suffixes, by name without suffix, sorted; hidden files do not count."""
    if not folder.is_dir():
        return {}
    found = (p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    return {path.stem: path for path in sorted(found)}


def find_pairs(image_folder: Path, mask_folder: Path | None) -> tuple[list[tuple[Path, Path | None]], list[str]]:
    """All (image, mask) paths sorted by name, and a sentence for each thing that is missing.

    ``mask_folder`` None: images only, the mask is None. Reads directories, opens no file.
    """
    images = files_by_stem(image_folder, IMAGE_SUFFIXES)
    if mask_folder is None:
        problems = _same_stem("images", image_folder, IMAGE_SUFFIXES, images)
        return [(path, None) for path in images.values()], problems + _nothing_in(image_folder, images, "images")
    masks = files_by_stem(mask_folder, MASK_SUFFIXES)
    problems = _nothing_in(image_folder, images, "images")
    if not masks and (image_folder.is_dir() or mask_folder.is_dir() or not problems):  # else that says it already
        problems += _nothing_in(mask_folder, masks, "masks")
    problems += _same_stem("images", image_folder, IMAGE_SUFFIXES, images)
    if not problems:
        problems += _only_in("image", images, "mask", masks, mask_folder)
        problems += _only_in("mask", masks, "image", images, image_folder)
    return [(images[stem], masks[stem]) for stem in images if stem in masks], problems


def missing_files(wanted: Iterable[Path]) -> list[str]:
    """A sentence for each folder that lacks some of the ``wanted`` files, with what is there; empty if all are there.

    Lists each folder once and opens no file, so that a hundred thousand files are checked within a second or two.
    """
    by_folder: dict[str, set[str]] = {}
    for path in wanted:
        folder, name = os.path.split(path)
        by_folder.setdefault(folder, set()).add(name)
    # A sentence for each existing folder above absent ones, then for each folder that lacks files.
    absent: dict[Path, list[str]] = {}
    lacking = []
    for folder, names in by_folder.items():
        if not os.path.isdir(folder):
            existing = _nearest_existing(Path(folder))
            absent.setdefault(existing, []).append(str(Path(folder).relative_to(existing)))
        elif missing := sorted(names - set(os.listdir(folder))):
            lacking.append(f"{folder} lacks {len(missing)} of {len(names)} files: {_some(missing)}")
    sentences = [
        f"in {existing}, which contains {_content(existing)}, there is no folder {_some(folders)}"
        for existing, folders in absent.items()
    ]
    sentences += lacking
    more = len(sentences) - SHOWN
    return sentences[:SHOWN] + ([f"{more} more folders lack files"] if more > 0 else [])


def size_problems(pairs: Sequence[tuple[Path, Path | None]], what: str) -> list[str]:
    """A sentence for each pair whose headers cannot be read or have different sizes. ``what``: the bar's title."""
    if not pairs:
        return []
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        results = pool.map(_size_problem, pairs)
        return [text for text in progress_bar(results, total=len(pairs), desc=what, leave=False) if text]


def _nearest_existing(folder: Path) -> Path:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _content(folder: Path) -> str:
    return _some(sorted(entry.name for entry in folder.iterdir())) or "nothing"


def _nothing_in(folder: Path, files: dict[str, Path], kind: str) -> list[str]:
    if files:
        return []
    state = f"no {kind} in {folder}" if folder.is_dir() else f"no folder {folder}"
    existing = _nearest_existing(folder)
    return [f"{state} ({existing} contains {_content(existing)})"]


def _same_stem(kind: str, folder: Path, suffixes: Sequence[str], kept: dict[str, Path]) -> list[str]:
    """A sentence if files of a folder differ only by their suffix: just one of them would be used."""
    if not kept:
        return []
    found = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.stem in kept)
    twice = sorted(path.name for path in found if path != kept[path.stem])
    return (
        [f"{len(twice)} {kind} in {folder} have the name of another with another suffix: {_some(twice)}"]
        if twice
        else []
    )


def _only_in(kind: str, here: dict[str, Path], other: str, there: dict[str, Path], other_folder: Path) -> list[str]:
    lonely = [path.name for stem, path in here.items() if stem not in there]
    if not lonely:
        return []
    return [f"{len(lonely)} of {len(here)} {kind}s have no {other} of the same name in {other_folder}: {_some(lonely)}"]


def _size_problem(pair: tuple[Path, Path | None]) -> str:
    sizes = []
    for path in pair:
        if path is None:
            continue
        try:
            with open_picture(path) as picture:
                sizes.append(picture.size)
        except DECODING_ERRORS as error:
            return f"{path} is not a readable image ({error})"
    if len(set(sizes)) > 1:
        (width, height), (mask_width, mask_height) = sizes
        return f"{pair[1]} is {mask_width}x{mask_height}, but its image {pair[0].name} is {width}x{height}"
    return ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
