"""Pixel embeddings of pictures and frames: made, projected on principal components, stored, shown as colours."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from apps.predict.embedding_store import STORES, EmbeddingStore, manifest
from apps.predict.journal import Record
from apps.predict.outputs import frame_name
from apps.predict.projection import FEWEST, PCAFit, PixelPCA
from lseg_utils.errors import InputError
from lseg_utils.files import replace_folder
from lseg_utils.pictures import save_picture
from lseg_utils.results import write_json
from modules.inference.pixel_embedding import looks, target_size
from modules.predictor import LSegPredictor

FOLDER, PREVIEWS, BASIS, MANIFEST = "embeddings", "pca", "pca.npz", "manifest.json"
FIT_PICTURES, FIT_PIXELS = 32, 4096  # the basis is fitted on so many pictures and frames, and so many pixels of each


@dataclass(frozen=True)
class EmbeddingOptions:
    """store: "npy", "pt", "h5", or None for previews alone; size: "input", "half" or (height, width); variant,
    multi_scale, long_side: as in ``LSegPredictor.embed``; pca: number of components, None to keep all dimensions.
    """

    store: str | None
    size: str | tuple[int, int]
    variant: str
    multi_scale: bool
    pca: int | None
    long_side: int | None = None

    def problems(self, dimensions: int) -> list[str]:
        """What cannot be done with embeddings of so many dimensions."""
        if self.pca is None or FEWEST <= self.pca <= dimensions:
            return []
        return [f"--pca is {self.pca}; give {FEWEST} to {dimensions}, the dimensions of this network's embeddings"]


def parse_size(text: str) -> str | tuple[int, int]:
    """ "input", "half", or "480x640" as (height, width); ``InputError`` for anything else."""
    if text in ("input", "half"):
        return text
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise InputError(f"--embedding_size is {text!r}; give input, half, or HEIGHTxWIDTH such as 480x640")
    return int(found[1]), int(found[2])


def forget_embeddings(folder: Path) -> None:
    """Delete those of an earlier run and their basis: the next ``EmbeddingWriter.prepare`` fits another."""
    for name in (FOLDER, PREVIEWS):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / BASIS).unlink(missing_ok=True)


@dataclass(frozen=True)
class Place:
    """Where embeddings are kept under their names: in a store, as pictures in a folder, or both.

    A video's are kept in a place of their own until all are there, and ``adopt`` takes them over in one step.
    """

    store: EmbeddingStore | None
    previews: Path | None

    def has(self, name: str) -> bool:
        """Whether everything of this name is there."""
        stored = self.store is None or self.store.has(name)
        return stored and (self.previews is None or self._preview(name).exists())

    def add(self, name: str, embedding: Tensor, pca: PixelPCA | None) -> None:
        """Keep an embedding (H, W, C); ``pca`` gives its colours."""
        if self.previews is not None:
            save_picture(self._preview(name), Image.fromarray(pca.colours(embedding)))
        if self.store is not None:
            self.store.add(name, np.ascontiguousarray(embedding.half().cpu().numpy()))

    def members_of(self, group: str, folder: Path) -> Place:
        """A place below ``folder`` for what will be ``group/name`` here; ``InputError`` if that cannot be."""
        store = self.store and self.store.members_of(group, folder / FOLDER)
        return Place(store, self.previews and folder / PREVIEWS)

    def adopt(self, group: str, folder: Path) -> None:
        """Take over what ``members_of`` kept below ``folder``, instead of what ``group`` was before."""
        if self.store is not None:
            self.store.adopt(group, folder / FOLDER)
        if self.previews is not None:
            replace_folder(folder / PREVIEWS, self.previews / group)

    def _preview(self, name: str) -> Path:
        return self.previews / f"{name}.png"


class EmbeddingWriter:
    """Writes the embedding of one picture or frame after the other below ``folder``.

    ``about``: what the manifest says of all of them.
    """

    def __init__(
        self, predictor: LSegPredictor, options: EmbeddingOptions, folder: Path, about: dict[str, Any]
    ) -> None:
        self.predictor, self.options, self.folder, self.about = predictor, options, folder, about
        store = STORES[options.store](folder / FOLDER) if options.store else None
        self.place = Place(store, folder / PREVIEWS if options.pca else None)
        self.pca: PixelPCA | None = None

    def prepare(self, images: Iterable[Tensor | np.ndarray], labels: Sequence[str], text: Tensor) -> None:
        """Fit the basis on ``images`` and keep it, or take the one of an earlier run of this folder."""
        if self.options.pca is None:
            return
        path = self.folder / BASIS
        if not path.exists():
            fit, generator = PCAFit(), torch.Generator().manual_seed(0)
            for image in images:
                try:
                    pixels = self._embed(image).flatten(0, 1)
                except InputError:
                    continue  # too large: named when its turn comes
                drawn = torch.randperm(len(pixels), generator=generator)[:FIT_PIXELS]
                fit.add(pixels[drawn.to(pixels.device)])
            fit.finish(self.options.pca).save(path, labels, text.cpu().numpy())
        self.pca = PixelPCA.load(path)
        print(f"{self.options.pca} principal components keep {self.pca.explained.sum():.1%} of the variance")

    def shape(self, height: int, width: int) -> list[int]:
        """Of the embedding of a picture of this size; ``InputError`` if it would not fit into memory."""
        dimensions = self.predictor.net.text_encoder.embed_dim
        return [*target_size(self.options.size, height, width, dimensions), self.options.pca or dimensions]

    def facts(self, height: int, width: int) -> dict[str, Any]:
        """What the journal notes of a picture's embedding: its shape, and the sizes at which the network looked."""
        options = self.options
        base = self.predictor.base_size
        seen = looks(height, width, base, options.long_side, options.multi_scale, options.variant)
        sizes = dict.fromkeys((height, width) for height, width, _ in seen)
        return {"shape": self.shape(height, width), "seen": [list(size) for size in sizes]}

    def bytes_of(self, height: int, width: int) -> int:
        """What the embedding of a picture of this size takes in the store."""
        return self.place.store.bytes_of(self.shape(height, width))

    def complete(self, record: Record) -> bool:
        """Whether everything is there that the journal notes of a source."""
        return all(self.place.has(entry["name"]) for entry in entries(record))

    def write(self, name: str, image: Tensor | np.ndarray, place: Place | None = None) -> None:
        """Make the embedding of a picture and keep it, in ``place`` if it is a video's frame."""
        embedding = self._embed(image)
        if self.pca is not None:
            embedding = self.pca.project(embedding)
        (place or self.place).add(name, embedding, self.pca)

    def finish(self, records: Iterable[Record]) -> None:
        """Complete the store and write its manifest; ``records``: what the journal notes of all sources."""
        store = self.place.store
        if store is None:
            return
        store.finish()
        about = {**self.about, **vars(self.options), "basis": BASIS if self.options.pca else None}
        found = (entry for record in records for entry in entries(record))
        write_json(self.folder / FOLDER / MANIFEST, manifest(store, found, about))

    def _embed(self, image: Tensor | np.ndarray) -> Tensor:
        options = self.options
        return self.predictor.embed(
            image,
            options.size,
            variant=options.variant,
            multi_scale=options.multi_scale,
            long_side=options.long_side,
            dtype=torch.float32,
        )


def entries(record: Record) -> Iterator[dict[str, Any]]:
    """What the manifest says of the embeddings of a source: name, source, shape, sizes seen, and a video's frame."""
    if "shape" not in record:
        return
    about = {key: record[key] for key in ("source", "shape", "seen")}
    if "frames" not in record:
        yield {"name": record["name"], **about}
    else:
        for number in range(record["frames"]):
            yield {"name": f"{record['name']}/{frame_name(number)}", **about, "frame": number}
