"""Principal components of pixel embeddings: fewer dimensions, and three of them as colours.

Legend: C dimensions before, K after, H x W a picture, N labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from apps.predict.options import MIN_COMPONENTS
from lseg_utils.errors import InputError
from lseg_utils.files import write_aside

KEPT_PER_BATCH = 512  # pixels whose projections determine what is black and what is full colour
OUTLIERS = 1.0  # percent of them that may lie beyond each end


@dataclass(frozen=True)
class PixelPCA:
    """A basis. Projection: ``(embedding - mean) @ components.T``.

    mean: (C,); components: (K, C) orthonormal rows, largest variance first; explained: (K,) shares of the variance;
    low, high: (3,) projections shown as black and as full colour. All float32.
    """

    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def project(self, embedding: Tensor) -> Tensor:
        """(..., C) -> (..., K), float32, on the same device."""
        mean, components = (torch.from_numpy(part).to(embedding.device) for part in (self.mean, self.components))
        return embedding.float() @ components.T - components @ mean  # without a centred copy of the embedding

    def project_text(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) -> (N, K) and (N,): a pixel's products with ``text`` are about ``projected @ first.T + second``."""
        return text @ self.components.T, text @ self.mean

    def colours(self, projected: Tensor) -> np.ndarray:
        """(H, W, K) -> uint8 (H, W, 3): the first three components as red, green and blue, on one scale for all."""
        first = projected[..., :MIN_COMPONENTS].cpu().numpy()
        scaled = (first - self.low) / np.maximum(self.high - self.low, np.finfo(np.float32).tiny)
        return (scaled.clip(0, 1) * 255).round().astype(np.uint8)

    def save(self, path: Path, labels: Sequence[str], text: np.ndarray) -> None:
        """An .npz of the fields above, and with ``text`` (N, C): text, text_components, text_offset, labels."""
        text_components, text_offset = self.project_text(text)
        with write_aside(path) as aside:
            parts = {"text": text, "text_components": text_components, "text_offset": text_offset}
            np.savez(aside, **vars(self), **parts, labels=np.array(labels, dtype=str))

    @classmethod
    def load(cls, path: Path) -> PixelPCA:
        """Read what ``save`` wrote; ``InputError`` for another file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(**{name: file[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(
                f"{path} contains no basis of this script ({error}); choose another --output_dir, or do everything "
                "again with --overwrite (embeddings of one basis do not fit another)"
            ) from error


class PCAFit:
    """The sums over pixels that determine the basis; memory does not grow with the number of pixels."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | float = 0.0
        self._products: Tensor | float = 0.0
        self._kept: list[Tensor] = []

    def add(self, pixels: Tensor) -> None:
        """Add pixels (M, C), drawn at random from a picture."""
        pixels = pixels.cpu().double()
        self._count += len(pixels)
        self._sum = self._sum + pixels.sum(0)
        self._products = self._products + pixels.T @ pixels
        self._kept.append(pixels[:KEPT_PER_BATCH].float())

    def finish(self, dimensions: int, text: Tensor | None = None) -> PixelPCA:
        """The basis of ``dimensions`` >= 3 components; ``InputError`` if too few pixels were added for so many.

        text: (N, C); with two or more, the basis keeps the directions in which texts differ too, and these count as
        much as those in which pixels differ. Few components then change fewer labels, also labels not among the texts.
        """
        if self._count <= dimensions:
            raise InputError(
                f"{dimensions} components cannot be fitted to {self._count} pixels; give more or larger pictures, "
                "or fewer components"
            )
        mean = self._sum / self._count
        covariance = kept = self._products / self._count - torch.outer(mean, mean)
        total = covariance.trace().clamp(min=1e-12)
        if text is not None and len(text) > 1:
            spread = text.cpu().double() - text.cpu().double().mean(0)
            kept = covariance / total + spread.T @ spread / spread.square().sum().clamp(min=1e-12)
        _, vectors = torch.linalg.eigh(kept)  # ascending
        components = vectors.flip(1)[:, :dimensions].T
        # The sign of a component is arbitrary: its largest part is positive, so that equal pictures get equal colours.
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        components = components * largest.sign()
        share = ((components @ covariance) * components).sum(1).clamp(min=0) / total
        shown = (torch.cat(self._kept) - mean.float()) @ components[:MIN_COMPONENTS].float().T
        low, high = np.percentile(shown.numpy(), (OUTLIERS, 100 - OUTLIERS), axis=0)
        parts = (mean.numpy(), components.numpy(), share.numpy(), low, high)
        return PixelPCA(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))
