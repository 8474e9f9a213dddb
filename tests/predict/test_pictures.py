"""predict_lseg.py on pictures: every kind of result, and inputs that cannot be read."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import predict_lseg
from encoding_ext.label_colours import label_colours
from modules.predictor import LSegPredictor
from predict_script import (
    LABELS,
    arguments,
    files,
    manifest,
    predict,
    video,
)
from predicting import picture


def test_a_folder_is_mirrored_and_all_kinds_agree(weights, folder, capsys):
    out = predict(weights, folder, more=["--batch_size", 1])
    predictor = LSegPredictor.from_checkpoint(weights, "cpu")
    for name in ("a.png", "b.png", "sub/c.jpg"):
        stem = name.split(".")[0]
        expected = predictor.segment(folder / name, LABELS).mask
        with Image.open(out / "labels" / f"{stem}.png") as labels:
            assert labels.mode == "L"
            np.testing.assert_array_equal(np.asarray(labels), expected)
        with Image.open(out / "masks" / f"{stem}.png") as mask:
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.asarray(mask), expected + 1)
            np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), label_colours(LABELS)[expected])
        with Image.open(out / "overlays" / f"{stem}.jpg") as overlay:
            assert overlay.size == expected.shape[::-1]
        facts = json.loads((out / "json" / f"{stem}.json").read_text())
        assert (facts["height"], facts["width"]) == expected.shape
        assert facts["mode"] == "whole" and facts["checkpoint"]["file"] == "tiny.ckpt"
        areas = {area["number"]: area["pixels"] for area in facts["areas"]}
        assert areas == {int(i): int((expected == i).sum()) for i in np.unique(expected)}
        assert [LABELS[area["number"]] for area in facts["areas"]] == [area["label"] for area in facts["areas"]]
        assert sum(area["share"] for area in facts["areas"]) == pytest.approx(1)
    assert len(np.unique(predictor.segment(folder / "a.png", LABELS).mask)) > 1  # the test can fail
    assert json.loads((out / "labels.json").read_text())["labels"] == LABELS
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["done"], summary["problems"]) == (3, [])
    assert sum(area["percent"] for area in summary["areas"]) == pytest.approx(100)
    assert "3 done, 0 done before, 0 with problems" in capsys.readouterr().out


def test_kinds_formats_and_label_files_are_chosen(weights, folder):
    (folder.parent / "labels.txt").write_text("\n".join(f"thing {i}" for i in range(256)))
    more = ["--labels", folder.parent / "labels.txt", "--write", "overlay,labels", "--overlay-format", "png"]
    out = predict(weights, folder / "a.png", more=[*more, "--output-dir", folder.parent / "o", "--mode", "windows"])
    out = folder.parent / "o"
    assert {name for name in files(out) if "/" in name} == {"overlays/a.png", "labels/a.png"}
    with Image.open(out / "labels" / "a.png") as labels:
        assert labels.mode in {"I;16", "I"}  # 256 labels are more than 255; Pillow 10.1 opens 16 bits as I
        expected = LSegPredictor.from_checkpoint(weights, "cpu").segment(
            folder / "a.png", [f"thing {i}" for i in range(256)], "windows"
        )
        np.testing.assert_array_equal(np.asarray(labels), expected.mask)


def test_the_checkpoints_own_labels_are_the_default_and_printed(weights, folder, capsys):
    line = arguments(weights, folder / "a.png")
    del line[line.index("--labels") : line.index("--labels") + 2]
    assert predict_lseg.main(line) == 0
    assert json.loads((folder / "out" / "labels.json").read_text())["labels"] == ["dog", "grass", "a red car"]
    assert "own 3 labels (dog, grass, a red car)" in capsys.readouterr().out
    predict(weights, folder / "b.png", more=["--output_dir", folder.parent / "other"])
    assert "own 3 labels" not in capsys.readouterr().out


def test_without_weights_the_checkpoint_of_the_quickstart_is_used(weights, folder, monkeypatch, capsys):
    monkeypatch.setattr(predict_lseg, "default_checkpoint", lambda: weights)
    line = arguments(weights, folder)
    del line[line.index("--weights") : line.index("--weights") + 2]
    assert predict_lseg.main(line) == 0
    assert str(weights) in capsys.readouterr().out
    run = json.loads((folder.parent / "out" / "run.json").read_text())
    assert run["settings"]["checkpoint"]["file"] == "tiny.ckpt"


def test_bad_files_are_reported_and_the_rest_is_done(weights, folder, capsys, monkeypatch):
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:2000])
    (folder / "text.mp4").write_text("no video")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    Image.fromarray(picture(1, 20_000)).save(folder / "long.png")
    out = predict(weights, folder, code=1)
    captured = capsys.readouterr()
    for name in ("empty.png", "text.jpg", "cut.jpg", "text.mp4", "bomb.png"):
        assert f"{folder / name}" in captured.err, name
    assert "Traceback" not in captured.err
    assert "5 done, 0 done before, 5 with problems" in captured.out
    assert len(json.loads((out / "summary.json").read_text())["problems"]) == 5
    assert sorted(path.stem for path in (out / "masks").rglob("*.png")) == ["a", "b", "c", "long", "whole"]
    files(out)


def test_a_named_pipe_is_reported_and_the_rest_is_done(weights, folder, capsys):
    for name in ("pipe.png", "pipe.gif", "pipe.mp4"):
        os.mkfifo(folder / name)
    out = predict(weights, folder, code=1, more=["--embeddings", "npy", "--pca", 3])
    captured = capsys.readouterr()
    assert captured.err.count("is not a regular file") == 3 and "3 done" in captured.out
    assert len(list((out / "masks").rglob("*.png"))) == 3


def test_names_near_the_limit_of_the_file_system_are_written(weights, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(20, 30)).save(tmp_path / "in" / f"{'x' * 251}.png")
    video(tmp_path / "clip.mp4", 2).rename(tmp_path / "in" / f"{'y' * 251}.mp4")
    out = predict(weights, tmp_path / "in", more=["--embeddings", "npy", "--pca", 3])
    assert len(list((out / "json").iterdir())) == 2 and len(manifest(out)["embeddings"]) == 3


def test_files_that_are_alike_but_for_their_folder_are_both_done(weights, tmp_path, capsys):
    for number, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        Image.fromarray(picture(20, 30, seed=number)).save(tmp_path / name / "a.bmp")
        os.utime(tmp_path / name / "a.bmp", (10**9, 10**9))
    out = ["--output_dir", tmp_path / "out", "--write", "labels"]
    predict(weights, tmp_path / "first", more=out)
    predict(weights, tmp_path / "second", more=out)
    assert "1 done, 0 done before" in capsys.readouterr().out.splitlines()[-1]
    with Image.open(tmp_path / "out" / "labels" / "a.png") as labels:
        expected = LSegPredictor.from_checkpoint(weights, "cpu").segment(picture(20, 30, seed=1), LABELS).mask
        np.testing.assert_array_equal(np.asarray(labels), expected)


def test_a_picture_in_a_folder_named_like_a_video_is_not_mixed_with_its_frames(weights, tmp_path):
    folder = tmp_path / "in"
    video(folder / "clip.mp4", 2)
    for name in ("clip", "clip.frames"):
        (folder / name).mkdir()
        Image.fromarray(picture(20, 30)).save(folder / name / "000000.png")
    out = predict(weights, folder, more=["--embeddings", "npy"])
    assert [entry["name"] for entry in manifest(out)["embeddings"]] == [
        *("clip/000000", "clip_frames/000000", "clip_mp4.frames/000000", "clip_mp4.frames/000001")
    ]
    with Image.open(out / "labels" / "clip_mp4.frames" / "000000.png") as labels:
        assert labels.size == (64, 48)


def test_a_label_given_twice_is_noted_and_does_no_harm(weights, folder, capsys):
    (folder.parent / "twice.txt").write_text("dog\nsky, at night\ndog\n")
    out = predict(weights, folder / "a.png", more=["--labels", folder.parent / "twice.txt", "--write", "json"])
    assert capsys.readouterr().out.count("twice.txt: 'dog' is label 0 and 2") == 1
    assert json.loads((out / "labels.json").read_text())["labels"] == ["dog", "sky, at night", "dog"]
    shutil.rmtree(out)
    out = predict(weights, folder / "a.png", more=["--labels", "dog, sky, dog"])
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert note.endswith(": dog")
    assert json.loads((out / "labels.json").read_text())["labels"] == ["dog", "sky", "dog"]


def test_one_label_alone_is_doubted(weights, folder, capsys):
    out = predict(weights, folder / "a.png", more=["--labels", "labls", "--write", "json"])
    assert "note: 'labls' is the only label, so every pixel gets it (there is no file" in capsys.readouterr().out
    assert json.loads((out / "labels.json").read_text())["labels"] == ["labls"]
