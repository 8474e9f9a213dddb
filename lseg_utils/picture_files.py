"""Opens picture files, and lists the errors that decoding one can raise. Imports neither torch nor OpenCV."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

# What Pillow's decoders raise for a damaged file, depending on its kind and on where the damage is. An ``InputError``
# is among them (a ValueError), running out of memory is not.
DECODING_ERRORS = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError, ValueError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def open_picture(file: str | Path | BinaryIO) -> Image.Image:
    """The picture with its header read and its pixels not yet decoded.

    Only regular files are opened: a named pipe would block for ever. Raises one of ``DECODING_ERRORS``.
    """
    if isinstance(file, str | Path) and not stat.S_ISREG(os.stat(file).st_mode):
        raise OSError(f"{file} is not a regular file")
    return Image.open(file, formats=_safe_formats())


@lru_cache
def _safe_formats() -> tuple[str, ...]:
    """All formats that Pillow decodes itself: for PostScript it would run another program."""
    Image.init()
    return tuple(name for name in Image.OPEN if name != "EPS")
