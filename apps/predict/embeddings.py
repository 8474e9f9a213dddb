"""Pixel embeddings of pictures and frames: computed, projected on principal components, stored, shown as colours."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from apps.predict.embedding_store import STORES, GridStore, NpyStore, readable
from apps.predict.journal import Record
from apps.predict.options import EmbeddingOptions
from apps.predict.projection import PCAFit, PixelPCA
from apps.predict.sources import FRAMES, Source
from lseg_utils.errors import InputError
from lseg_utils.feature_store import BASIS, GRID, MANIFEST, TEXT, VERSION, pack
from lseg_utils.files import write_aside
from lseg_utils.pictures import save_picture
from lseg_utils.results import write_json
from modules.choices import CALLERS
from modules.inference.callers import result_size, seen_sizes
from modules.inference.pixel_embedding import finite_in, looks, target_size
from modules.predictor import LSegPredictor

FOLDER, PREVIEWS = "embeddings", "pca"
FIT_PICTURES, FIT_PIXELS = 32, 4096  # the basis is fitted on up to this many pictures and frames, and pixels of each


class EmbeddingWriter:
    """Writes the embeddings of pictures and frames below ``folder``; ``InputError`` for a damaged HDF5 file.

    predictor: makes them; None where all are finished. about: facts about the network for the manifest; "labels" among
    them, in the order of the text vectors.
    """

    def __init__(
        self, predictor: LSegPredictor | None, options: EmbeddingOptions, folder: Path, about: Mapping[str, Any]
    ) -> None:
        self.predictor, self.options, self.folder = predictor, options, folder
        self.about = {**about, **vars(options), "basis": BASIS if options.pca else None}
        self.is_grid = options.store == "store"  # the network's own grid, packed
        self.place = folder / FOLDER if self.is_grid else folder  # of the text vectors and the basis
        if self.is_grid:
            kept = {name: self.about[name] for name in (*about, "basis", "codes", "long_side", "pca")}
            self.about = {"store_version": VERSION, **kept}
            self.store: NpyStore | None = GridStore(folder / FOLDER, options.codes)
        else:
            self.store = STORES[options.store](folder / FOLDER) if options.store else None
        self.pca: PixelPCA | None = None

    def prepare(self, images: Iterable[Tensor | np.ndarray], labels: Sequence[str], text: Tensor) -> None:
        """Write the label embeddings ``text`` (N, C) as text.npy, and fit the basis on ``images``.

        The basis of an earlier run in this folder is used again. If it is lost, what was projected on it is of no use:
        a feature store is made again as a whole.

        Raises:
            InputError: embeddings in other files whose basis is lost.
        """
        if len(text):
            with write_aside(self.place / TEXT) as aside:
                np.save(aside, text.cpu().numpy())
        if self.options.pca is None:
            return
        path = self.place / BASIS
        if not self._basis_is_there() and any((self.folder / FOLDER).rglob("*.*")):
            self._forget_projected(path)
        if not path.exists():
            fit, generator = PCAFit(), torch.Generator().manual_seed(0)
            for image in images:
                try:
                    pixels = self._embed(image).flatten(0, 1)  # (H * W, C)
                except InputError:
                    continue  # too large, which is reported when its turn comes
                drawn = torch.randperm(len(pixels), generator=generator)[:FIT_PIXELS]
                fit.add(pixels[drawn.to(pixels.device)])
            fit.finish(self.options.pca, text if self.is_grid else None).save(path, labels, text.cpu().numpy())
        self.pca = PixelPCA.load(path)
        print(f"{self.options.pca} principal components keep {self.pca.explained.sum():.1%} of the variance")

    def _basis_is_there(self) -> bool:
        """Whether the basis can be read; a file of something else is left to ``PixelPCA.load``, which refuses it."""
        path = self.place / BASIS
        try:
            with zipfile.ZipFile(path) as file:
                return file.testzip() is None
        except FileNotFoundError:
            return False
        except (OSError, zipfile.BadZipFile):
            return not self.is_grid

    def _forget_projected(self, path: Path) -> None:
        """Delete embeddings and previews whose basis at ``path`` is lost."""
        frames = self.folder / FOLDER / GridStore.GRIDS
        if not self.is_grid:
            raise InputError(
                f"{path} is missing, and the embeddings in {self.folder / FOLDER} were projected with it; put it back, "
                "or do everything again with --overwrite"
            )
        if frames.exists():
            lost = f"note: {path} is missing or damaged, and the embeddings were projected with it"
            print(f"{lost}; making all of them again")
        for folder in (frames, self.folder / PREVIEWS):
            shutil.rmtree(folder, ignore_errors=True)
        path.unlink(missing_ok=True)

    def shape(self, height: int, width: int) -> list[int]:
        """(H, W, C) of the embedding of a picture of this size; ``InputError`` if it would not fit into memory."""
        dimensions, size = self.predictor.net.text_encoder.embed_dim, self.options.size
        if self.is_grid:
            ((rows, columns, _),) = looks(height, width, self.predictor.base_size, self.options.long_side)
            size = rows // GRID, columns // GRID
        if self.options.variant in CALLERS:
            size = result_size(self.options.variant, height, width, self.predictor.base_size)
            for rows, columns in seen_sizes(self.options.variant, height, width, self.predictor.crop_size):
                self.predictor.check_look(rows, columns)
        return [*target_size(size, height, width, dimensions), self.options.pca or dimensions]

    def facts(self, height: int, width: int) -> dict[str, Any]:
        """For the manifest: the shape of a picture's array in the file, its own size, the sizes that were seen."""
        asked, base = self.options, self.predictor.base_size
        if asked.variant in CALLERS:
            seen = seen_sizes(asked.variant, height, width, self.predictor.crop_size)
        else:
            views = looks(height, width, base, asked.long_side, asked.multi_scale, asked.variant)
            seen = list(dict.fromkeys((rows, columns) for rows, columns, _ in views))
        rows, columns, dimensions = self.shape(height, width)
        shape = [dimensions, rows, columns] if asked.layout == "chw" else [rows, columns, dimensions]
        return {"shape": shape, "picture": [height, width], "seen": [list(size) for size in seen]}

    def has(self, name: str) -> bool:
        """Whether everything of this name is there."""
        stored = self.store is None or self.store.has(name + self.options.suffix)
        return stored and (self.options.pca is None or self._preview(name).exists())

    def complete(self, record: Record) -> bool:
        """Whether everything is there that a record of the journal lists."""
        if self.is_grid and self.about["labels"] and not readable(self.place / TEXT):
            return False
        if self.is_grid and self.options.pca is not None and not self._basis_is_there():
            return False
        return all(self.has(entry["name"]) for entry in entries(record))

    def write(self, name: str, image: Tensor | np.ndarray) -> None:
        """Write the embedding of a picture (3, H, W) or frame (H, W, 3)."""
        embedding = self._embed(image)
        if self.pca is not None:
            embedding = self.pca.project(embedding)
            save_picture(self._preview(name), Image.fromarray(self.pca.colours(embedding)))
        if self.is_grid:
            try:
                self.store.add(name, pack(np.ascontiguousarray(embedding.cpu().numpy()), self.options.codes))
            except ValueError as error:
                raise InputError(f"{name}: {error}") from error
        elif self.store is not None:
            embedding = embedding.permute(2, 0, 1) if self.options.layout == "chw" else embedding
            self.store.add(
                name + self.options.suffix, np.ascontiguousarray(finite_in(embedding, torch.float16).cpu().numpy())
            )

    def forget_frames(self, source: Source) -> None:
        """Delete the embeddings of a video's frames."""
        if self.store is not None:
            self.store.forget(source.name + FRAMES)
        shutil.rmtree(self.folder / PREVIEWS / (source.name + FRAMES), ignore_errors=True)

    def finish(self, records: Iterable[Record]) -> None:
        """Complete the store and write its manifest; ``records``: those of all sources, from the journal."""
        if self.store is None:
            return
        plain = {key: value if isinstance(value, int | str) else json.dumps(value) for key, value in self.about.items()}
        self.store.finish(plain)
        listed = [
            {**entry, **self._file(entry["name"])}
            for record in records
            for entry in entries(record)
            if self.store.has(entry["name"] + self.options.suffix)
        ]
        files = {}
        if self.is_grid:
            sizes = {name: self.place / name for name in (TEXT, BASIS) if (self.place / name).exists()}
            files["files"] = {name: path.stat().st_size for name, path in sizes.items()}
        write_json(self.folder / FOLDER / MANIFEST, {**self.about, **files, "embeddings": listed})

    def _file(self, name: str) -> dict[str, Any]:
        """What the manifest tells of the file of an embedding."""
        if isinstance(self.store, GridStore):
            return {"file": self.store.file_of(name), "bytes": self.store.size_of(name)}
        return {"file": self.store.file_of(name + self.options.suffix), "dtype": "float16"}

    def _preview(self, name: str) -> Path:
        return self.folder / PREVIEWS / f"{name}.png"

    def _embed(self, image: Tensor | np.ndarray) -> Tensor:
        if self.is_grid:
            return self.predictor.grid(image, self.options.long_side)
        if self.options.variant in CALLERS:
            return self.predictor.embed(image, variant=self.options.variant, mode="protocol")
        chosen = {name: getattr(self.options, name) for name in ("size", "variant", "multi_scale", "long_side")}
        return self.predictor.embed(image, **chosen)


def forget_embeddings(folder: Path) -> None:
    """Delete the embeddings of an earlier run and their basis: the next ``EmbeddingWriter.prepare`` fits another."""
    for name in (FOLDER, PREVIEWS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (BASIS, TEXT):
        (folder / name).unlink(missing_ok=True)


def entries(record: Record) -> Iterator[dict[str, Any]]:
    """The manifest's entries for a source: name, source, facts of ``EmbeddingWriter.facts``, number of the frame."""
    if "shape" not in record:
        return
    about = {key: record[key] for key in ("source", "shape", "picture", "seen")}
    if "frames" not in record:
        yield {"name": record["name"], **about}
    else:
        for number in range(record["frames"]):
            yield {"name": f"{record['name']}{FRAMES}/{number:06d}", **about, "frame": number}
