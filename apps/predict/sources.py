"""The pictures, videos and cameras that the inputs of a run stand for, and the names of their results."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif", ".jp2")
)
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp")
)
FRAMES = ".frames"  # the frames of video NAME are NAME.frames/000000 and so on
MAX_CAMERA_DIGITS = 3  # longer numbers are taken for missing files
MAX_NAME_BYTES = 230  # file systems allow 255, of which suffixes of results and of temporary files need some


@dataclass(frozen=True)
class Source:
    """A picture, video or camera.

    path: the file; for a camera, its number as text. name: the stem of its results' names, with folders separated by
    ``/`` and without suffix. kind: "picture", "video" or "camera".
    """

    path: Path
    name: str
    kind: str


def find_sources(inputs: Sequence[str], output_folder: Path) -> tuple[list[Source], list[str]]:
    """``(sources, problems)`` of ``inputs``; folders are searched with all their subfolders, in the order of names.

    In folders, files are chosen by their suffix; hidden files and everything in ``output_folder`` are left out. A file
    that is itself an input is always taken. A number that is not a file is a camera. With several inputs, the results
    of a folder's files start with the folder's name.
    """
    sources, problems = [], []
    for text in inputs:
        path = Path(text).expanduser()
        if not text.strip():  # Path("") is the current folder: more than anybody asked for
            problems.append(
                f"an input is blank ({text!r}); give a file, a folder (. is the current one) or the number of a camera"
            )
        elif os.path.isdir(path) and os.path.realpath(path) == os.path.realpath(output_folder):
            problems.append(f"{path} is an input and also the output folder; choose another output folder")
        elif os.path.isdir(path):  # unlike Path.is_dir, False for a text that is too long for a name
            found = sorted(_walk(path, os.path.realpath(output_folder)))
            if not found:
                problems.append(f"{path} and its subfolders contain no file with the suffix of a picture or video")
            before = path.resolve().name if len(inputs) > 1 else ""
            for file in found:
                sources.append(Source(file, str(PurePosixPath(before, *file.relative_to(path).parts)), _kind(file)))
        elif os.path.exists(path):
            sources.append(Source(path, path.name.lstrip("."), _kind(path)))
        elif text.isdecimal() and len(text) <= MAX_CAMERA_DIGITS:
            # With the time in its name, a second recording does not replace the first.
            sources.append(Source(path, f"camera{text}_{datetime.now():%Y%m%d_%H%M%S}", "camera"))
        else:
            problems.append(f"there is no file or folder {path}")
    for source in sources:
        try:
            os.fsencode(source.path).decode("utf-8")
        except UnicodeDecodeError:
            problems.append(
                f"the name {os.fsencode(source.path)!r} is not valid UTF-8, so results cannot have it; rename the file"
            )
    return _named(sources, problems), problems


def _walk(folder: Path, leave_out: str) -> Iterator[Path]:
    """The pictures and videos below ``folder``. Links to folders are followed, but no folder is entered twice."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen or real == leave_out:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
                yield Path(here, name)


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".gif" and os.path.isfile(path):
        from lseg_utils.picture_files import DECODING_ERRORS, open_picture

        try:
            with open_picture(path) as picture:
                return "video" if getattr(picture, "is_animated", False) else "picture"
        except DECODING_ERRORS:
            return "picture"  # what is wrong with it is reported when it is read
    return "video" if suffix in VIDEO_SUFFIXES else "picture"


def _named(sources: list[Source], problems: list[str]) -> list[Source]:
    """The sources under names without suffix, all of them different, on disks that ignore case too.

    cat.jpg and cat.png become cat_jpg and cat_png. Of names that are too long or differ only by case, a short
    checksum tells them apart.
    """
    plain = [str(PurePosixPath(source.name).with_suffix("")) for source in sources]
    taken = Counter(plain) + Counter({str(parent) for name in plain for parent in PurePosixPath(name).parents})
    named = []
    for source, name in zip(sources, plain, strict=True):
        if taken[name] > 1:
            name += PurePosixPath(source.name).suffix.replace(".", "_")
        name = name.replace(f"{FRAMES}/", f"{FRAMES.replace('.', '_')}/")  # a folder like that of a video's frames
        parts = name.split("/")
        for number, part in enumerate(parts):
            if len(data := os.fsencode(part)) > MAX_NAME_BYTES:
                parts[number] = f"{data[: MAX_NAME_BYTES - 9].decode('utf-8', 'ignore')}_{_checksum(part)}"
        named.append("/".join(parts))
    spellings = Counter(name.casefold() for name in set(named))
    named = [f"{name}_{_checksum(name)}" if spellings[name.casefold()] > 1 else name for name in named]
    sources = [Source(source.path, name, source.kind) for source, name in zip(sources, named, strict=True)]
    first: dict[str, Path] = {}
    for source in sources:
        if first.setdefault(source.name, source.path) is not source.path:
            problems.append(
                f"{first[source.name]} and {source.path} would both be written as {source.name}; "
                "use two runs with two output folders, or rename one"
            )
    return sources


def _checksum(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
