"""Which pictures and videos some files, folders and camera numbers stand for, and what their results are named."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif", ".jp2")
)
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp")
)


CAMERA_DIGITS = 3  # longer numbers are names of folders that are not there


@dataclass(frozen=True)
class Source:
    """One picture, video or camera.

    path: the file; of a camera its number as text. name: what its results are named after, folders with ``/``, no
    suffix. kind: "picture", "video" or "camera".
    """

    path: Path
    name: str
    kind: str


def find_sources(inputs: Sequence[str], leave_out: Path) -> tuple[list[Source], list[str]]:
    """``(sources, problems)`` of ``inputs``; folders are searched with all their subfolders, in the order of names.

    A blank text and ``leave_out`` (where results go) are no inputs. A number that is no file is a camera. In folders,
    files count by their suffix, and hidden ones and all under ``leave_out`` do not; a file named itself always counts.
    With several inputs, the files of a folder are named with that folder's name in front.
    """
    sources, problems = [], []
    for text in inputs:
        path = Path(text).expanduser()
        if not text.strip():  # Path("") is the folder one is in: more than anybody asked for
            problems.append(f"an input is blank ({text!r}); name a file, a folder (. is this one) or a camera")
        elif os.path.isdir(path) and path.resolve() == leave_out.resolve():
            problems.append(f"{path} is an input and also where results go; name another folder for the results")
        elif os.path.isdir(path):  # unlike Path, false for a text that is too long to be a name
            found = sorted(_walk(path, leave_out.resolve()))
            if not found:
                problems.append(f"{path} holds no picture or video, by their suffixes, nor does any folder in it")
            before = path.resolve().name if len(inputs) > 1 else ""
            for file in found:
                sources.append(Source(file, str(PurePosixPath(before, *file.relative_to(path).parts)), _kind(file)))
        elif os.path.exists(path):
            sources.append(Source(path, path.name.lstrip("."), _kind(path)))
        elif text.isdecimal() and len(text) <= CAMERA_DIGITS:
            # By the time, too: a second recording does not replace the first.
            sources.append(Source(path, f"camera{text}_{datetime.now():%Y%m%d_%H%M%S}", "camera"))
        else:
            problems.append(f"there is no file or folder {path}")
    for source in sources:
        if not _is_utf8(os.fsencode(source.path)):
            problems.append(f"the name of {os.fsencode(source.path)!r} is not UTF-8, as results are written; rename it")
    return _named(sources, problems), problems


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _walk(folder: Path, leave_out: Path) -> Iterator[Path]:
    """Files that count. Links to folders are followed, but into no folder twice."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen or Path(real) == leave_out:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
                yield Path(here, name)


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "video" if suffix in VIDEO_SUFFIXES or (suffix == ".gif" and _moves(path)) else "picture"


def _moves(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return getattr(picture, "is_animated", False)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return False  # whatever is wrong with it is told when it is read


def _named(sources: list[Source], problems: list[str]) -> list[Source]:
    """The sources with names without suffix; where that is not enough to tell files apart, ``cat.jpg`` is cat_jpg."""
    plain = [str(PurePosixPath(source.name).with_suffix("")) for source in sources]
    taken = Counter(plain) + Counter({str(parent) for name in plain for parent in PurePosixPath(name).parents})
    named = []
    for source, name in zip(sources, plain, strict=True):
        if taken[name] > 1:
            name += PurePosixPath(source.name).suffix.replace(".", "_")
        named.append(Source(source.path, name, source.kind))
    first: dict[str, Path] = {}
    for source in named:
        if first.setdefault(source.name, source.path) is not source.path:
            problems.append(
                f"{first[source.name]} and {source.path} would both be written as {source.name}; "
                "give them in two runs with two output folders, or rename one"
            )
    return named
