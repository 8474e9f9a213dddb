"""One network for all visitors, and what each of them has done with it.

Legend: H x W the picture, N labels, k the best of them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from modules.predictor import LSegPredictor, Segmentation

NEAREST = 5
MAX_SCORED = 640  # rows or columns of which the best labels are kept: about as fine as what the network sees
MAX_TEXTS = 5000  # whose embeddings a network that runs for weeks remembers


class Near(NamedTuple):
    """A label near a pixel. number: in the list. score: logit, cosine / 0.07. probability: softmax over all labels."""

    number: int
    label: str
    score: float
    probability: float


@dataclass(frozen=True)
class Nearest:
    """The best labels everywhere. numbers, scores: (k, h, w), best first; confidence: (h, w) of the best."""

    labels: list[str]
    numbers: np.ndarray
    scores: np.ndarray
    confidence: np.ndarray

    def at(self, y: float, x: float) -> list[Near]:
        """Those at a point, given as shares of height and width, best first."""
        row, column = pixel_at(y, x, *self.confidence.shape)
        scores = self.scores[:, row, column]
        shares = self.confidence[row, column] * np.exp(scores - scores[0])
        return [
            Near(int(number), self.labels[number], float(score), float(share))
            for number, score, share in zip(self.numbers[:, row, column], scores, shares)
        ]


class SharedPredictor:
    """A predictor that many threads may call: one at a time, so what their requests take does not add up."""

    def __init__(self, predictor: LSegPredictor) -> None:
        self._predictor = predictor
        self._lock = threading.Lock()
        self._texts: set[str] = set()
        self.labels = predictor.net.labels
        self.backbone = predictor.net.architecture["backbone"]

    def segment(self, picture: np.ndarray | Segmentation, labels: Sequence[str], mode: str = "whole") -> Segmentation:
        """``LSegPredictor.segment``; an earlier result is compared with other labels without the network running."""
        with self._lock:
            self._remember(labels)
            return self._predictor.segment(picture, labels, mode)

    def heatmap(self, picture: np.ndarray | Segmentation, query: str) -> np.ndarray:
        """Cosine of every pixel with one text: (H, W) float32."""
        with self._lock:
            self._remember([query])
            return self._predictor.heatmap(picture, query)

    def nearest(self, result: Segmentation) -> Nearest:
        """The best labels of all pixels, on a grid that is coarser than a large picture."""
        step = math.ceil(max(result.mask.shape) / MAX_SCORED)
        with self._lock:
            if step > 1:
                grid = replace(result.encoded, pixels=result.image[::step, ::step])
                result = self._predictor.segment(replace(result, encoded=grid), result.labels)
            return Nearest(result.labels, *result.scores(NEAREST), result.confidence)

    def _remember(self, texts: Sequence[str]) -> None:
        """Forget all texts when they become too many: the text tower keeps what it was ever asked."""
        self._texts.update(texts)
        if len(self._texts) > MAX_TEXTS:
            self._predictor.net.text_encoder.clear_cache()
            self._texts = set(texts)


@dataclass
class Work:
    """What one visitor has computed, so that nothing is computed twice. Lives in that visitor's session and only there.

    source: which picture, seen by which network and how; another one discards everything else. results: by ``place``.
    """

    source: Hashable = None
    results: dict[int, Segmentation] = field(default_factory=dict)
    _nearest: dict[int, Nearest] = field(default_factory=dict)  # by place
    _heat: dict[str, np.ndarray] = field(default_factory=dict)  # of the last query
    _picture: dict[Hashable, Any] = field(default_factory=dict)  # the last one

    def picture(self, source: Hashable, read: Callable[[], Any]) -> Any:
        """What ``read`` returns, called only where another picture was read last."""
        if source not in self._picture:
            self._picture = {source: read()}
        return self._picture[source]

    def segment(
        self,
        predictor: SharedPredictor,
        source: Hashable,
        picture: np.ndarray,
        labels: Sequence[str],
        mode: str = "whole",
        place: int = 0,
    ) -> Segmentation:
        """The picture under these labels; only a new picture goes through the network.

        place: 0, or 1 for a second list of labels of the same picture.
        """
        if source != self.source:
            self.source, self.results, self._nearest, self._heat = source, {}, {}, {}
        known = self.results.get(place)
        if known is None or known.labels != list(labels):
            embedded = next(iter(self.results.values()), picture)
            self.results[place] = predictor.segment(embedded, labels, mode)
            self._nearest.pop(place, None)
        return self.results[place]

    def heatmap(self, predictor: SharedPredictor, query: str) -> np.ndarray:
        """Cosines of the segmented picture with a text, (H, W)."""
        if query not in self._heat:
            self._heat = {query: predictor.heatmap(self.results[0], query)}
        return self._heat[query]

    def nearest(self, predictor: SharedPredictor, y: float, x: float, place: int = 0) -> list[Near]:
        """The labels nearest to a point of the segmented picture, given as shares of its height and width."""
        if place not in self._nearest:
            self._nearest[place] = predictor.nearest(self.results[place])
        return self._nearest[place].at(y, x)


def pixel_at(y: float, x: float, height: int, width: int) -> tuple[int, int]:
    """(row, column) under a point given as shares of a picture's height and width."""
    return min(max(int(y * height), 0), height - 1), min(max(int(x * width), 0), width - 1)
