"""Image, truth and prediction side by side, for the best and the worst images of a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from lseg_utils.named_maps import named_map
from lseg_utils.pictures import fit, sheet

from .extremes import Extremes, Scored

WIDTH = 320
COLUMNS = ("image", "truth", "prediction")


def comparison(
    image: Tensor,
    truth: np.ndarray,
    predicted: np.ndarray,
    colours: np.ndarray,
    names: Sequence[str],
    to_pixels: Callable[[Tensor], np.ndarray],
) -> list[Image.Image]:
    """[image, truth, prediction], the long side about ``WIDTH`` pixels, the names written into the label maps.

    image: (3, H, W), which ``to_pixels`` turns into a picture; truth, predicted: integers (H, W), negative =
    unlabelled; colours (N, 3) uint8.
    """
    picture = Image.fromarray(to_pixels(image))
    shrunk = fit(picture, (WIDTH, WIDTH))
    factor = max(round(WIDTH / max(truth.shape)), 1)
    size = picture.size if factor > 1 else shrunk.size

    def drawn(labels: np.ndarray) -> Image.Image:
        small = Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
        return named_map(np.asarray(small), colours, names, factor)

    return [shrunk, drawn(truth), drawn(predicted)]


def extremes_sheets(extremes: Extremes, what: str) -> list[tuple[str, Image.Image]]:
    """(heading, sheet) of the best and of the worst images, made of what :func:`comparison` returns."""
    kinds = (("best", extremes.best), ("worst", extremes.worst))
    return [(f"The {len(found)} {kind} {what}", _sheet(found)) for kind, found in kinds if found]


def _sheet(found: Sequence[Scored]) -> Image.Image:
    titles = [f"{scored.name} {100 * scored.score:.1f} %" for scored in found]
    return sheet([scored.thing for scored in found], COLUMNS, titles, cell=(WIDTH, WIDTH))
