"""Downloads that resume where they were interrupted and are kept only if their checksum is right."""

from __future__ import annotations

import errno
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from lseg_utils.errors import InputError
from lseg_utils.files import sha1_of
from lseg_utils.progress import progress_bar

ATTEMPTS = 5  # in a row that add no byte
PAUSE_S = 2.0
TIMEOUT_S = 30.0
_CHUNK = 1 << 18
_WORTH_RETRYING = (408, 429, 500, 502, 503, 504)


def part_of(target: Path) -> Path:
    """The file that contains an unfinished download of ``target``."""
    return target.with_name(target.name + ".part")


def download(url: str, target: Path, sha1: str) -> None:
    """Download ``url`` to ``target``; afterwards that file has this SHA-1 (40 hexadecimal digits).

    An existing file is only checked. An interrupted download is resumed if the server supports it, otherwise started
    again. Raises ``InputError`` for a wrong checksum, a full disk or a missing connection; the message then tells what
    to download elsewhere and where to put it.
    """
    elsewhere = f"download {url} (SHA-1 {sha1}) on another machine, put it at {target} and run the same command again"
    if target.exists():
        if (found := sha1_of(target)) != sha1:
            text = f"{target} has the SHA-1 {found}, not {sha1}: it is damaged or a different file; remove it"
            raise InputError(text)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part, failures = part_of(target), 0
    while True:
        before = _size(part)
        try:
            _fetch(url, part)
            break
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                text = f"the disk is full: cannot write {part}; free some space and run the same command again"
                raise InputError(text) from error
            final = isinstance(error, urllib.error.HTTPError) and error.code not in _WORTH_RETRYING
            failures = 1 if _size(part) > before else failures + 1
            if final or failures >= ATTEMPTS:
                raise InputError(f"cannot download {url} ({error}); if this machine is offline, {elsewhere}") from error
        time.sleep(PAUSE_S)
    if (found := sha1_of(part)) != sha1:
        part.unlink()
        raise InputError(
            f"the download from {url} had the SHA-1 {found}, not {sha1}, and was removed; "
            f"run the same command again, or {elsewhere}"
        )
    os.replace(part, target)


def _fetch(url: str, part: Path) -> None:
    """One attempt: append the missing bytes to ``part``, or rewrite it if the server sends the whole file."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # the part is already complete
        part.unlink()
        return _fetch(url, part)
    with response:
        continued = response.status == 206
        start = have if continued else 0
        if continued and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError("the server sent a different range than requested")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            open(part, "ab" if continued else "wb") as file,
            progress_bar(total=total, initial=start, desc=f"downloading {part.stem}", unit="B", unit_scale=True) as bar,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"cut off after {_size(part)} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
