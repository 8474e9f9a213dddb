"""The result of ``LSegPredictor.segment``: a mask of the image's size, and the pictures and figures made from it."""

from __future__ import annotations

import io
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoding_ext.label_colours import label_colours
from lseg_utils import pictures
from lseg_utils.errors import InputError
from lseg_utils.named_maps import overlay_with_legend, write_names
from lseg_utils.pictures import save_picture
from lseg_utils.results import write_json

from .image_tower import EmbeddedImage
from .scores import Ranking

OPACITY = 0.6
MIN_SIDE_WITH_NAMES = 256  # pixels; in smaller pictures the names would cover what they name


def area_table(pixels: Mapping[int, int], labels: Sequence[str]) -> list[dict[str, Any]]:
    """{label number: pixels} as plain data for a JSON file, the largest area first.

    Each entry has "number", "label", "pixels" and "share" (of all pixels that are counted here, 0..1).
    """
    total = max(sum(pixels.values()), 1)
    return [
        {"number": number, "label": labels[number], "pixels": count, "share": count / total}
        for number, count in sorted(pixels.items(), key=lambda item: -item[1])
    ]


@dataclass
class Segmentation:
    """A segmented image. H x W is the image's own (upright) size.

    In a notebook it shows itself as the overlay with its legend.

    image: (H, W, 3) uint8, the image as it was read.
    labels: the N labels; ``mask`` counts them from 0.
    mask: (H, W) int64, the best label of each pixel.
    confidence: (H, W) float32, 0..1, its probability: softmax over all labels of the scores (cosine / 0.07).
    """

    image: np.ndarray
    labels: list[str]
    mask: np.ndarray
    confidence: np.ndarray
    encoded: EmbeddedImage | None = None  # the image's embeddings, if they were kept
    ranker: Callable[[int], Ranking] | None = None

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return f"Segmentation(height={height}, width={width}, {len(self.labels)} labels: {reprlib.repr(self.labels)})"

    def _repr_png_(self) -> bytes:
        with io.BytesIO() as file:
            self.picture().save(file, "PNG")
            return file.getvalue()

    def show(self) -> None:
        """Open the overlay with its legend in the system's picture viewer."""
        self.picture().show()

    def scores(self, top_k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The best labels of each pixel, best first: (indices (k, H, W) int32, scores (k, H, W) float32).

        k is ``top_k``, or the number of labels if that is less. Scores are logits: cosine / 0.07, unless the network
        has a regularisation block. ``InputError`` for a result that kept no embeddings.
        """
        if top_k < 1:
            raise InputError(f"top_k must be at least 1, got {top_k}")
        if self.ranker is None:
            raise InputError("this result kept no embeddings; call segment_many(..., keep_embeddings=True)")
        best = self.ranker(min(top_k, len(self.labels)))
        return best.indices.cpu().numpy(), best.scores.cpu().numpy()

    # ----------------------------------------------------------------------------------------------------- areas

    def pixel_counts(self) -> dict[int, int]:
        """{label number: pixels} of the labels that occur, the largest area first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.labels))
        return {int(label): int(counts[label]) for label in np.argsort(-counts, kind="stable") if counts[label]}

    def present(self) -> list[int]:
        """The numbers of the labels that occur, the largest area first."""
        return list(self.pixel_counts())

    def areas(self) -> dict[str, float]:
        """Share of the image, 0..1, of every label, the largest first; they sum to 1. Equal labels count as one."""
        counts = self.pixel_counts()
        areas: dict[str, float] = {}
        for number in (*counts, *(number for number in range(len(self.labels)) if number not in counts)):
            areas[self.labels[number]] = areas.get(self.labels[number], 0.0) + counts.get(number, 0) / self.mask.size
        return areas

    def facts(self) -> dict[str, Any]:
        """Size and areas of the labels that occur (see ``area_table``) as plain data for a JSON file."""
        height, width = self.mask.shape
        return {"width": width, "height": height, "areas": area_table(self.pixel_counts(), self.labels)}

    # -------------------------------------------------------------------------------------------------- pictures

    @cached_property
    def colours(self) -> np.ndarray:
        """(N, 3) uint8: one colour per label, after what it means; see ``encoding_ext.label_colours``.

        Assign others to change all pictures of this result: ``label_colours(result.labels, "colour_blind")``.
        """
        return label_colours(self.labels)

    def overlay(self, opacity: float = OPACITY, names: bool = True) -> np.ndarray:
        """The image with the labels' colours over it, uint8 (H, W, 3); ``opacity`` 0 is the image, 1 the colours.

        names: write each label's name into its largest area, unless the image is too small for letters or opacity is 0.
        """
        mixed = pictures.overlay(self.image, self.mask, self.colours, opacity)
        if names and opacity > 0 and max(self.mask.shape) >= MIN_SIDE_WITH_NAMES:
            write_names(mixed, self.mask, self.labels, pictures.letter_size(mixed.width))
        return np.asarray(mixed)

    def legend(self, width: int | None = None) -> Image.Image:
        """A key of the colours that occur, the largest area first, in as many columns as fit into ``width`` pixels."""
        return pictures.legend(self.present(), self.labels, self.colours, width)

    def picture(self, opacity: float = OPACITY) -> Image.Image:
        """The overlay with its legend beneath it; a small image is enlarged."""
        return overlay_with_legend(self.image, self.mask, self.colours, self.labels, opacity)

    def mask_picture(self) -> Image.Image:
        """The mask in its colours; pixel value = label + 1. See ``lseg_utils.pictures.palette_picture``."""
        return pictures.palette_picture(self.mask, self.colours)

    def label_picture(self) -> Image.Image:
        """The mask in grey; pixel value = label. See ``lseg_utils.pictures.label_picture``."""
        return pictures.label_picture(self.mask, len(self.labels))

    def save(self, path: str | Path) -> list[Path]:
        """Write the result and return the files; none is ever half-written.

        A path with a picture's extension (``.png``, ``.jpg`` ...) becomes the overlay with its legend. Any other is a
        folder, created if necessary, for ``mask.png`` (palette PNG, value = label + 1), ``overlay.png``,
        ``legend.png`` and ``labels.json`` (labels and areas).
        """
        path = Path(path)
        try:
            if Image.registered_extensions().get(path.suffix.lower()) in Image.SAVE:
                save_picture(path, self.picture())
                return [path]
            files = [path / name for name in ("mask.png", "overlay.png", "legend.png", "labels.json")]
            save_picture(files[0], self.mask_picture())
            save_picture(files[1], Image.fromarray(self.overlay()))
            save_picture(files[2], self.legend())
            write_json(files[3], {"labels": self.labels, "areas": self.areas()})
            return files
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"cannot write the result to {path} ({error})") from error
