"""Files that are never half-written, checksums, and free space on the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lseg_utils.errors import InputError
from lseg_utils.progress import progress_bar

REPOSITORY = Path(__file__).resolve().parent.parent

_CHUNK = 1 << 20
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; after the block it is renamed to ``path`` in one step.

    If the block fails or the process is killed, ``path`` remains what it was. The temporary file is in the same folder
    (a rename works only within one disk), is hidden, and keeps the suffix, from which some writers infer the format.
    Its name is always the same, so that leftovers of killed processes do not pile up; two processes must not write
    the same path at the same time. Missing folders are created. A full disk raises ``InputError``; other errors pass
    through.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.aside{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    except BaseException as error:
        # Checked before the temporary file is removed. torch.save and np.save report a full disk without an errno.
        code = error.errno if isinstance(error, OSError) else None
        full = code in _FULL_DISK
        if code is None and isinstance(error, RuntimeError | OSError):
            full = shutil.disk_usage(path.parent).free < _CHUNK
        aside.unlink(missing_ok=True)
        if full:
            raise InputError(
                f"no room left on the disk to write {path}; an earlier version of it is intact. "
                "Free some space and run the same command again"
            ) from error
        raise


def unwritable(folder: Path, flag: str) -> str:
    """Why ``folder`` is not writable, or "". A missing folder is created. ``flag``: the option that sets it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder} is not writable ({error.strerror}); choose another {flag}"


def file_state(path: Path) -> list[str | int]:
    """What tells a file from another one at the same place: path, size, time of change; in plain types."""
    state = path.stat()
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def sha1_of(path: str | Path) -> str:
    """The SHA-1 of a file as 40 hexadecimal digits, with a progress bar."""
    return _digest(path, "sha1")


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits, with a progress bar."""
    return _digest(path, "sha256")


def _digest(path: str | Path, algorithm: str) -> str:
    path, digest = Path(path), hashlib.new(algorithm)
    bar = progress_bar(total=path.stat().st_size, desc=f"checking {path.name}", unit="B", unit_scale=True, leave=False)
    with path.open("rb") as file, bar:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def check_free_space(folder: str | Path, needed: int, purpose: str) -> None:
    """Raise ``InputError`` if the disk of ``folder`` (which may not exist yet) has fewer than ``needed`` bytes free."""
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{purpose} needs {needed / 1e9:.2f} GB in {folder}, but only {free / 1e9:.2f} GB are free; "
            "free some space or choose another folder"
        )
