"""Read images and masks; everything wrong with a file is an ``InputError`` with its name.

OpenCV is imported where pixels are decoded, so that missing files are reported without waiting for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lseg_utils import picture_files
from lseg_utils.errors import InputError, few
from lseg_utils.picture_files import DECODING_ERRORS

VALUES_SHOWN = 10
COUNTED = 1 << 20  # values from which on a mask is searched only in its beginning: some of them are outside anyway

# JPEG's cosine coefficients can be decoded at a fraction of the size. That blurs less than the resize would, so the
# reduced picture must be larger than wanted by this factor: photographs then differ by 0.7 to 1.6 of 255 on average.
REDUCED_MARGIN = 1.25
END_OF_JPEG = b"\xff\xd9"
REDUCTIONS = {8: 64, 4: 32, 2: 16}  # OpenCV's IMREAD_REDUCED_GRAYSCALE_8, _4 and _2


class UnreadableInputError(InputError):
    """One picture is missing or damaged: the only kind of error that ``on_bad_image="skip"`` passes over."""


def open_picture(path: Path) -> Image.Image:
    """The decoded picture; decoding here, not at first use, keeps the file's name and the error together."""
    try:
        picture = picture_files.open_picture(path)
        picture.load()
    except DECODING_ERRORS as error:
        raise _unreadable(path, error) from error
    return picture


def _unreadable(path: Path, error: BaseException) -> UnreadableInputError:
    return UnreadableInputError(f"{path} cannot be read ({error}); download it again")


def read_image(path: Path) -> Image.Image:
    """The picture as RGB, whatever it is stored as; ``UnreadableInputError`` if it is damaged or cut off."""
    with open_picture(path) as picture:
        return picture.convert("RGB")


class EncodedImage:
    """An image's file in memory: its ``size`` (width, height) at once, its pixels when it is known how many.

    For training, where decoding no more than is used saves much of the time. ``UnreadableInputError`` if the file is
    missing or no picture; the same from :meth:`pixels` if it is damaged or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size, self._jpeg = _header_and_content(path, "JPEG", "RGB")

    def pixels(self, wanted: tuple[int, int] | None = None) -> np.ndarray:
        """RGB, uint8 (h, w, 3), in the original size: the same numbers as those of :func:`read_image`.

        ``wanted`` (width, height): what it will be resized to; a JPEG far larger than that comes at 1/2, 1/4 or 1/8.
        """
        import cv2

        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | self._reduction(wanted or self.size)
        # OpenCV of earlier times fills up what is missing; so a file without its end is left to Pillow's judgement.
        pixels = _fast_decoded(self._jpeg, flags) if self._jpeg.endswith(END_OF_JPEG) else None
        return np.array(read_image(self.path)) if pixels is None else pixels

    def _reduction(self, wanted: tuple[int, int]) -> int:
        """OpenCV's flag for the strongest reduction that ``wanted`` allows, 0 for none."""
        spare = min(has / (needed * REDUCED_MARGIN) for has, needed in zip(self.size, wanted))
        return next((flag for factor, flag in REDUCTIONS.items() if factor <= spare), 0)


def read_mask(path: Path) -> np.ndarray:
    """The values of a mask, whole numbers (h, w); of a palette picture its indices, not its colours."""
    import cv2

    values = _fast_decoded(_header_and_content(path, "PNG", "L")[1], cv2.IMREAD_UNCHANGED)
    if values is not None and values.ndim == 2:
        return values
    with open_picture(path) as picture:
        values = np.asarray(picture)
    if values.ndim != 2 or values.dtype.kind == "f":
        raise InputError(f"{path} is an image of mode {picture.mode}; a mask has one whole number per pixel")
    return values.astype(np.uint8) if values.dtype == bool else values  # black and white, mode 1: 0 and 1


def _header_and_content(path: Path, kind: str, mode: str) -> tuple[tuple[int, int], bytes]:
    """A picture's (width, height), and its whole file if it is of this kind and mode, else no bytes."""
    try:
        with picture_files.open_picture(path) as picture:
            if (picture.format, picture.mode) != (kind, mode):
                return picture.size, b""
            picture.fp.seek(0)
            return picture.size, picture.fp.read()
    except DECODING_ERRORS as error:
        raise _unreadable(path, error) from error


def _fast_decoded(content: bytes, flags: int) -> np.ndarray | None:
    """Decoded by OpenCV, to the same numbers as by Pillow and without its detour over four bytes per pixel.

    None if there is nothing or something is wrong: Pillow may judge then, and say what it is.
    """
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:
        return None


def check_values(path: Path, values: np.ndarray, allowed: np.ndarray, meaning: str) -> None:
    """``InputError`` with the file and the values that are not in ``allowed``; ``meaning``: what masks may contain."""
    low, high = int(values.min()), int(values.max())
    if high - low < len(allowed) and np.isin(np.arange(low, high + 1), allowed).all():
        return  # no need to look for gaps, which every mask of a training run would pay for
    # Counting is ten times faster than the sorting in np.unique.
    counted = 0 <= low and high < COUNTED
    found = np.flatnonzero(np.bincount(values.ravel())) if counted else np.unique(values.ravel()[:COUNTED])
    outside = found[~np.isin(found, allowed)].tolist() or [value for value in (low, high) if value not in allowed]
    if outside:
        raise InputError(f"{path} contains the values {few(list(map(str, outside)), VALUES_SHOWN)}; {meaning}")
