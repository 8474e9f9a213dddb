"""Pixel embeddings on disk: a file for each (.npy, .pt), or one chunked HDF5 file; float16, never half-written."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch

from lseg_utils.errors import InputError
from lseg_utils.files import replace_folder, write_aside

FLOAT16 = 2  # bytes
CHUNK = 32  # side of an HDF5 chunk in pixels; all dimensions of a pixel lie together


class EmbeddingStore(Protocol):
    """Keeps arrays (H, W, C) under names that may contain ``/``."""

    def add(self, name: str, embedding: np.ndarray) -> None:
        """Keep one array, float16; it replaces what had the name before."""

    def has(self, name: str) -> bool:
        """Whether there is one of this name, complete."""

    def file_of(self, name: str) -> str:
        """Where it is, relative to the store's folder, for the manifest."""

    def members_of(self, group: str, folder: Path) -> EmbeddingStore:
        """A store in ``folder``, for arrays that ``adopt`` takes over together as ``group/name`` when all are there."""

    def adopt(self, group: str, folder: Path) -> None:
        """Move what ``members_of`` stored in ``folder`` to ``group``; it replaces all that was there before."""

    def bytes_of(self, shape: Sequence[int]) -> int:
        """What an array (H, W, C) takes on the disk, headers not counted."""

    def finish(self) -> None:
        """Bring everything into its final form; a run that ended before this can be taken up again."""


class _FilePerArray:
    suffix: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        return (self.folder / self.file_of(name)).is_file()

    def file_of(self, name: str) -> str:
        return name + self.suffix

    def members_of(self, group: str, folder: Path) -> EmbeddingStore:
        return type(self)(folder)

    def adopt(self, group: str, folder: Path) -> None:
        replace_folder(folder, self.folder / group)

    def bytes_of(self, shape: Sequence[int]) -> int:
        return FLOAT16 * math.prod(shape)

    def finish(self) -> None:
        """Nothing is left to do."""


class NpyStore(_FilePerArray):
    """``<name>.npy``; ``numpy.load(file, mmap_mode="r")`` reads parts."""

    suffix = ".npy"

    def add(self, name: str, embedding: np.ndarray) -> None:
        with write_aside(self.folder / self.file_of(name)) as aside:
            np.save(aside, embedding)


class PtStore(_FilePerArray):
    """``<name>.pt``, a tensor; ``torch.load(file, mmap=True)`` reads parts."""

    suffix = ".pt"

    def add(self, name: str, embedding: np.ndarray) -> None:
        with write_aside(self.folder / self.file_of(name)) as aside:
            torch.save(torch.from_numpy(embedding), aside)


