"""Unpacking a zip archive so that nothing lands outside the target and nothing is ever half there."""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from lseg_utils.errors import InputError
from lseg_utils.files import check_free_space
from lseg_utils.progress import progress_bar

_SHOWN = 5


def unpack(archive: Path, into: Path) -> list[Path]:
    """Unpack ``archive`` so that its top-level entries stand in ``into``, each of them appearing in one step.

    It is unpacked into a hidden folder first, which a later run clears if this one is killed. What already stands
    in the place of an entry is not deleted but renamed to ``<name>.replaced`` (``.replaced2``, ...); these paths are
    returned. Raises ``InputError``, before anything is written, if a member would land outside ``into``, is a link
    or is encrypted, or if there is no room.
    """
    aside = into / f".{archive.stem}.unpacking"
    if aside.exists():
        shutil.rmtree(aside)
    with _opened(archive) as file:
        members = file.infolist()
        refused = [text for member in members if (text := _why_refused(member))]
        if refused:
            raise InputError(f"{archive} is not unpacked, nothing was written: {'; '.join(refused[:_SHOWN])}")
        size = sum(member.file_size for member in members)
        check_free_space(into, size, f"unpacking {archive.name}")
        aside.mkdir(parents=True)
        with progress_bar(total=size, desc=f"unpacking {archive.name}", unit="B", unit_scale=True) as bar:
            for member in members:
                _extract(file, member, aside, archive)
                bar.update(member.file_size)
    replaced = [_put(entry, into / entry.name) for entry in sorted(aside.iterdir())]
    aside.rmdir()
    return [path for path in replaced if path]


def missing_members(archive: Path, into: Path) -> list[str]:
    """The files of ``archive`` that are not in ``into`` in full size."""
    with _opened(archive) as file:
        members = [member for member in file.infolist() if not member.is_dir()]
    return [member.filename for member in members if not _has_size(into / member.filename, member.file_size)]


def _opened(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{archive} is not a readable zip archive ({error}); remove it and fetch it again") from error


def _why_refused(member: zipfile.ZipInfo) -> str:
    name = member.orig_filename  # as stored: ``filename`` has been tidied up already
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or "\0" in name:
        return f"{name!r} has an absolute or broken path"
    if "\\" in name or ".." in PurePosixPath(name).parts:
        return f"{name!r} would leave the target folder"
    mode = member.external_attr >> 16  # what a Unix packer noted; 0 elsewhere
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"{name!r} is a link or a device"
    if member.flag_bits & 1:
        return f"{name!r} is encrypted"
    return ""


def _extract(file: zipfile.ZipFile, member: zipfile.ZipInfo, into: Path, archive: Path) -> None:
    try:
        file.extract(member, into)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{archive}: {member.filename} is damaged ({error}); remove it and fetch it again") from error
    except OSError as error:
        raise InputError(f"cannot write {member.filename} of {archive} in {into} ({error.strerror})") from error


def _put(entry: Path, place: Path) -> Path | None:
    """Rename ``entry`` to ``place``; return where what stood there has gone."""
    replaced = None
    if os.path.lexists(place):  # also a link that leads nowhere
        number = 1
        while os.path.lexists(replaced := place.with_name(f"{place.name}.replaced{number if number > 1 else ''}")):
            number += 1
        os.replace(place, replaced)
    os.replace(entry, place)
    return replaced


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
