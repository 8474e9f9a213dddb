"""Pixel embeddings of many pictures in one folder, as ``predict_lseg.py --embeddings store`` writes them.

Needs numpy alone and nothing else of this repository, so a project may copy this file. A store contains the decoder's
own grid, a quarter of the size at which the network looked: the network's x2 is interpolation, done here when reading.

Legend: H x W the picture; h x w the grid; C embedding dimensions; K stored dimensions (C, or fewer with ``--pca``);
N texts; M points.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1
GRID = 4  # pixels that the network saw, for each cell of the grid
CODES = ("int8", "float16")
MANIFEST, TEXT, BASIS = "manifest.json", "text.npy", "pca.npz"
TINY = 1e-12  # a squared length below it counts as zero: the vector becomes zeros, not NaN
POINTS = 4096  # points that are sampled together


def code_type(codes: str, dimensions: int) -> np.dtype:
    """What a cell of the grid is in the file: float16 numbers, or a scale and the int8 numbers that it multiplies."""
    if codes == "float16":
        return np.dtype(("<f2", (dimensions,)))
    return np.dtype([("scale", "<f4"), ("codes", "i1", (dimensions,))])


def pack(grid: np.ndarray, codes: str) -> np.ndarray:
    """float32 (h, w, K) -> what the file contains; ``ValueError`` for numbers that float16 does not have."""
    if codes == "float16":
        with np.errstate(over="ignore"):
            packed = grid.astype("<f2")
        if not np.isfinite(packed).all():
            raise ValueError("an embedding does not fit into float16; store int8 codes, which have a scale each")
        return packed
    packed = np.empty(grid.shape[:2], code_type(codes, grid.shape[2]))
    packed["scale"] = np.abs(grid).max(-1) / 127
    packed["codes"] = np.rint(grid / np.maximum(packed["scale"], np.finfo(np.float32).tiny)[..., None])
    return packed


def unpack(packed: np.ndarray) -> np.ndarray:
    """The float32 numbers (..., K) of some cells of a file."""
    if packed.dtype.names is None:
        return packed.astype(np.float32)
    return packed["codes"].astype(np.float32) * packed["scale"][..., None]


class FeatureStore:
    """A folder of pixel embeddings, opened for reading.

    Args:
        folder: the one that contains ``manifest.json``.
        checkpoint: the SHA-256 of the checkpoint that the embeddings must be from, such as the one that encodes your
            texts; None to take any.

    Attributes:
        manifest: everything that the store records about itself, see ``docs/feature_store.md``.
        names: of its pictures and frames. labels, text: N names and their unit vectors (N, C).

    Raises:
        ValueError: no store, an unfinished one, missing files, files that are cut off, another checkpoint.
    """

    def __init__(self, folder: str | Path, checkpoint: str | None = None) -> None:
        self.folder = Path(folder)
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            version, written_by = self.manifest["store_version"], self.manifest["checkpoint"]["sha256"]
            self._entries = {entry["name"]: entry for entry in self.manifest["embeddings"]}
        except FileNotFoundError:
            what = "is unfinished: run its command again" if self.folder.is_dir() else "does not exist"
            raise ValueError(f"the store {self.folder} {what} (there is no {MANIFEST} in it)") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder / MANIFEST} does not describe a feature store ({error!r})") from error
        if version != VERSION:
            raise ValueError(f"{self.folder} is a store of version {version}, and this reader reads version {VERSION}")
        if checkpoint not in (None, written_by):
            raise ValueError(
                f"{self.folder} was written with another checkpoint (SHA-256 {written_by[:12]}...; expected "
                f"{checkpoint[:12]}...): its embeddings cannot be compared with your texts"
            )
        expected = {**self.manifest["files"], **{entry["file"]: entry["bytes"] for entry in self._entries.values()}}
        damaged = [file for file, size in expected.items() if self._size(file) != size]
        if damaged:
            raise ValueError(
                f"{len(damaged)} of {len(expected)} files in {self.folder} are missing or cut off, first "
                f"{damaged[0]}: copy the store again, or run its command again, which replaces them"
            )
        self.names, self.labels = list(self._entries), list(self.manifest["labels"])
        self.text = np.load(self.folder / TEXT) if self.labels else np.zeros((0, self.manifest["dimensions"]), "f4")
        # Embeddings of a basis get one more dimension, for the part of the mean outside it. Then products and lengths
        # are those of the full embeddings, and any C numbers are ``coordinates @ self._axes``.
        self._axes = self._origin = None
        if self.manifest["basis"]:
            with np.load(self.folder / BASIS) as basis:
                mean, components = basis["mean"], basis["components"]
            inside = components @ mean
            outside = mean - inside @ components
            length = float(np.linalg.norm(outside))
            self._axes = np.concatenate([components, outside[None] / max(length, TINY)])  # (K + 1, C)
            self._origin = np.append(inside, length).astype(np.float32)

    def __len__(self) -> int:
        return len(self.names)

    def codes(self, name: str) -> np.ndarray:
        """The file of a picture or frame, (h, w) cells, mapped into memory: only what is used is read."""
        return np.load(self.folder / self.file(name), mmap_mode="r")

    def file(self, name: str) -> str:
        """The file of a frame's codes, below the folder."""
        return self._entry(name)["file"]

    def grid(self, name: str) -> np.ndarray:
        """The stored numbers, float32 (h, w, K): the decoder's output, or its principal components. Not normalised."""
        return unpack(np.ascontiguousarray(self.codes(name)))

    def frame(self, name: str, size: str | tuple[int, int] | None = None, normalize: bool = True) -> np.ndarray:
        """One embedding per pixel, float32 (height, width, C), as ``LSegPredictor.embed`` computes them.

        size: None for twice the grid, as the network makes them; "input" for the picture's; "half" for half of it,
            rounded up; or (height, width).
        normalize: make them unit vectors.
        """
        grid = self._coordinates(self.grid(name))
        (h, w), (height, width) = grid.shape[:2], self._target(name, size)
        rows, row_weights = _neighbours(h, np.linspace(0, 2 * h - 1, height))
        columns, column_weights = _neighbours(w, np.linspace(0, 2 * w - 1, width))
        embedding = np.empty((height, width, self.manifest["dimensions"]), np.float32)
        for y in range(height):  # a row at a time needs little memory
            row = np.einsum("r,rwk->wk", row_weights[y], grid[rows[y]])
            embedding[y] = self._embedding(np.einsum("xn,xnk->xk", column_weights, row[columns]), normalize)
        return embedding

    def at(self, name: str, ys: np.ndarray, xs: np.ndarray, normalize: bool = True) -> np.ndarray:
        """The embeddings (M, C) at points of the picture: ``frame(name, "input")[ys, xs]`` without making the map.

        ys, xs: (M,) pixel coordinates, from 0 to H - 1 and W - 1, also between pixels; ``ValueError`` for others.
        """
        ys, xs = np.atleast_1d(np.asarray(ys, float)), np.atleast_1d(np.asarray(xs, float))
        packed, (height, width) = self.codes(name), self._entry(name)["picture"]
        if ys.shape != xs.shape or ys.ndim != 1:
            raise ValueError(f"ys and xs have the shapes {ys.shape} and {xs.shape}; give two lists of equal length")
        if not (((ys >= 0) & (ys <= height - 1)).all() and ((xs >= 0) & (xs <= width - 1)).all()):
            raise ValueError(f"some points lie outside {name}, which has {height} rows and {width} columns")
        found = np.empty((len(ys), self.manifest["dimensions"]), np.float32)
        h, w = packed.shape[:2]
        for start in range(0, len(ys), POINTS):
            part = slice(start, start + POINTS)
            rows, row_weights = _neighbours(h, ys[part] * ((2 * h - 1) / max(height - 1, 1)))
            columns, column_weights = _neighbours(w, xs[part] * ((2 * w - 1) / max(width - 1, 1)))
            cells = self._coordinates(unpack(packed[rows[:, :, None], columns[:, None, :]]))  # (M, rows, columns, K)
            found[part] = self._embedding(np.einsum("mr,mc,mrck->mk", row_weights, column_weights, cells), normalize)
        return found

    def points(
        self, name: str, depth: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The points that a depth map shows, float64 (M, 3), and their embeddings (M, C), row by row.

        depth: (H', W') along the camera's axis, of the picture's view but any size; 0, NaN and infinity are left out.
        intrinsics: (3, 3), of the depth map. pose: camera to world (4, 4); None for points as the camera sees them.
        """
        if depth.ndim != 2 or np.shape(intrinsics) != (3, 3) or np.shape(np.eye(4) if pose is None else pose) != (4, 4):
            raise ValueError("give a depth map (H, W), intrinsics (3, 3) and, if there is one, a pose (4, 4)")
        ys, xs = np.nonzero(np.isfinite(depth) & (depth > 0))
        places = np.stack([xs, ys, np.ones_like(xs)], 1) @ np.linalg.inv(intrinsics).T * depth[ys, xs, None]
        if pose is not None:
            places = places @ np.asarray(pose)[:3, :3].T + np.asarray(pose)[:3, 3]
        # The centre of a pixel of the depth map, in pixels of the picture.
        at = [
            ((points + 0.5) * (side / depth_side) - 0.5).clip(0, side - 1)
            for points, side, depth_side in zip((ys, xs), self._entry(name)["picture"], depth.shape, strict=True)
        ]
        return places, self.at(name, *at)

    def similarity(
        self, name: str, text: np.ndarray | None = None, size: str | tuple[int, int] | None = None
    ) -> np.ndarray:
        """Cosine of every pixel with N texts, float32 (height, width, N); ``argmax(-1)`` gives the labels.

        It is computed on the grid as the network's own head does it, without the embeddings of all pixels, and
        interpolated to ``size``, which is as in ``frame``.

        text: (N, C); None for the store's own labels.
        """
        text = self.text if text is None else np.atleast_2d(np.asarray(text, np.float32))
        if text.ndim != 2 or text.shape[1] != self.manifest["dimensions"]:
            raise ValueError(f"texts are {text.shape}; give (N, {self.manifest['dimensions']})")
        text = text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), TINY)
        grid = self._coordinates(self.grid(name))
        products = _doubled(grid @ (text if self._axes is None else text @ self._axes.T).T)  # (2h, 2w, N)
        cosines = products / np.sqrt(np.maximum(_doubled_squares(grid), TINY))[..., None]
        for axis, side in enumerate(self._target(name, size)):
            cosines = _resized(cosines, axis, np.linspace(0, cosines.shape[axis] - 1, side))
        return cosines

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._entries:
            raise ValueError(f"there is no {name!r} in {self.folder}; its names are {', '.join(self.names[:5])}, ...")
        return self._entries[name]

    def _size(self, file: str) -> int:
        path = self.folder / file
        return path.stat().st_size if path.is_file() else 0

    def _target(self, name: str, size: str | tuple[int, int] | None) -> tuple[int, int]:
        entry = self._entry(name)
        if size is None:
            return 2 * entry["shape"][0], 2 * entry["shape"][1]
        height, width = entry["picture"]
        named = {"input": (height, width), "half": (-(-height // 2), -(-width // 2))}
        target = named.get(size) if isinstance(size, str) else tuple(size)
        if target is None or len(target) != 2 or min(target) < 1:
            raise ValueError(f'size is {size!r}; give None, "input", "half" or (height, width)')
        return int(target[0]), int(target[1])

    def _coordinates(self, numbers: np.ndarray) -> np.ndarray:
        """(..., K) as stored -> (..., K or K + 1), where products and lengths are those of the embeddings."""
        if self._origin is None:
            return numbers
        return np.concatenate([numbers, np.zeros_like(numbers[..., :1])], -1) + self._origin

    def _embedding(self, coordinates: np.ndarray, normalize: bool) -> np.ndarray:
        """(M, K or K + 1) -> (M, C)."""
        if normalize:
            length = np.linalg.norm(coordinates, axis=-1, keepdims=True)
            coordinates = coordinates / np.maximum(length, TINY)
        return coordinates if self._axes is None else coordinates @ self._axes


def _low_and_weight(side: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower neighbours of positions 0..side - 1 on a line of cells, and the weights of the upper ones."""
    low = np.minimum(np.floor(positions), side - 1).astype(int)
    return low, (positions - low).astype(np.float32)


def _neighbours(side: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells that are mixed at positions on the x2 of a line of ``side`` cells, and their weights: (M, 2 or 3)."""
    low, weight = _low_and_weight(2 * side, positions)
    step = (side - 1) / (2 * side - 1)  # between the cells of the x2, in cells
    first, second = (low * step)[:, None], ((low + 1) * step)[:, None]
    cells = np.floor(first).astype(int) + np.arange(3 if weight.any() else 2)
    shares = np.maximum(1 - np.abs(first - cells), 0) * (1 - weight)[:, None]
    shares += np.maximum(1 - np.abs(second - cells), 0) * weight[:, None]
    return np.minimum(cells, side - 1), shares.astype(np.float32)


def _resized(maps: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """Bilinear along one axis: the values at ``positions`` 0..side - 1."""
    low, weight = _low_and_weight(maps.shape[axis], positions)
    weight = weight.reshape([-1 if i == axis else 1 for i in range(maps.ndim)])
    high = np.minimum(low + 1, maps.shape[axis] - 1)
    return maps.take(low, axis) * (1 - weight) + maps.take(high, axis) * weight


def _doubled(maps: np.ndarray) -> np.ndarray:
    """(h, w, ...) -> (2h, 2w, ...): the network's x2, bilinear with aligned corners."""
    for axis in (0, 1):
        side = maps.shape[axis]
        maps = _resized(maps, axis, np.linspace(0, side - 1, 2 * side))
    return maps


def _doubled_squares(grid: np.ndarray) -> np.ndarray:
    """(h, w, K) -> (2h, 2w): squared lengths of ``_doubled(grid)``, from products of neighbours in the grid."""
    h, w = grid.shape[:2]

    def product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(h, w), zero where there is no neighbour."""
        found = np.einsum("hwk,hwk->hw", one, other)
        return np.pad(found, ((0, h - found.shape[0]), (0, w - found.shape[1])))

    upper, v = _low_and_weight(h, np.linspace(0, h - 1, 2 * h))
    left, u = _low_and_weight(w, np.linspace(0, w - 1, 2 * w))
    lower, right, v = np.minimum(upper + 1, h - 1), np.minimum(left + 1, w - 1), v[:, None]
    own, level = product(grid, grid), product(grid[:, :-1], grid[:, 1:])
    below = product(grid[:-1], grid[1:])
    diagonals = product(grid[:-1, :-1], grid[1:, 1:]) + product(grid[:-1, 1:], grid[1:, :-1])
    # Within a row, the square of (1 - u) a + u b; then likewise from row to row. Both (h, 2w).
    within = own[:, left] * (1 - u) ** 2 + own[:, right] * u**2 + level[:, left] * (2 * u * (1 - u))
    between = below[:, left] * (1 - u) ** 2 + below[:, right] * u**2 + diagonals[:, left] * (u * (1 - u))
    return within[upper] * (1 - v) ** 2 + within[lower] * v**2 + between[upper] * (2 * v * (1 - v))
