"""predict_lseg.py --embeddings store: read with numpy, the embeddings and similarities are the network's own."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict_lseg
from apps.predict.embeddings import EmbeddingWriter
from lseg_utils import feature_store
from lseg_utils.errors import InputError
from lseg_utils.feature_store import FeatureStore, pack, unpack
from lseg_utils.files import sha256_of
from modules.inference import image_tower
from modules.inference.pixel_embedding import looks
from modules.predictor import LSegPredictor
from predict_script import LABELS, arguments, contents, differing, predict, tiny_weights, video
from predicting import picture

STORE = ["--write", "none", "--embeddings", "store"]
SIZES = [(47, 63), (96, 64), (30, 30)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, (height, width) in enumerate(SIZES):
        Image.fromarray(picture(height, width, number)).save(folder / f"text{number}.png")
    return folder


@pytest.fixture(scope="module")
def made(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of pictures for each kind of codes. They are read only."""
    made = {}
    options = {"int8": [], "float16": ["--store_codes", "float16"], "basis": ["--pca", 63], "basis16": ["--pca", 16]}
    for kind, more in options.items():
        folder = pictures(tmp_path_factory.mktemp("made") / kind)
        made[kind] = predict(weights, folder, more=[*STORE, *more]) / "embeddings"
    return made


def least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(torch.cosine_similarity(torch.from_numpy(one), torch.from_numpy(other), -1).min())


@pytest.mark.parametrize("kind", ["int8", "float16", "basis"])
def test_the_reader_gives_the_networks_embeddings(kind, made, weights):
    store, predictor = FeatureStore(made[kind]), LSegPredictor.from_checkpoint(weights, "cpu")
    assert store.names == ["text0", "text1", "text2"] and store.labels == LABELS
    np.testing.assert_allclose(store.text, predictor.encode_text(LABELS).numpy(), atol=1e-6)
    for number, (name, (height, width)) in enumerate(zip(store.names, SIZES, strict=True)):
        image = picture(height, width, number)
        half = store.grid(name).shape[0] * 2, store.grid(name).shape[1] * 2
        for size, asked in ((half, None), ((height, width), "input"), ((20, 70), (20, 70))):
            found = store.frame(name, asked)
            expected = predictor.embed(image, size).numpy()
            assert found.shape == expected.shape and found.dtype == np.float32
            assert least_cosine(found, expected) > 0.9999
            if kind == "float16":
                np.testing.assert_allclose(found, expected, atol=1e-3)
        raw = predictor.embed(image, half, normalize=False).numpy()
        assert np.abs(store.frame(name, normalize=False) - raw).max() < 0.02 * np.abs(raw).max()


@pytest.mark.parametrize("kind", ["int8", "float16", "basis"])
def test_similarity_is_that_of_the_networks_head(kind, made, weights):
    store, predictor = FeatureStore(made[kind]), LSegPredictor.from_checkpoint(weights, "cpu")
    text = predictor.encode_text(["a blue bus", "fog"])
    for number, (name, (height, width)) in enumerate(zip(store.names, SIZES, strict=True)):
        grid = predictor.grid(picture(height, width, number)).permute(2, 0, 1)[None]
        expected = 0.07 * predictor.net.head.half_logits(grid, text)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(store.similarity(name, 3 * text.numpy()), expected, atol=1e-2)
        if kind == "float16":
            np.testing.assert_allclose(store.similarity(name, text.numpy()), expected, atol=1e-3)
        assert store.similarity(name, text.numpy()[0], "input").shape == (height, width, 1)
        assert store.similarity(name).shape == (*expected.shape[:2], len(LABELS))


@pytest.mark.parametrize("kind", ["int8", "basis16"])
def test_points_are_those_of_the_full_map(kind, made, monkeypatch):
    monkeypatch.setattr(feature_store, "POINTS", 50)  # several parts
    store = FeatureStore(made[kind])
    for name, (height, width) in zip(store.names, SIZES, strict=True):
        ys, xs = (points.ravel() for points in np.mgrid[:height, :width][:, ::5, ::3])
        np.testing.assert_allclose(store.at(name, ys, xs), store.frame(name, "input")[ys, xs], atol=1e-5)
    last, between = store.at("text0", [46, 45.5], [62, 0.0])
    np.testing.assert_allclose(last, store.frame("text0")[-1, -1], atol=1e-5)
    raw = store.at("text0", [45, 45.5, 46], [0, 0, 0], normalize=False)
    assert np.abs(raw[1] / np.linalg.norm(raw[1]) - between).max() < 1e-5
    with pytest.raises(ValueError, match="47 rows"):
        store.at("text0", [47], [0])
    with pytest.raises(ValueError, match="equal length"):
        store.at("text0", [1, 2], [0])


