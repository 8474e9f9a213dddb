"""python -m apps.predict.export_store: the files are those that predict_lseg.py would have written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.predict.export_store import main
from lseg_utils.errors import InputError
from lseg_utils.feature_store import FeatureStore
from predict_script import contents, differing, files, predict, tiny_weights, video


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embeddings of one video as a store and as .npy files."""
    weights = tiny_weights(tmp_path_factory.mktemp("weights"))
    made = {}
    for kind in ("store", "npy"):
        clip = video(tmp_path_factory.mktemp(kind) / "clip.mp4", 3, 47, 63)
        made[kind] = predict(weights, clip, more=["--write", "none", "--embeddings", kind]) / "embeddings"
    return made


def export(*arguments: object) -> None:
    main([str(one) for one in arguments])


def test_npy_files_are_those_that_are_written_directly(made, tmp_path):
    export(made["store"], tmp_path / "out")
    expected = {name: made["npy"] / name for name in files(made["npy"]) if name.endswith(".npy")}
    assert set(files(tmp_path / "out")) - {"export.jsonl"} == set(expected) and len(expected) == 3
    for name, path in expected.items():
        found, direct = np.load(tmp_path / "out" / name), np.load(path)
        assert found.dtype == np.float16 and found.shape == direct.shape == (24, 32, 64)
        cosines = (found.astype(np.float32) * direct.astype(np.float32)).sum(-1)
        assert cosines.min() > 0.998 and np.median(cosines) > 0.9999


def test_other_types_layouts_and_names(made, tmp_path):
    export(
        made["store"], tmp_path / "pt", "--type", "pt", "--layout", "chw", "--suffix", "_fmap_CxHxW", "--size", "9x7"
    )
    path = tmp_path / "pt" / "clip.frames" / "000001_fmap_CxHxW.pt"
    tensor = torch.load(path, weights_only=True)
    expected = FeatureStore(made["store"]).frame("clip.frames/000001", (9, 7)).transpose(2, 0, 1)
    assert tensor.dtype == torch.float16 and tensor.is_contiguous()
    np.testing.assert_allclose(tensor.float().numpy(), expected, atol=1e-3)
    h5py = pytest.importorskip("h5py")
    export(made["store"], tmp_path / "h5", "--type", "h5", "--size", "input")
    with h5py.File(tmp_path / "h5" / "embeddings.h5") as file:
        assert file["clip.frames/000002"].shape == (48, 64, 64)  # a video's sides are even


def test_pairs_of_langsplat(made, tmp_path):
    export(made["store"], tmp_path / "out", "--type", "langsplat", "--size", "input")
    store, name = FeatureStore(made["store"]), "clip.frames/000001"
    segments, features = (np.load(tmp_path / "out" / f"{name}_{end}.npy") for end in "sf")
    labels, pixels = store.similarity(name, size="input").argmax(-1), store.frame(name, "input")
    assert segments.shape == (4, *labels.shape) and segments.max() == len(features) - 1 and features.dtype == np.float16
    assert (segments == segments[0]).all() and segments.dtype == np.int32
    for number, feature in enumerate(features):
        region = segments[0] == number
        assert len(np.unique(labels[region])) == 1
        mean = pixels[region].mean(0)
        np.testing.assert_allclose(feature, mean / np.linalg.norm(mean), atol=1e-3)
    assert (segments[0] >= 0).mean() > 0.9


@pytest.mark.parametrize("kind", ["npy", "h5"])
def test_it_resumes_and_refuses_other_settings(kind, made, tmp_path, monkeypatch, capsys):
    if kind == "h5":
        pytest.importorskip("h5py")
    line = [made["store"], tmp_path / "out", "--type", kind, "--size", "6x8"]
    export(*line)
    whole = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    calls, frame = [], FeatureStore.frame

    def interrupted(self, *given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return frame(self, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FeatureStore, "frame", interrupted)
        export(*line)
    capsys.readouterr()
    export(*line)
    assert "1 embeddings written, 2 written before" in capsys.readouterr().out
    assert {name for name in differing(contents(tmp_path / "out"), whole)} <= {"embeddings.h5"}  # it contains times
    with pytest.raises(InputError, match="size"):
        export(*line[:-1], "7x8")


def test_everything_that_is_wrong_is_told_at_once(made, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError) as error:
        export(tmp_path / "none", tmp_path, "--size", "big", "--type", "h5", "--layout", "chw")
    for told in ("none", "no earlier export", "--size", "--layout chw"):
        assert told in str(error.value)
