"""predict_lseg.py --embeddings on pictures: they are those of the predictor, in every form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import predict_lseg
from lseg_utils.errors import InputError
from modules.checkpoints import to_official
from modules.predictor import LSegPredictor
from predict_script import (
    LABELS,
    arguments,
    manifest,
    predict,
    stored,
)
from tiny import tiny_net


def test_embeddings_in_the_form_and_layout_of_a_project(weights, folder):
    more = ["--embeddings", "pt", "--embedding_variant", "vlmaps", "--embedding_layout", "chw", "--write", "none"]
    out = predict(weights, folder, more=[*more, "--embedding_suffix", "_fmap_CxHxW"])
    predictor = LSegPredictor.from_checkpoint(weights, "cpu")
    for entry in manifest(out)["embeddings"]:
        assert entry["file"] == f"{entry['name']}_fmap_CxHxW.pt"
        found = torch.load(out / "embeddings" / entry["file"])
        expected = predictor.embed(entry["source"], mode="protocol", variant="vlmaps").permute(2, 0, 1)
        assert list(found.shape) == entry["shape"] and entry["seen"] == [[64, 64]]
        np.testing.assert_allclose(found.float().numpy(), expected.numpy(), rtol=2e-3, atol=1e-2)


@pytest.mark.parametrize("kind", ["npy", "pt", "h5"])
def test_embeddings_are_those_of_the_predictor(weights, folder, kind):
    more = ["--embeddings", kind, "--embedding_size", "20x30", "--embedding_variant", "raw", "--write", "none"]
    out = predict(weights, folder, more=more)
    written = manifest(out)
    assert (written["variant"], written["size"], written["checkpoint"]["file"]) == ("raw", [20, 30], "tiny.ckpt")
    assert [entry["name"] for entry in written["embeddings"]] == ["a", "b", "sub/c"]
    predictor = LSegPredictor.from_checkpoint(weights, "cpu")
    for entry in written["embeddings"]:
        found, expected = stored(out, entry), predictor.embed(entry["source"], (20, 30), variant="raw")
        assert found.dtype == np.float16 and list(found.shape) == entry["shape"] and entry["dtype"] == "float16"
        np.testing.assert_allclose(found, expected.numpy(), rtol=2e-3, atol=1e-3)
    assert not (out / "overlays").exists()
    assert written["embeddings"][0]["seen"] == [[32, 64]] and written["base_size"] == 64  # of 50 x 70
    (out / "embeddings" / "manifest.json").unlink()
    predict(weights, folder, more=more)  # nothing is done again, and the manifest is whole
    assert manifest(out) == written
    assert json.loads((out / "summary.json").read_text())["done_before"] == 3


def test_embeddings_look_at_the_long_side_that_is_asked_for(weights, folder):
    out = predict(weights, folder / "a.png", more=["--embeddings", "npy", "--long_side", 128, "--write", "none"])
    predictor = LSegPredictor.from_checkpoint(weights, "cpu")
    expected = predictor.embed(folder / "a.png", "half", long_side=128)
    np.testing.assert_allclose(np.load(out / "embeddings" / "a.npy"), expected.numpy(), rtol=2e-3, atol=1e-3)
    assert (expected - predictor.embed(folder / "a.png", "half")).abs().max() > 0.01
    written = manifest(out)
    assert written["long_side"] == 128 and written["embeddings"][0]["seen"] == [[96, 128]]


def test_embeddings_need_no_labels(folder, tmp_path):
    weights, net = tmp_path / "official.ckpt", tiny_net("tiny_vit", labels=None)
    torch.save(to_official(net.state_dict()), weights)
    line = arguments(weights, folder)
    del line[line.index("--labels") : line.index("--labels") + 2]
    with pytest.raises(InputError, match=r"official\.ckpt contains no labels"):
        predict_lseg.main(line)
    assert predict_lseg.main([*line, "--write", "none", "--embeddings", "npy", "--pca", "3"]) == 0
    assert np.load(folder.parent / "out" / "embeddings" / "a.npy").shape == (25, 35, 3)


def test_text_vectors_are_written_for_programs_without_the_network(weights, folder):
    out = predict(weights, folder, more=["--embeddings", "npy", "--write", "none"])
    text = np.load(out / "text.npy")
    pixels = np.load(out / "embeddings" / "a.npy").astype(np.float32)
    expected = LSegPredictor.from_checkpoint(weights, "cpu").similarity(pixels, LABELS).numpy()
    np.testing.assert_allclose(pixels @ text.T, expected, atol=2e-3)
    assert json.loads((out / "labels.json").read_text())["labels"] == LABELS
    assert not (out / "legend.png").exists()  # nothing shows its colours


def test_embeddings_can_be_added_to_a_finished_run(weights, folder):
    predict(weights, folder)
    out = predict(weights, folder, more=["--embeddings", "npy", "--write", "none"])
    assert np.load(out / "embeddings" / "a.npy").shape[:2] == (25, 35)  # half of 50 x 70
    predict(weights, folder)
    assert json.loads((out / "summary.json").read_text())["done_before"] == 3


def test_pca_projects_pixels_and_text_alike(weights, folder, capsys):
    more = ["--embeddings", "npy", "--pca", 3, "--embedding_size", "half"]
    out = predict(weights, folder, more=more)
    basis = np.load(out / "pca.npz")
    predictor = LSegPredictor.from_checkpoint(weights, "cpu")
    full = predictor.embed(folder / "a.png", "half").numpy()
    projected = np.load(out / "embeddings" / "a.npy").astype(np.float32)
    np.testing.assert_allclose(projected, (full - basis["mean"]) @ basis["components"].T, atol=2e-3)
    text = predictor.encode_text(LABELS).numpy()
    np.testing.assert_allclose(basis["text_components"], text @ basis["components"].T, atol=1e-5)
    np.testing.assert_allclose(basis["text_offset"], text @ basis["mean"], atol=1e-5)
    assert basis["labels"].tolist() == LABELS
    share = basis["explained"].sum()
    assert f"3 principal components keep {share:.1%} of the variance" in capsys.readouterr().out and 0 < share < 1
    with Image.open(out / "pca" / "sub" / "c.png") as preview:
        assert preview.mode == "RGB" and preview.size == (17, 32) and len(preview.getcolors(10_000)) > 10
    first = (out / "pca.npz").read_bytes()
    (out / "embeddings" / "b.npy").unlink()
    predict(weights, folder, more=more)
    assert (out / "pca.npz").read_bytes() == first  # the basis of what is there already