def test_a_depth_map_gives_points_and_their_embeddings(made):
    store, (height, width) = FeatureStore(made["int8"]), SIZES[0]
    depth = np.zeros((height, width))
    depth[3, 10], depth[40, 50], depth[5, 5] = 2.0, 4.0, np.nan
    intrinsics = np.array([[20.0, 0, 30], [0, 10.0, 20], [0, 0, 1]])
    pose = np.eye(4)[[1, 2, 0, 3]]
    pose[:3, 3] = 1, 2, 3
    places, embeddings = store.points("text0", depth, intrinsics)
    assert places.tolist() == [[-2.0, -3.4, 2.0], [4.0, 8.0, 4.0]]
    np.testing.assert_allclose(embeddings, store.at("text0", [3, 40], [10, 50]), atol=1e-6)
    assert store.points("text0", depth, intrinsics, pose)[0].tolist() == [[-2.4, 4.0, 1.0], [9.0, 6.0, 7.0]]
    small = np.zeros((1, 3))
    small[0, 1] = 1.0  # the middle of the picture
    np.testing.assert_allclose(
        store.points("text0", small, np.eye(3))[1], store.at("text0", [(height - 1) / 2], [(width - 1) / 2]), atol=1e-6
    )
    with pytest.raises(ValueError, match=r"intrinsics \(3, 3\)"):
        store.points("text0", depth, np.eye(4))


def test_a_basis_compares_embeddings_as_if_they_were_complete(made):
    """What a few components give is exactly what their embeddings in all dimensions give."""
    store = FeatureStore(made["basis16"])
    assert store.codes("text0")["codes"].shape[-1] == 16 and store.frame("text0").shape[-1] == 64
    embedding = store.frame("text0", normalize=False)
    cosines = embedding @ store.text.T / np.linalg.norm(embedding, axis=-1, keepdims=True)
    np.testing.assert_allclose(store.similarity("text0"), cosines, atol=1e-5)


def test_codes_come_back():
    grid = np.random.default_rng(0).normal(size=(3, 4, 8)).astype(np.float32)
    grid[0, 0], grid[1, 1] = 0, 1e5
    found = unpack(pack(grid, "int8"))
    assert (found[0, 0] == 0).all() and (found[1, 1] == 1e5).all()
    assert (np.abs(found - grid) <= np.abs(grid).max(-1, keepdims=True) / 253).all()
    assert pack(grid, "int8").nbytes == 3 * 4 * (4 + 8)
    with pytest.raises(ValueError, match="int8"):
        pack(grid, "float16")


