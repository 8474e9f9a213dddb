"""Unpack a zip archive so that no half-unpacked folder is left behind. Check its checksum first (``download`` does)."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from itertools import count
from pathlib import Path

from lseg_utils.errors import InputError
from lseg_utils.files import check_free_space
from lseg_utils.progress import progress_bar


def unpack(archive: Path, into: Path) -> list[Path]:
    """Unpack ``archive`` into the folder ``into``; each of its top-level entries appears there in one step.

    An existing entry is not deleted but renamed to ``<name>.replaced`` (``.replaced2``, ...); these paths are
    returned. ``zipfile`` keeps every member inside ``into`` and writes links as plain files. Raises ``InputError`` for
    a damaged archive, and if the disk is full or ``into`` cannot be written to.
    """
    aside = into / f".{archive.stem}.unpacking"  # hidden; what a killed run left there is removed
    try:
        if aside.exists():
            shutil.rmtree(aside)
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            check_free_space(into, sum(member.file_size for member in members), f"unpacking {archive.name}")
            for member in progress_bar(members, desc=f"unpacking {archive.name}", unit="file"):
                file.extract(member, aside)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        raise InputError(f"cannot unpack {archive} into {into}: {error.strerror}") from error
    replaced = []
    for entry in sorted(aside.iterdir()):
        place = into / entry.name
        if os.path.lexists(place):  # true also for a link that leads nowhere
            names = (place.with_name(f"{place.name}.replaced{number if number > 1 else ''}") for number in count(1))
            replaced.append(next(name for name in names if not os.path.lexists(name)))
            os.replace(place, replaced[-1])
        os.replace(entry, place)
    aside.rmdir()
    return replaced


def missing_members(archive: Path, into: Path) -> list[str]:
    """The files of ``archive`` that are missing from ``into`` or have another size there."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(archive, error) from error
    sizes = {path: path.stat().st_size for member in members if (path := into / member.filename).is_file()}
    return [member.filename for member in members if sizes.get(into / member.filename) != member.file_size]


def _damaged(archive: Path, error: Exception) -> InputError:
    return InputError(f"{archive} is not an intact zip archive ({error}); remove it and download it again")
