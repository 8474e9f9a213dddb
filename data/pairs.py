"""Images and masks on disk: finding the pairs of a split, and everything that is wrong with them."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob, has_magic
from pathlib import Path

from lseg_utils.errors import InputError, few
from lseg_utils.picture_files import DECODING_ERRORS, open_picture
from lseg_utils.progress import is_rank_zero, progress_bar

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")  # none that changes values
SHOWN = 5  # folders that a message describes
Size = tuple[int, int]  # width, height
ORIENTATION, UPRIGHT = 274, 1  # the EXIF tag that turns or mirrors a picture
HEADER_THREADS = 16  # opening a file waits for the disk, not for the processor


def find_pairs(
    images: Path,
    masks: Path | None,
    names: Mapping[str, str] | None = None,
    mask_suffixes: Sequence[str] = MASK_SUFFIXES,
    listed: Path | Sequence[str] | None = None,
) -> tuple[list[tuple[Path, Path | None]], list[str]]:
    """All (image, mask) paths sorted by name, or in the order of a list, and a sentence for each thing missing.

    images, masks: folders, of which everything below counts, or globs. masks None: images only, the mask is None.
    names: ``image_prefix``, ``image_suffix``, ``mask_prefix``, ``mask_suffix``: what surrounds the part of the file
    name that an image and its mask share. A suffix may include the extension.
    mask_suffixes: extensions of masks. listed: names of the images that count, or of folders all of whose images
    count; or a text file with one on each line, or with the path of an image and of its mask on each line.

    Reads directories and the list, opens no picture.
    """
    names = names or {}
    if listed is not None and (pairs := _listed_paths(listed, images, masks or images)):
        if masks is None:
            pairs = [(image, None) for image, _ in pairs]
        return pairs, missing_files(path for pair in pairs for path in pair if path)
    found, problems = files_by_key(images, IMAGE_SUFFIXES, names.get("image_prefix", ""), names.get("image_suffix", ""))
    if not found:
        problems.append(_nothing_in(images, "images", IMAGE_SUFFIXES, names.get("image_suffix", "")))
    keys = list(found)
    if listed is not None:
        keys, wrong = _listed_keys(listed, names, found)
        problems += wrong
        if found and (lacking := [key for key in keys if key not in found]):
            problems.append(
                f"{_list_name(listed)} lists {len(lacking)} images that are not in {images}: {few(lacking)}"
            )
    if masks is None:
        return [(found[key], None) for key in keys if key in found], problems
    drawn, clashes = files_by_key(masks, mask_suffixes, names.get("mask_prefix", ""), names.get("mask_suffix", ""))
    problems += clashes
    if not drawn and (found or _folder_of(images)[0].is_dir() or _folder_of(masks)[0].is_dir()):
        problems.append(_nothing_in(masks, "masks", mask_suffixes, names.get("mask_suffix", "")))
    if found and drawn:
        wanted = {key: found[key] for key in keys if key in found}
        problems += _only_in("image", wanted, "mask", drawn, masks)
        if listed is None:
            problems += _only_in("mask", drawn, "image", found, images)
    return [(found[key], drawn[key]) for key in keys if key in found and key in drawn], problems


def files_by_key(
    place: Path, extensions: Sequence[str], prefix: str = "", suffix: str = ""
) -> tuple[dict[str, Path], list[str]]:
    """The files below a folder or of a glob, sorted, by what remains of their path without prefix, suffix, extension.

    The folders that a glob spells out are also removed: ``*/color/*.jpg`` and ``*/label/*.png`` belong together. Hidden
    files and files with another prefix, suffix or extension do not count. Also returns a sentence for files that would
    have the same name.
    """
    folder, pattern = _folder_of(place)
    if not folder.is_dir():
        return {}, []
    varying: list[bool] = []  # which folders of a glob are part of the name
    if pattern:
        relative = glob(pattern, root_dir=folder, recursive=True)
        if "**" not in pattern:
            varying = [has_magic(part) for part in os.path.dirname(pattern).split(os.sep)]
    else:
        relative = [os.path.join(sub, name) for sub, _, names in _walk(folder) for name in names]
    found: dict[str, Path] = {}
    clashes: list[str] = []
    for path in sorted(relative, key=lambda path: path.split(os.sep)):
        head, name = os.path.split(path)
        stem, extension = os.path.splitext(name)
        rest = name if os.path.splitext(suffix)[1].lower() in extensions else stem
        fits = name[0] != "." and extension.lower() in extensions
        if not (fits and rest.startswith(prefix) and rest.endswith(suffix)):
            continue
        if varying:
            head = os.path.join("", *(part for part, varies in zip(head.split(os.sep), varying) if varies))
        key = os.path.join(head, rest[len(prefix) : len(rest) - len(suffix)])
        if key in found:
            clashes.append(f"{found[key].name} and {name}")
        found[key] = folder / path
    if clashes:
        advice = "remove one of each, or end image_suffix or mask_suffix with the extension"
        clashes = [f"in {folder}, files differ in their extension only: {few(clashes)}; {advice}"]
    return found, clashes


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk`` with paths relative to ``folder``; follows links, but enters no folder twice."""
    entered = set()
    for at, below, names in os.walk(folder, followlinks=True):
        status = os.stat(at)
        if (status.st_dev, status.st_ino) in entered:
            below.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        below[:] = [name for name in below if name[0] != "."]
        yield os.path.relpath(at, folder) if at != str(folder) else "", below, names


def _folder_of(place: Path) -> tuple[Path, str]:
    """The folder before the first wildcard, and the pattern below it; "" for a plain folder."""
    parts = place.parts
    first = next((i for i, part in enumerate(parts) if has_magic(part) and not Path(*parts[: i + 1]).exists()), None)
    return (place, "") if first is None else (Path(*parts[:first]), os.path.join(*parts[first:]))


def _list_name(listed: Path | Sequence[str]) -> str:
    return str(listed) if isinstance(listed, Path) else "the list of the description"


def _lines(listed: Path | Sequence[str]) -> list[str]:
    """The lines that are neither empty nor comments, stripped."""
    if not isinstance(listed, Path):
        return list(listed)
    try:
        lines = listed.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"cannot read the list {listed}: {reason}; check its name and access") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _listed_paths(listed: Path | Sequence[str], images: Path, masks: Path) -> list[tuple[Path, Path | None]]:
    """The pairs of a list with the paths of images and masks; none if it contains names."""
    lines = [line.split() for line in _lines(listed)]
    if not lines or any(len(words) != 2 or "." not in words[1] for words in lines):
        return []
    return [(images / image.lstrip("/"), masks / mask.lstrip("/")) for image, mask in lines]


def _listed_keys(
    listed: Path | Sequence[str], names: Mapping[str, str], found: Mapping[str, Path]
) -> tuple[list[str], list[str]]:
    """What the names in a list share with masks, in their order, and a sentence for what is wrong with them."""
    lines = _lines(listed)
    problems = [] if lines else [f"{_list_name(listed)} lists no image; write one name per line"]
    keys = []
    for line in lines:
        # A name may contain spaces; other lists, such as VOC's, have further columns behind the name.
        for text in (line, line.split()[0]):
            head, name = os.path.split(text)
            name = os.path.splitext(name)[0] if name.lower().endswith(IMAGE_SUFFIXES) else name
            suffix = os.path.splitext(names.get("image_suffix", ""))[0]
            key = os.path.join(head, name.removeprefix(names.get("image_prefix", "")).removesuffix(suffix))
            if key in found:
                break
        keys.append(key)
    if lacking := set(keys) - found.keys():
        below: dict[str, list[str]] = {}
        for key in found:
            for folder in map(str, Path(key).parents):
                below.setdefault(folder, []).append(key)
        keys = [each for key in keys for each in (below.get(key, [key]) if key in lacking else [key])]
    repeated = [name for name, times in Counter(keys).items() if times > 1]
    problems += (
        [f"{_list_name(listed)} lists {len(repeated)} images more than once: {few(repeated)}"] if repeated else []
    )
    return keys, problems


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
            lacking.append(f"{folder} lacks {len(missing)} of {len(names)} files: {few(missing)}")
    sentences = [
        f"{existing} has no folder {few(folders)}; it contains {_content(existing)}"
        for existing, folders in absent.items()
    ]
    sentences += lacking
    more = len(sentences) - SHOWN
    return sentences[:SHOWN] + ([f"{more} more folders lack files"] if more > 0 else [])


def size_problems(
    pairs: Sequence[tuple[Path, Path | None]],
    what: str,
    header: Callable[[Path], tuple[Size | None, str]] | None = None,
) -> list[str]:
    """A sentence for each pair whose headers cannot be read or have different sizes.

    what: the bar's title. header: mask -> its size (None: only decoding tells it), and what is wrong with its header.
    """
    if not pairs:
        return []
    turned: list[Path] = []
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        results = pool.map(lambda pair: _size_problem(pair, header or picture_size, turned), pairs)
        problems = [text for text in progress_bar(results, total=len(pairs), desc=what, leave=False) if text]
    if turned and is_rank_zero():
        count = f"{len(turned)} image{'s' * (len(turned) != 1)}"
        warnings.warn(
            f"{what}: {count} with an EXIF orientation, such as {min(turned)}; datasets ignore it, because masks "
            f"belong to the pixels as they are stored (predict_lseg.py and the app turn pictures upright)",
            stacklevel=2,
        )
    return problems


def picture_size(path: Path) -> tuple[Size | None, str]:
    """(width, height) from the header of a picture, or None and a sentence if it cannot be read."""
    return _size_and_orientation(path)[::2]


def _size_and_orientation(path: Path) -> tuple[Size | None, int, str]:
    """The size, the EXIF orientation (1: upright) and a sentence if the header cannot be read."""
    try:
        with open_picture(path) as picture:
            return picture.size, picture.getexif().get(ORIENTATION, 1) if "exif" in picture.info else 1, ""
    except DECODING_ERRORS as error:
        return None, 1, f"{path} is not a readable image ({error})"


def _nearest_existing(folder: Path) -> Path:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _content(folder: Path) -> str:
    return few(sorted(entry.name for entry in folder.iterdir())) or "nothing"


def _nothing_in(place: Path, kind: str, extensions: Sequence[str], suffix: str) -> str:
    folder, pattern = _folder_of(place)
    existing = _nearest_existing(folder)
    if folder.is_dir() and (pattern or suffix):
        rule = pattern or f"*{suffix}" + ("" if os.path.splitext(suffix)[1] else f" with {', '.join(extensions)}")
        return f"no {kind} in {folder}: no file is called {rule} ({existing} contains {_content(existing)})"
    state = f"no {kind} in {folder}" if folder.is_dir() else f"no folder {folder}"
    return f"{state} ({existing} contains {_content(existing)})"


def _only_in(kind: str, here: dict[str, Path], other: str, there: dict[str, Path], other_folder: Path) -> list[str]:
    lonely = [path.name for key, path in here.items() if key not in there]
    if not lonely:
        return []
    return [f"{len(lonely)} of {len(here)} {kind}s have no {other} of the same name in {other_folder}: {few(lonely)}"]


def _size_problem(
    pair: tuple[Path, Path | None], header: Callable[[Path], tuple[Size | None, str]], turned: list[Path]
) -> str:
    """A sentence if something is wrong; an image whose EXIF orientation is not upright is added to ``turned``."""
    image, mask = pair
    size, orientation, problem = _size_and_orientation(image)
    if orientation != UPRIGHT:
        turned.append(image)
    if problem or mask is None:
        return problem
    mask_size, problem = header(mask)
    if problem or mask_size in (None, size):
        return problem
    (width, height), (mask_width, mask_height) = size, mask_size
    text = f"{mask} is {mask_width}x{mask_height}, but its image {image.name} is {width}x{height}"
    if orientation != UPRIGHT and mask_size == (height, width):
        text += "; the mask belongs to the picture turned by its EXIF orientation: save the image upright"
    return text
