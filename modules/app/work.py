"""One network for all visitors, and what each of them has done with it.

Legend: H x W the picture, N labels, k the best of them.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modules.predictor import LSegPredictor, Segmentation

NEAREST = 5
MOST_TEXTS = 5000  # whose embeddings a network that runs for weeks remembers


class Near(NamedTuple):
    """A label near a pixel. number: in the list. score: logit, cosine / 0.07. probability: softmax over all labels."""

    number: int
    label: str
    score: float
    probability: float


class SharedPredictor:
    """A predictor that many threads may call: one at a time, so memory does not grow with the number of visitors."""

    def __init__(self, predictor: LSegPredictor) -> None:
        self._predictor = predictor
        self._lock = threading.Lock()
        self._texts: set[str] = set()
        self.labels = predictor.net.labels
        self.backbone = predictor.net.architecture["backbone"]

    @classmethod
    def load(cls, checkpoint: Path, device: str) -> SharedPredictor:
        """From an official or own file; ``InputError`` for one that cannot be used."""
        return cls(LSegPredictor.from_checkpoint(checkpoint, device=device))

    def segment(self, picture: np.ndarray | Segmentation, labels: Sequence[str]) -> Segmentation:
        """``LSegPredictor.segment``; an earlier result is compared with other labels without the network running."""
        with self._lock:
            self._remember(labels)
            return self._predictor.segment(picture, labels)

    def heatmap(self, picture: np.ndarray | Segmentation, query: str) -> np.ndarray:
        """Cosine of every pixel with one text: (H, W) float32."""
        with self._lock:
            self._remember([query])
            return self._predictor.heatmap(picture, query)

    def scores(self, result: Segmentation) -> tuple[np.ndarray, np.ndarray]:
        """The best labels of every pixel: (k, H, W) numbers and scores."""
        with self._lock:
            return result.scores(NEAREST)

    def _remember(self, texts: Sequence[str]) -> None:
        """Forget all texts when they become too many: the text tower keeps what it was ever asked."""
        self._texts.update(texts)
        if len(self._texts) > MOST_TEXTS:
            self._predictor.net.text_encoder.clear_cache()
            self._texts = set(texts)


@dataclass
class Work:
    """What one visitor has computed, so that nothing is computed twice. Lives in that visitor's session and only there.

    source: which picture, seen by which network; another one discards everything else.
    """

    source: Hashable = None
    result: Segmentation | None = None
    _scores: tuple[np.ndarray, np.ndarray] | None = None
    _heat: dict[str, np.ndarray] = field(default_factory=dict)

    def segment(
        self, predictor: SharedPredictor, source: Hashable, picture: np.ndarray, labels: Sequence[str]
    ) -> Segmentation:
        """The picture under these labels; only a new picture goes through the network."""
        if source != self.source:
            self.source, self.result, self._scores, self._heat = source, None, None, {}
        if self.result is None or self.result.labels != list(labels):
            self.result = predictor.segment(picture if self.result is None else self.result, labels)
            self._scores = None
        return self.result

    def heatmap(self, predictor: SharedPredictor, query: str) -> np.ndarray:
        """Cosines of the segmented picture with a text, (H, W); the last one is kept."""
        if query not in self._heat:
            self._heat = {query: predictor.heatmap(self.result, query)}
        return self._heat[query]

    def nearest(self, predictor: SharedPredictor, row: int, column: int) -> list[Near]:
        """The labels nearest to a pixel of the segmented picture, best first."""
        if self._scores is None:
            self._scores = predictor.scores(self.result)
        numbers, scores = (part[:, row, column] for part in self._scores)
        shares = self.result.confidence[row, column] * np.exp(scores - scores[0])
        return [
            Near(int(number), self.result.labels[number], float(score), float(share))
            for number, score, share in zip(numbers, scores, shares)
        ]


def pixel_at(fractions: tuple[float, float], height: int, width: int) -> tuple[int, int]:
    """(row, column) under a point given as shares (x, y) of a picture's width and height."""
    x, y = fractions
    return min(max(int(y * height), 0), height - 1), min(max(int(x * width), 0), width - 1)
