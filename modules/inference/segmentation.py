"""The result of ``LSegPredictor.segment``: a mask of the image's size, and what people want to see of it."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from encoding_ext.palettes import palette
from lseg_utils import pictures
from lseg_utils.errors import InputError
from lseg_utils.pictures import save_palette_png, save_picture
from lseg_utils.results import write_json

from .scores import Ranking
from .views import EmbeddedImage

MOST_COLOURS = 4000  # what palette() tells apart; later labels take the first colours again
OPACITY = 0.6


def label_colours(count: int) -> np.ndarray:
    """(count, 3) uint8: ADE20K's colours first; beyond 4,000 labels they begin again."""
    return palette(min(count, MOST_COLOURS))[np.arange(count) % MOST_COLOURS]


@dataclass
class Segmentation:
    """A segmented image. H x W is the image's own (upright) size.

    image: (H, W, 3) uint8, the image as it was read.
    labels: the N labels; ``mask`` counts them from 0.
    mask: (H, W) int64, the best label of each pixel.
    confidence: (H, W) float32, 0..1, its probability: softmax over all labels of the scores (cosine / 0.07).
    """

    image: np.ndarray
    labels: list[str]
    mask: np.ndarray
    confidence: np.ndarray
    encoded: EmbeddedImage | None = None  # what the network made of the image, if kept
    ranker: Callable[[int], Ranking] | None = None

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return f"Segmentation(height={height}, width={width}, {len(self.labels)} labels: {reprlib.repr(self.labels)})"

    def scores(self, top_k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The best labels of each pixel, best first: (indices (k, H, W) int32, scores (k, H, W) float32).

        k is ``top_k``, or the number of labels if that is less. Scores are logits, cosine / 0.07 where the network has
        no regularisation block. ``InputError`` for a result that keeps no embeddings.
        """
        if top_k < 1:
            raise InputError(f"top_k is {top_k}; ask for at least 1")
        if self.ranker is None:
            raise InputError("this result kept no embeddings; ask for segment_many(..., keep_embeddings=True)")
        best = self.ranker(min(top_k, len(self.labels)))
        return best.indices.cpu().numpy(), best.scores.cpu().numpy()

    @property
    def colours(self) -> np.ndarray:
        """(N, 3) uint8: one colour a label, ADE20K's first."""
        return label_colours(len(self.labels))

    def overlay(self, opacity: float = OPACITY) -> np.ndarray:
        """The image with the labels' colours over it, uint8 (H, W, 3); ``opacity`` 0 is the image, 1 the colours."""
        return np.asarray(pictures.overlay(self.image, self.mask, self.colours, opacity))

    def present(self) -> list[int]:
        """The labels that occur, as numbers, the largest area first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.labels))
        return [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]

    def legend(self, width: int | None = None) -> Image.Image:
        """A key of the colours that occur, the largest area first; in as many columns as ``width`` pixels hold."""
        return pictures.legend(self.present(), self.labels, self.colours, width)

    def areas(self) -> dict[str, float]:
        """Share of the image, 0..1, of every label, the largest first; they sum to 1."""
        shares = np.bincount(self.mask.ravel(), minlength=len(self.labels)) / self.mask.size
        areas: dict[str, float] = {}
        for label in np.argsort(-shares, kind="stable"):
            areas[self.labels[label]] = areas.get(self.labels[label], 0.0) + float(shares[label])
        return areas

    def save(self, path: str | Path) -> list[Path]:
        """Write the result; nothing is ever half-written. Returns the files.

        A path with a picture's suffix (``.png``, ``.jpg`` ...) gets the overlay with its legend. Any other is a folder,
        made if need be, and gets ``mask.png`` (palette PNG, value = label + 1), ``overlay.png``, ``legend.png`` and
        ``labels.json`` (labels and areas).
        """
        path = Path(path)
        try:
            if Image.registered_extensions().get(path.suffix.lower()) in Image.SAVE:
                picture = pictures.overlay_with_legend(self.image, self.mask, self.colours, self.labels, OPACITY)
                save_picture(path, picture)
                return [path]
            files = [path / name for name in ("mask.png", "overlay.png", "legend.png", "labels.json")]
            save_palette_png(files[0], self.mask, self.colours)
            save_picture(files[1], Image.fromarray(self.overlay()))
            save_picture(files[2], self.legend())
            write_json(files[3], {"labels": self.labels, "areas": self.areas()})
            return files
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the result cannot be written to {path} ({error})") from error
