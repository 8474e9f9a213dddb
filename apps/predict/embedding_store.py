"""Pixel embeddings on disk: a file each (.npy, .pt), one chunked HDF5 file or a feature store; never half-written."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apps.predict.sources import FRAMES
from lseg_utils.errors import InputError
from lseg_utils.feature_store import code_type
from lseg_utils.files import write_aside

FLOAT16 = 2  # bytes
CHUNK = 32  # side of an HDF5 chunk in pixels, which contains all dimensions of its pixels


class NpyStore:
    """Arrays (H, W, C) as ``<name>.npy``, where a name may contain ``/``; ``numpy.load(file, mmap_mode="r")``."""

    suffix = ".npy"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, embedding: np.ndarray) -> None:
        """Store one float16 array; it replaces what had the name before."""
        with write_aside(self.folder / f"{name}{self.suffix}") as aside:
            self._save(aside, embedding)

    def has(self, name: str) -> bool:
        """Whether there is an array of this name, complete."""
        return (self.folder / f"{name}{self.suffix}").is_file()

    def file_of(self, name: str) -> str:
        """Where it will be at the end, relative to the store's folder, for the manifest."""
        return name + self.suffix

    def forget(self, group: str) -> None:
        """Delete ``group/...``, the frames of a video."""
        shutil.rmtree(self.folder / group, ignore_errors=True)

    def bytes_of(self, shape: Sequence[int]) -> int:
        """The size of an array (H, W, C) on disk, without headers."""
        return FLOAT16 * math.prod(shape)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Bring everything into its final form; a run that ends before can be resumed. ``about``: plain values."""

    def _save(self, path: Path, embedding: np.ndarray) -> None:
        np.save(path, embedding)


class PtStore(NpyStore):
    """Tensors as ``<name>.pt``; ``torch.load(file, mmap=True)`` reads parts."""

    suffix = ".pt"

    def _save(self, path: Path, embedding: np.ndarray) -> None:
        torch.save(torch.from_numpy(embedding), path)


class GridStore(NpyStore):
    """A feature store: ``frames/<name>.npy`` with grids that ``lseg_utils.feature_store.pack`` made.

    codes: the type of its numbers.
    """

    GRIDS = "frames"

    def __init__(self, folder: Path, codes: str) -> None:
        super().__init__(folder / self.GRIDS)
        self.codes = codes

    def has(self, name: str) -> bool:
        """Whether there is a grid of this name; a file that was cut off does not count."""
        return readable(self.folder / f"{name}{self.suffix}")

    def file_of(self, name: str) -> str:
        return f"{self.GRIDS}/{name}{self.suffix}"

    def size_of(self, name: str) -> int:
        """The size of its file in bytes."""
        return (self.folder / f"{name}{self.suffix}").stat().st_size

    def bytes_of(self, shape: Sequence[int]) -> int:
        return math.prod(shape[:2]) * code_type(self.codes, shape[2]).itemsize


class Hdf5Store(NpyStore):
    """``embeddings.h5``: for each name a float16 dataset (H, W, C); "sub/cat" is "cat" in the group "sub".

    Chunks are at most 32 x 32 pixels with all C dimensions; the file's attributes describe what it contains.

    An HDF5 file does not survive a kill while it is written, so arrays are .npy files under ``.parts`` until
    ``finish`` packs them all. Until then, everything needs twice its room. A group of frames in ``.parts`` replaces
    the one in the HDF5 file.
    """

    FILE = "embeddings.h5"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / ".parts")
        import h5py

        self._h5py = h5py
        self.path = folder / self.FILE
        self._done = folder / ".parts.done"
        shutil.rmtree(self._done, ignore_errors=True)  # left by a kill
        self._packed: set[str] = set()
        if self.path.exists():
            try:
                with self._h5py.File(self.path, "r") as file:
                    self._packed = self._names_in(file)
            except OSError as error:
                raise InputError(
                    f"{self.path} is damaged ({error}); delete it to compute its embeddings again"
                ) from error

    def has(self, name: str) -> bool:
        group = name.rpartition("/")[0]
        replaced = group.endswith(FRAMES) and (self.folder / group).is_dir()
        return super().has(name) or (name in self._packed and not replaced)

    def file_of(self, name: str) -> str:
        return f"{self.FILE}:{name}"

    def forget(self, group: str) -> None:
        super().forget(group)
        if any(name.startswith(f"{group}/") for name in self._packed):
            (self.folder / group).mkdir(parents=True)

    def bytes_of(self, shape: Sequence[int]) -> int:
        """The size in the file, whose chunks are whole, and of the part that is packed into it."""
        height, width = (-(-side // CHUNK) * CHUNK if side > CHUNK else side for side in shape[:2])
        return FLOAT16 * (height * width * shape[2] + math.prod(shape))

    def finish(self, about: Mapping[str, Any]) -> None:
        """Pack all parts into a copy of the file, which then takes its place, and delete them."""
        if not self.folder.exists():
            return
        with write_aside(self.path) as aside:
            aside.unlink(missing_ok=True)  # what a killed run left would be opened and added to
            if self.path.exists():
                shutil.copyfile(self.path, aside)
            with self._h5py.File(aside, "a") as file:
                for group in self.folder.rglob(f"*{FRAMES}"):
                    if (name := group.relative_to(self.folder).as_posix()) in file:
                        del file[name]
                for part in sorted(self.folder.rglob("[!.]*.npy")):
                    name = part.relative_to(self.folder).with_suffix("").as_posix()
                    embedding = np.load(part, mmap_mode="r")
                    chunks = (*(min(CHUNK, side) for side in embedding.shape[:2]), embedding.shape[2])
                    try:
                        if isinstance(file.get(name), self._h5py.Dataset):
                            del file[name]
                        file.create_dataset(name, data=embedding, chunks=chunks)
                    except (ValueError, TypeError) as error:
                        raise InputError(
                            f"{self.path} cannot contain {name}: an earlier run stored a picture under the name of "
                            "this one's folder, or the other way round; rename the file or folder, or choose another "
                            "--output_dir"
                        ) from error
                file.attrs.update(about)
                packed = self._names_in(file)
        self.folder.rename(self._done)  # in one step: a part of a video's frames would replace all of them
        self._packed = packed
        shutil.rmtree(self._done)

    def _names_in(self, file: Any) -> set[str]:
        names: set[str] = set()
        file.visititems(lambda name, item: names.add(name) if isinstance(item, self._h5py.Dataset) else None)
        return names


def readable(path: Path) -> bool:
    """Whether there is an array in this .npy file, complete."""
    try:
        np.load(path, mmap_mode="r")
        return True
    except (OSError, ValueError, EOFError):
        return False


STORES: dict[str, type[NpyStore]] = {"npy": NpyStore, "pt": PtStore, "h5": Hdf5Store}
