"""The best and the worst images of a test: image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from lseg_utils.named_maps import named_map
from lseg_utils.pictures import fit, sheet

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


class Scored(NamedTuple):
    """An item with its score and a unique name."""

    score: float
    name: str
    thing: Any


class Extremes:
    """Keeps the ``count`` best and the ``count`` worst of what is added; equal scores are ordered by name."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.best: list[Scored] = []
        self.worst: list[Scored] = []

    def add(self, score: float, name: str, make: Callable[[], Any]) -> None:
        """Add an item; ``make`` is only called if the item is kept."""
        place = Scored(score, name, None)
        if any(place in kept for kept in self._ordered([place])):
            self._keep([Scored(score, name, make())])

    def gather(self) -> Extremes:
        """Make them the extremes of all processes together (every process has to call it); returns self."""
        if dist.is_available() and dist.is_initialized():
            everyones: list[list[Scored]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(everyones, self.best + self.worst)
            self._keep(scored for kept in everyones for scored in kept)
        return self

    def map(self, function: Callable[[Any], Any]) -> Extremes:
        """The same names and scores, with ``function`` applied to each item."""
        mapped = Extremes(self.count)
        mapped._keep(scored._replace(thing=function(scored.thing)) for scored in {*self.best, *self.worst})
        return mapped

    def _keep(self, new: Iterable[Scored]) -> None:
        self.best, self.worst = self._ordered(new)

    def _ordered(self, new: Iterable[Scored]) -> tuple[list[Scored], list[Scored]]:
        """What would be kept after adding ``new``."""
        by_name = {scored.name: scored for scored in [*self.best, *self.worst, *new]}.values()
        best = sorted(by_name, key=lambda scored: (-scored.score, scored.name))
        worst = sorted(by_name, key=lambda scored: (scored.score, scored.name))
        return best[: self.count], worst[: self.count]


def extremes_sheets(extremes: Extremes, what: str) -> list[tuple[str, Image.Image]]:
    """(heading, sheet) of the best and of the worst images, made of what :func:`comparison` returns."""
    sheets = []
    for kind, found in (("best", extremes.best), ("worst", extremes.worst)):
        if found:
            titles = [f"{scored.name} {100 * scored.score:.1f} %" for scored in found]
            picture = sheet([scored.thing for scored in found], COLUMNS, titles, cell=(WIDTH, WIDTH))
            sheets.append((f"The {len(found)} {kind} {what}", picture))
    return sheets
