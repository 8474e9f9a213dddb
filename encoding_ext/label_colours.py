"""A colour for each label that fits its meaning: grass is green, a yellow circle yellow; other texts get fixed ones."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from encoding_ext.palettes import MAX_COLOURS, palette

SCHEMES = ("natural", "ade20k", "colour_blind")
MAX_TOLD_APART = 256  # labels in one list whose colours are kept apart; in longer lists colours may be alike
MIN_DISTANCE = 40.0  # between two colours of a list, in the units of ``_distances``

_COLOUR_WORDS = {
    "red": (214, 48, 49), "crimson": (205, 38, 62), "scarlet": (226, 52, 36), "orange": (245, 140, 40),
    "amber": (246, 178, 38), "yellow": (240, 205, 40), "golden": (226, 180, 44), "gold": (226, 180, 44),
    "green": (62, 160, 74), "emerald": (34, 160, 96), "lime": (150, 205, 50), "olive": (128, 134, 46),
    "teal": (0, 140, 140), "turquoise": (50, 190, 180), "cyan": (40, 196, 216), "azure": (44, 130, 230),
    "blue": (58, 108, 222), "navy": (34, 56, 130), "indigo": (76, 70, 170), "violet": (142, 84, 210),
    "purple": (142, 68, 190), "magenta": (206, 56, 170), "pink": (240, 128, 172), "brown": (134, 88, 52),
    "tan": (200, 164, 118), "beige": (216, 200, 164), "black": (52, 54, 60), "grey": (134, 140, 148),
    "gray": (134, 140, 148), "silver": (176, 182, 190), "white": (226, 228, 232), "ivory": (232, 226, 204),
}  # fmt: skip
_THING_WORDS = {
    "grass": (96, 168, 64), "lawn": (110, 178, 72), "field": (150, 176, 74), "plant": (58, 150, 88),
    "tree": (38, 122, 66), "forest": (28, 98, 58), "leaf": (84, 170, 70), "flower": (232, 96, 150),
    "sky": (116, 184, 240), "cloud": (204, 218, 232), "water": (52, 134, 190), "sea": (30, 110, 176),
    "ocean": (24, 96, 166), "river": (64, 148, 200), "lake": (70, 140, 196), "pool": (60, 186, 214),
    "sand": (222, 196, 134), "beach": (230, 204, 144), "earth": (150, 112, 72), "soil": (140, 100, 64),
    "mountain": (136, 122, 112), "rock": (140, 136, 130), "snow": (228, 238, 246), "road": (110, 112, 122),
    "street": (110, 112, 122), "sidewalk": (172, 166, 172), "building": (186, 118, 92), "house": (196, 110, 80),
    "brick": (168, 84, 62), "masonry": (168, 92, 72), "wall": (196, 180, 160), "floor": (176, 144, 108),
    "ceiling": (214, 210, 200), "wood": (160, 110, 66), "person": (224, 74, 94), "man": (216, 82, 70),
    "woman": (226, 76, 132), "face": (240, 172, 140), "car": (60, 92, 200), "fire": (240, 96, 32),
    "sun": (250, 204, 60), "other": (150, 150, 158), "others": (150, 150, 158), "background": (150, 150, 158),
}  # fmt: skip
_LIVELY = (
    (230, 57, 70), (42, 157, 143), (244, 162, 40), (69, 105, 225), (178, 75, 200), (140, 198, 62), (240, 100, 160),
    (60, 190, 230), (150, 90, 50), (255, 220, 60), (20, 110, 70), (120, 80, 220), (255, 130, 90), (0, 150, 200),
    (190, 40, 110), (110, 160, 30), (90, 60, 140), (250, 170, 190), (0, 180, 120), (200, 120, 20),
)  # fmt: skip
# Okabe and Ito's colours, which people with the common kinds of colour blindness tell apart; black is "unlabelled".
_OKABE_ITO = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
_SHADES = (0.0, 0.35, -0.3, 0.6, -0.5, 0.18, -0.15, 0.48, -0.4)  # towards white (above 0) or black (below)


def label_colours(labels: Sequence[str], scheme: str = "natural") -> np.ndarray:
    """Colours for N labels: uint8 (N, 3), RGB.

    Args:
        labels: any texts.
        scheme: "natural": the colour that a label names, or that the thing usually has, else one chosen by the text;
            a label keeps it in every list unless an earlier label of the list has almost the same.
            "colour_blind": the same with the seven colours of Okabe and Ito in several shades.
            "ade20k": ADE20K's official colours by position in the list.

    Raises:
        ValueError: an unknown scheme.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"unknown colour scheme {scheme!r}; choose one of {', '.join(SCHEMES)}")
    if scheme == "ade20k":
        return palette(min(len(labels), MAX_COLOURS))[np.arange(len(labels)) % MAX_COLOURS]
    colours = np.zeros((len(labels), 3))
    for number, label in enumerate(labels):
        choices = _wishes(label, scheme)  # (K, 3), the best first
        if 0 < number < MAX_TOLD_APART:
            nearest = _distances(choices[:, None], colours[None, :number]).min(axis=1)  # (K,)
            far_enough = np.flatnonzero(nearest >= MIN_DISTANCE)
            colours[number] = choices[far_enough[0] if len(far_enough) else nearest.argmax()]
        else:
            colours[number] = choices[0]
    return colours.round().astype(np.uint8)


def _wishes(label: str, scheme: str) -> np.ndarray:
    """The colours that a label may get, the best first: (K, 3) floats. They depend on its text alone."""
    words = re.findall(r"[^\W\d_]+", label.lower())
    words += [word.removesuffix("s") for word in words]  # cars, trees
    table = _LIVELY if scheme == "natural" else _OKABE_ITO
    start = zlib.crc32(label.lower().strip().encode())
    by_text = [table[(start + step) % len(table)] for step in range(len(table))]
    meant = [tables[word] for tables in (_COLOUR_WORDS, _THING_WORDS) for word in words if word in tables]
    if meant and scheme == "natural":
        bases = [meant[0], *by_text]
    elif meant:
        near = _distances(np.array(by_text, float), np.array(meant[0], float))
        bases = [by_text[place] for place in near.argsort(kind="stable")]
    else:
        bases = by_text
    # All shades of what the label means come before another colour; without a meaning, any colour before its shades.
    first = np.array(bases, float)[:, None] if meant else np.array(bases, float)[None]  # (bases, 1, 3) or (1, bases, 3)
    shades = np.array(_SHADES)[None, :, None] if meant else np.array(_SHADES)[:, None, None]
    return np.where(shades > 0, first + shades * (255 - first), first * (1 + shades)).reshape(-1, 3)


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How different colours look (..., 3), (..., 3) -> (...): a weighted distance in RGB ("redmean"), 0..765."""
    red = (first[..., 0] + second[..., 0]) / 2
    delta = (first - second) ** 2
    return np.sqrt((2 + red / 256) * delta[..., 0] + 4 * delta[..., 1] + (2 + (255 - red) / 256) * delta[..., 2])
