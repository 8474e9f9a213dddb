"""Pixel embeddings of many pictures: made, projected on principal components, stored, and shown as colours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from encoding_ext.embedding_store import STORES, EmbeddingStore, manifest
from encoding_ext.errors import InputError
from encoding_ext.palettes import save_picture
from encoding_ext.projection import FEWEST, PCAFit, PixelPCA
from encoding_ext.results import write_json
from encoding_ext.sources import Source
from modules.inference.pixel_embedding import target_size
from modules.prediction.journal import Record
from modules.predictor import LSegPredictor

FOLDER, PREVIEWS, BASIS, MANIFEST = "embeddings", "pca", "pca.npz", "manifest.json"
FIT_PICTURES, FIT_PIXELS = 32, 4096  # the basis is fitted on so many pictures, and on so many pixels of each


@dataclass(frozen=True)
class EmbeddingOptions:
    """store: "npy", "pt", "h5", or None for previews alone; size: "input", "half" or (height, width); variant,
    multi_scale: as in ``LSegPredictor.embed``; pca: number of components, None to keep all dimensions.
    """

    store: str | None
    size: str | tuple[int, int]
    variant: str
    multi_scale: bool
    pca: int | None

    def problems(self, dimensions: int) -> list[str]:
        """What cannot be done with embeddings of so many dimensions."""
        if self.pca is None or FEWEST <= self.pca <= dimensions:
            return []
        return [f"--pca is {self.pca}; give {FEWEST} to {dimensions}, the dimensions of this network's embeddings"]


def parse_size(text: str) -> str | tuple[int, int]:
    """"input", "half", or "480x640" as (height, width); ``InputError`` for anything else."""
    if text in ("input", "half"):
        return text
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise InputError(f"--embedding_size is {text!r}; give input, half, or HEIGHTxWIDTH such as 480x640")
    return int(found[1]), int(found[2])


def forget_basis(folder: Path) -> None:
    """Delete the basis of an earlier run: the next ``EmbeddingWriter.prepare`` fits another."""
    (folder / BASIS).unlink(missing_ok=True)


class EmbeddingWriter:
    """Writes the embedding of one picture after the other below ``folder``.

    ``about``: what the manifest says of all of them.
    """

    def __init__(
        self, predictor: LSegPredictor, options: EmbeddingOptions, folder: Path, about: dict[str, Any]
    ) -> None:
        self.predictor, self.options, self.folder, self.about = predictor, options, folder, about
        self.store: EmbeddingStore | None = STORES[options.store](folder / FOLDER) if options.store else None
        self.pca: PixelPCA | None = None

    def prepare(self, images: Iterable[Tensor], labels: Sequence[str], text: Tensor) -> None:
        """Fit the basis on ``images`` (3, H, W) and keep it, or take the one of an earlier run of this folder."""
        if self.options.pca is None:
            return
        path = self.folder / BASIS
        if not path.exists():
            fit, generator = PCAFit(), torch.Generator().manual_seed(0)
            for rgb in images:
                pixels = self._embed(rgb).flatten(0, 1)
                drawn = torch.randperm(len(pixels), generator=generator)[:FIT_PIXELS]
                fit.add(pixels[drawn.to(pixels.device)])
            fit.finish(self.options.pca).save(path, labels, text.cpu().numpy())
        self.pca = PixelPCA.load(path)

    def check_size(self, rgb: Tensor) -> None:
        """``InputError`` if the embedding of this picture (3, H, W) would not fit into memory."""
        target_size(self.options.size, *rgb.shape[1:], self.predictor.net.text_encoder.embed_dim)

    def complete(self, source: Source) -> bool:
        """Whether everything of this picture is there."""
        stored = self.store is None or self.store.has(source.name)
        return stored and (self.options.pca is None or self._preview(source).exists())

    def write(self, source: Source, rgb: Tensor) -> list[int]:
        """Make and keep the embedding of a picture (3, H, W); returns its shape."""
        embedding = self._embed(rgb)
        if self.pca is not None:
            embedding = self.pca.project(embedding)
            save_picture(self._preview(source), Image.fromarray(self.pca.colours(embedding)))
        if self.store is not None:
            self.store.add(source.name, np.ascontiguousarray(embedding.half().cpu().numpy()))
        return list(embedding.shape)

    def finish(self, records: Iterable[Record]) -> None:
        """Complete the store and write its manifest; ``records``: what the journal notes of all sources."""
        if self.store is None:
            return
        self.store.finish()
        entries = [{key: record[key] for key in ("name", "source", "shape")} for record in records if "shape" in record]
        about = {**self.about, **vars(self.options), "basis": BASIS if self.options.pca else None}
        write_json(self.folder / FOLDER / MANIFEST, manifest(self.store, entries, about))

    def _embed(self, rgb: Tensor) -> Tensor:
        options = self.options
        return self.predictor.embed(
            rgb, options.size, variant=options.variant, multi_scale=options.multi_scale, dtype=torch.float32
        )

    def _preview(self, source: Source) -> Path:
        return self.folder / PREVIEWS / f"{source.name}.png"
