"""Reading pictures and masks so that everything wrong with a file is an ``InputError`` that names it."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from encoding_ext.errors import InputError

VALUES_SHOWN = 10

# What Pillow's decoders raise for a damaged file, depending on its kind and on where the damage is.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, zlib.error, Image.DecompressionBombError)


class UnreadableInputError(InputError):
    """One picture is missing or damaged: the only kind of error that ``on_bad_image="skip"`` passes over."""


def open_picture(path: Path) -> Image.Image:
    """The decoded picture; decoding here, not at first use, keeps the file's name and the error together."""
    try:
        picture = Image.open(path)
        picture.load()
    except DECODING_ERRORS as error:
        raise UnreadableInputError(f"{path} cannot be read ({error}); fetch it again") from error
    return picture


def read_image(path: Path) -> Image.Image:
    """The picture as RGB, whatever it is stored as; ``UnreadableInputError`` if it is damaged or cut off."""
    with open_picture(path) as picture:
        return picture.convert("RGB")


def read_mask(path: Path) -> np.ndarray:
    """The values of a mask, whole numbers (h, w); of a palette picture its indices, not its colours."""
    with open_picture(path) as picture:
        values = np.asarray(picture)
    if values.ndim != 2 or values.dtype.kind == "f":
        raise InputError(f"{path} is a picture of mode {picture.mode}; a mask has one whole number per pixel")
    return values


def check_values(path: Path, values: np.ndarray, allowed: np.ndarray, meaning: str) -> None:
    """``InputError`` with the file and the values that are not in ``allowed``; ``meaning``: what masks may hold."""
    # Counting is ten times faster than the sorting in np.unique, which every mask of a training run would pay for.
    found = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)
    outside = found[~np.isin(found, allowed)].tolist()
    if outside:
        shown = ", ".join(map(str, outside[:VALUES_SHOWN])) + (", ..." if len(outside) > VALUES_SHOWN else "")
        raise InputError(f"{path} holds the values {shown}; {meaning}")