def test_the_manifest_describes_the_store(made, weights):
    about = FeatureStore(made["basis16"], sha256_of(weights)).manifest
    assert about["checkpoint"]["sha256"] == sha256_of(weights) and about["codes"] == "int8" and about["pca"] == 16
    assert about["dimensions"] == 64 and len(about["mean"]) == len(about["std"]) == 3 and about["labels"] == LABELS
    for entry, (height, width) in zip(about["embeddings"], SIZES, strict=True):
        seen, *_ = looks(height, width, about["base_size"], None)
        assert entry["picture"] == [height, width] and entry["seen"] == [list(seen[:2])]
        assert entry["shape"] == [seen[0] // 4, seen[1] // 4, 16]
        assert (made["basis16"] / entry["file"]).stat().st_size == entry["bytes"]


def test_an_interrupted_run_resumes_and_gives_the_same_store(weights, tmp_path, monkeypatch):
    clip, more = video(tmp_path / "clip.mp4", 6), [*STORE, "--pca", 5]
    whole = contents(predict(weights, clip, more=more))
    shutil.rmtree(tmp_path / "out")
    calls, write = [], EmbeddingWriter.write

    def interrupted(self, *given):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(self, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EmbeddingWriter, "write", interrupted)
        predict(weights, clip, more=more)
    with pytest.raises(ValueError, match="unfinished"):
        FeatureStore(tmp_path / "out" / "embeddings")
    store = FeatureStore(predict(weights, clip, more=more) / "embeddings")
    assert differing(contents(tmp_path / "out"), whole) == []
    assert len(store) == 6 and store.names[5] == "clip.frames/000005"


def test_more_pictures_are_appended(weights, tmp_path):
    folder = pictures(tmp_path / "in")
    late = (folder / "text1.png").rename(tmp_path / "late.png")
    out = predict(weights, folder, more=STORE)
    first = contents(out / "embeddings" / "frames")
    late.rename(folder / "text1.png")
    store = FeatureStore(predict(weights, folder, more=STORE) / "embeddings")
    assert store.names == ["text0", "text1", "text2"] and contents(store.folder / "frames").items() > first.items()


def test_damage_is_named_and_repaired(weights, tmp_path):
    folder = pictures(tmp_path / "in")
    out = predict(weights, folder, more=STORE)
    store = out / "embeddings"
    whole = contents(store)
    for name in ("frames/text1.npy", "text.npy"):
        (store / name).write_bytes((store / name).read_bytes()[:-7])
        with pytest.raises(ValueError, match=f"1 of 4 files.*{name}"):
            FeatureStore(store)
        predict(weights, folder, more=STORE)
        assert differing(contents(store), whole) == []
    (store / "frames" / "text2.npy").unlink()
    with pytest.raises(ValueError, match="frames/text2.npy"):
        FeatureStore(store)
    (store / "manifest.json").write_text(json.dumps({"embeddings": []}))
    with pytest.raises(ValueError, match="does not describe a feature store"):
        FeatureStore(store)
    with pytest.raises(ValueError, match="does not exist"):
        FeatureStore(tmp_path / "none")


@pytest.mark.parametrize("cut", [None, 100])
def test_a_lost_basis_is_made_again_with_everything_that_it_projected(weights, tmp_path, capsys, cut):
    folder = pictures(tmp_path / "in")
    store = predict(weights, folder, more=[*STORE, "--pca", 5]) / "embeddings"
    whole, basis = contents(store), store / "pca.npz"
    content = basis.read_bytes()[:cut]
    basis.unlink()
    if cut:
        basis.write_bytes(content)
    (store / "frames" / "text1.npy").unlink()
    with pytest.raises(ValueError, match=r"2 of 5 files.*pca\.npz"):
        FeatureStore(store)
    predict(weights, folder, more=[*STORE, "--pca", 5])
    assert "making all of them again" in capsys.readouterr().out
    assert differing(contents(store), whole) == []
    npy = ["--write", "none", "--embeddings", "npy", "--pca", "5", "--output_dir", tmp_path / "npy"]
    predict(weights, folder, more=npy)
    (tmp_path / "npy" / "pca.npz").unlink()
    (tmp_path / "npy" / "embeddings" / "text1.npy").unlink()
    with pytest.raises(InputError, match=r"pca\.npz is missing.*--overwrite"):
        predict(weights, folder, more=npy)


def test_a_picture_that_is_too_large_for_openscene_does_not_end_the_run(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(image_tower, "MAX_KEPT", 4 * 64 * 100 * 100 / 16)
    folder = tmp_path / "in"
    folder.mkdir()
    for name, side in (("a_large", 64), ("small", 32)):
        Image.fromarray(picture(side, side)).save(folder / f"{name}.png")
    variant = ["--write", "none", "--embeddings", "npy", "--embedding_variant", "openscene"]
    out = predict(weights, folder, code=1, more=variant)
    assert [path.name for path in (out / "embeddings").glob("*.npy")] == ["small.npy"]
    told = capsys.readouterr()
    assert "a_large.png" in told.out + told.err


def test_another_checkpoint_is_refused(weights, made, tmp_path):
    with pytest.raises(ValueError, match="another checkpoint"):
        FeatureStore(made["int8"], "0" * 64)
    folder, other = pictures(tmp_path / "in"), tmp_path / "other.ckpt"
    out = predict(weights, folder, more=STORE)
    state = torch.load(weights, weights_only=False)
    state["epoch"] = 1
    torch.save(state, other)
    before = contents(out)
    with pytest.raises(InputError, match="other settings"):
        predict(other, folder, more=STORE)
    assert differing(contents(out), before) == []


def test_wrong_names_and_texts_are_explained(made):
    store = FeatureStore(made["int8"])
    with pytest.raises(ValueError, match="no 'text9'.*text0"):
        store.frame("text9")
    with pytest.raises(ValueError, match="64"):
        store.similarity("text0", np.ones((2, 512)))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--embeddings", "store", "--embedding_size", "input"], "--embedding_size"),
        (["--embeddings", "store", "--embedding_layout", "chw"], "--embedding_layout"),
        (["--embeddings", "npy", "--store_codes", "float16"], "needs --embeddings store"),
        (["--store_codes", "float16"], "store_codes"),
    ],
)
def test_options_that_do_not_fit_are_refused(more, told, weights, tmp_path):
    with pytest.raises(InputError, match=told):
        predict_lseg.main(arguments(weights, pictures(tmp_path / "in"), more=more))


def test_the_reader_imports_numpy_alone():
    tree = ast.parse(Path(feature_store.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"__future__", "json", "pathlib", "typing", "numpy"}
