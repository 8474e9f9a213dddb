"""What visitors send, checked against limits so that no visitor takes the whole machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lseg_utils.errors import InputError, few, raise_all
from lseg_utils.image_input import decode_rgb, to_pixels
from lseg_utils.label_list import duplicates, split_labels

MAX_UPLOAD_MB = 20
MAX_PIXELS = 50_000_000  # refused before they are decoded
MAX_SIDE = 1280  # of what is worked on: the network looks at about 520, and screens show little more
MAX_LABELS = 200
MAX_LETTERS = 200  # of a label; CLIP reads 77 tokens


def parse_labels(text: str) -> list[str]:
    """Labels as ``split_labels`` takes them, within the limits.

    Raises:
        InputError: no labels, too many, duplicates, labels that are too long; everything that is wrong at once.
    """
    labels = split_labels(text)
    if not labels:
        raise InputError("Enter at least one label: one per line, or separated by commas.")
    problems = []
    if len(labels) > MAX_LABELS:
        problems.append(f"{len(labels)} labels are too many: this page takes at most {MAX_LABELS}. Remove some.")
    if twice := list(duplicates(labels)):
        problems.append(f"Duplicate labels: {few(twice)}. Enter each label once.")
    long = [f"{label[:30]}…" for label in labels if len(label) > MAX_LETTERS]
    if long:
        problems.append(f"Longer than {MAX_LETTERS} letters: {few(long)}. CLIP cannot read that much: shorten them.")
    raise_all(problems)
    return labels


def parse_query(text: str) -> str:
    """The text without spaces around it, "" if it is blank; ``InputError`` if it is too long."""
    query = " ".join(text.split())
    if len(query) > MAX_LETTERS:
        raise InputError(f"The text is longer than {MAX_LETTERS} letters. CLIP cannot read that much: shorten it.")
    return query


def read_picture(data: bytes, name: str) -> tuple[np.ndarray, str]:
    """An uploaded or sample file as (H, W, 3) uint8 and a note, "" unless it was made smaller.

    Raises:
        InputError: a file that is empty, too large, damaged or not an image; too many pixels.
    """
    if len(data) > MAX_UPLOAD_MB * 2**20:
        megabytes = len(data) / 2**20
        raise InputError(f"{name} is {megabytes:.0f}  MB; the limit is {MAX_UPLOAD_MB} MB. Choose a smaller file.")
    return _shrunk(to_pixels(decode_rgb(data, name, MAX_PIXELS)))


def read_sample(path: Path) -> tuple[np.ndarray, str]:
    """``read_picture`` for a file on this machine; ``InputError`` if it cannot be read."""
    try:
        return read_picture(path.read_bytes(), path.name)
    except OSError as error:
        raise InputError(
            f"The sample {path.name} cannot be read ({error.strerror}); choose another, or upload a picture."
        ) from error


def _shrunk(pixels: np.ndarray) -> tuple[np.ndarray, str]:
    height, width = pixels.shape[:2]
    factor = MAX_SIDE / max(height, width)
    if factor >= 1:
        return pixels, ""
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    sizes = f"from {width} x {height} to {size[0]} x {size[1]} pixels"
    return np.asarray(small), f"Reduced {sizes}; `python predict_lseg.py` keeps the full size."