class Hdf5Store:
    """``embeddings.h5``: for each name a dataset, float16 (H, W, C); "sub/cat" is "cat" in the group "sub".

    Chunks are at most 32 x 32 pixels with all C dimensions. There are no attributes: what the numbers are is said in
    manifest.json, in which the file of an embedding is "embeddings.h5:NAME".

    An HDF5 file does not survive a kill while it is written. So each array is first a file of its own under
    ``.parts``; ``finish`` puts them into a copy of the HDF5 file, which then takes its place. Meanwhile there must be
    room for everything twice. A name is a dataset or a group of others, never both: ``add`` refuses "cat/x" beside
    "cat" with ``InputError``.
    """

    FILE = "embeddings.h5"

    def __init__(self, folder: Path) -> None:
        self._h5py = _import_h5py()
        self.path = folder / self.FILE
        self._parts = NpyStore(folder / ".parts")
        self._names: set[str] = set()
        self._example_in: dict[str, str] = {}  # group -> one of the names in it
        for name in self._names_in_file() | {self._name_of(part) for part in self._part_files()}:
            self._note(name)

    def add(self, name: str, embedding: np.ndarray) -> None:
        self._refuse_nested(name)
        self._parts.add(name, embedding)
        self._note(name)

    def has(self, name: str) -> bool:
        return name in self._names

    def file_of(self, name: str) -> str:
        return f"{self.FILE}:{name}"

    def members_of(self, group: str, folder: Path) -> EmbeddingStore:
        self._refuse_nested(f"{group}/...")
        return NpyStore(folder)

    def adopt(self, group: str, folder: Path) -> None:
        self._forget(group)
        replace_folder(folder, self._parts.folder / group)
        for part in (self._parts.folder / group).glob("[!.]*.npy"):
            self._note(self._name_of(part))

    def bytes_of(self, shape: Sequence[int]) -> int:
        """Chunks are whole, and meanwhile everything is there twice."""
        height, width = (-(-side // CHUNK) * CHUNK if side > CHUNK else side for side in shape[:2])
        return FLOAT16 * (height * width * shape[2] + math.prod(shape))

    def finish(self) -> None:
        """Put everything added since into the one file, written aside and renamed."""
        parts = self._part_files()
        if not parts:
            return
        with self._changed_file() as file:
            for part in parts:
                self._pack(file, part)
        shutil.rmtree(self._parts.folder)

    @contextmanager
    def _changed_file(self) -> Iterator[Any]:
        """A copy of the HDF5 file to write to, which takes its place afterwards."""
        with write_aside(self.path) as aside:
            aside.unlink(missing_ok=True)  # what a killed run left would be opened and added to
            if self.path.exists():
                shutil.copyfile(self.path, aside)
            with self._h5py.File(aside, "a") as file:
                yield file

    def _forget(self, group: str) -> None:
        """Delete a group from the HDF5 file, at once: what is only remembered would not survive a kill."""
        members = {name for name in self._names if group in groups_of(name)}
        if members & self._names_in_file():
            with self._changed_file() as file:
                del file[group]
        self._names -= members

    def _note(self, name: str) -> None:
        self._names.add(name)
        self._example_in.update(dict.fromkeys(groups_of(name), name))

    def _refuse_nested(self, name: str) -> None:
        """Nothing is written yet, so a run without this one can still finish."""
        around = [group for group in groups_of(name) if group in self._names]
        if other := around[0] if around else self._example_in.get(name):
            raise InputError(
                f"{self.path} has an embedding named {other} and cannot hold one named {name} too, since one would lie "
                "inside the other; rename that input or its folder, or name another output folder"
            )

    def _part_files(self) -> list[Path]:
        return sorted(self._parts.folder.rglob("[!.]*.npy"))

    def _name_of(self, part: Path) -> str:
        return part.relative_to(self._parts.folder).with_suffix("").as_posix()

    def _pack(self, file: Any, part: Path) -> None:
        name = self._name_of(part)
        embedding = np.load(part, mmap_mode="r")
        if name in file:
            del file[name]
        height, width, channels = embedding.shape
        file.create_dataset(name, data=embedding, chunks=(min(CHUNK, height), min(CHUNK, width), channels))

    def _names_in_file(self) -> set[str]:
        if not self.path.exists():
            return set()
        names: set[str] = set()
        try:
            with self._h5py.File(self.path, "r") as file:
                file.visititems(lambda name, item: names.add(name) if isinstance(item, self._h5py.Dataset) else None)
        except OSError as error:
            raise InputError(f"{self.path} is damaged ({error}); delete it, and what it held is done again") from error
        return names


def groups_of(name: str) -> list[str]:
    """The groups that a dataset lies in: "a" and "a/b" of "a/b/c"."""
    return [str(parent) for parent in PurePosixPath(name).parents][:-1]


def _import_h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise InputError("HDF5 files need h5py: pip install h5py (or store the embeddings as npy or pt)") from error
    return h5py


STORES: dict[str, type] = {"npy": NpyStore, "pt": PtStore, "h5": Hdf5Store}


def manifest(store: EmbeddingStore, entries: Iterable[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """The content of manifest.json: ``about`` all, and of each its name, file, dtype and what ``entries`` say.

    Each entry has a "name"; those that the store does not have are left out.
    """
    kept = [entry for entry in entries if store.has(entry["name"])]
    files = [{**entry, "file": store.file_of(entry["name"]), "dtype": "float16"} for entry in kept]
    return {**about, "embeddings": files}
