"""Embeddings come back as they were stored, under their names, and a kill costs no finished one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from apps.predict.embedding_store import STORES
from lseg_utils.errors import InputError


def embedding(seed: int, height: int = 40, width: int = 70) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(height, width, 8)).astype(np.float16)


def read(kind: str, folder: Path, name: str) -> np.ndarray:
    if kind == "npy":
        return np.load(folder / f"{name}.npy")
    if kind == "pt":
        return torch.load(folder / f"{name}.pt", weights_only=True).numpy()
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "embeddings.h5") as file:
        return file[name][:]


@pytest.fixture(params=list(STORES))
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "h5":
        pytest.importorskip("h5py")
    return request.param


def test_what_is_stored_comes_back(kind: str, tmp_path: Path) -> None:
    store = STORES[kind](tmp_path)
    arrays = {"a": embedding(0), "sub/b.v1": embedding(1, 1, 1), "sub/deep/c": embedding(2, 33, 3)}
    for name, array in arrays.items():
        assert not store.has(name)
        store.add(name, array)
        assert store.has(name)
    store.finish({})
    for name, array in arrays.items():
        found = read(kind, tmp_path, name)
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, array)
    assert not [path for path in tmp_path.rglob(".*")]  # no temporary files


def test_a_run_that_ended_early_resumes(kind: str, tmp_path: Path) -> None:
    first = STORES[kind](tmp_path)
    first.add("a", embedding(0))  # and then it is killed: no finish
    second = STORES[kind](tmp_path)
    assert second.has("a") and not second.has("b")
    second.add("b", embedding(1))
    second.finish({})
    third = STORES[kind](tmp_path)
    third.add("c", embedding(2))
    third.add("a", embedding(3))
    third.finish({})
    for name, seed in (("a", 3), ("b", 1), ("c", 2)):
        assert third.has(name)
        np.testing.assert_array_equal(read(kind, tmp_path, name), embedding(seed))


def test_what_a_kill_left_of_the_first_hdf5_file_does_no_harm(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    store = STORES["h5"](tmp_path)
    store.add("a", embedding(0))
    (tmp_path / ".embeddings.aside.h5").write_bytes(b"half an HDF5 file")
    store.finish({})
    np.testing.assert_array_equal(read("h5", tmp_path, "a"), embedding(0))
    assert not [path for path in tmp_path.rglob(".*")]


def test_hdf5_is_chunked(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    store = STORES["h5"](tmp_path)
    store.add("a", embedding(0))
    store.finish({})
    with h5py.File(tmp_path / "embeddings.h5") as file:
        assert file["a"].chunks == (32, 32, 8)


@pytest.mark.parametrize(("first", "second"), [("cat", "cat/x/y"), ("cat/x/y", "cat")])
def test_an_hdf5_name_inside_another_is_refused_and_nothing_is_lost(first: str, second: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    earlier = STORES["h5"](tmp_path)
    earlier.add(first, embedding(0))
    earlier.finish({})
    later = STORES["h5"](tmp_path)
    later.add(second, embedding(1))
    with pytest.raises(InputError, match=rf"cannot contain {second}:.*rename"):
        later.finish({})
    np.testing.assert_array_equal(read("h5", tmp_path, first), embedding(0))
    assert STORES["h5"](tmp_path).has(second)


def test_the_frames_of_another_video_replace_those_of_the_first(kind: str, tmp_path: Path) -> None:
    first = STORES[kind](tmp_path)
    for number in range(3):
        first.add(f"clip.frames/{number}", embedding(number))
    first.finish({})
    second = STORES[kind](tmp_path)
    second.forget("clip.frames")
    second.add("clip.frames/0", embedding(5))  # and then it is killed
    third = STORES[kind](tmp_path)
    assert [third.has(f"clip.frames/{number}") for number in range(3)] == [True, False, False]
    third.add("clip.frames/1", embedding(6))
    third.finish({})
    assert [STORES[kind](tmp_path).has(f"clip.frames/{number}") for number in range(3)] == [True, True, False]
    np.testing.assert_array_equal(read(kind, tmp_path, "clip.frames/0"), embedding(5))


def test_what_a_kill_left_of_finished_parts_is_cleaned(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    (tmp_path / ".parts.done" / "clip.frames").mkdir(parents=True)
    STORES["h5"](tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_hdf5_file_describes_itself(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    store = STORES["h5"](tmp_path)
    store.add("a", embedding(0))
    store.finish({"variant": "unit", "pca": 3})
    with h5py.File(tmp_path / "embeddings.h5") as file:
        assert dict(file.attrs) == {"variant": "unit", "pca": 3}


def test_a_damaged_hdf5_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    (tmp_path / "embeddings.h5").write_bytes(b"no hdf5")
    with pytest.raises(InputError, match=r"embeddings\.h5 is damaged"):
        STORES["h5"](tmp_path)
