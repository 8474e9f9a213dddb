"""predict_lseg.py as a user runs it: pictures, folders, videos and a camera; kills, bad files, full disks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import predict_lseg
from apps.predict import journal
from apps.predict.video_reader import VideoFile
from encoding_ext.label_colours import label_colours
from lseg_utils.errors import InputError
from modules.checkpoints import to_official
from modules.predictor import LSegPredictor
from predict_script import (
    LABELS,
    FakeCamera,
    arguments,
    contents,
    differing,
    files,
    kill_when,
    manifest,
    predict,
    stored,
    tiny_weights,
    video,
)
from predicting import picture
from scripts import REPOSITORY
from tiny import tiny_net


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good pictures, one of them in a subfolder."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name, size in {"a.png": (50, 70), "b.png": (1, 1), "sub/c.jpg": (64, 33)}.items():
        Image.fromarray(picture(*size)).save(folder / name)
    return folder


# ------------------------------------------------------------------------------------------------------ pictures


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


def test_the_same_command_again_does_what_is_missing(weights, folder, capsys):
    (folder / "broken.png").write_text("not yet")
    out = predict(weights, folder, code=1)
    before = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    (out / "overlays" / "b.jpg").unlink()
    Image.fromarray(picture(20, 30, seed=1)).save(folder / "a.png")  # another picture of the same name
    Image.fromarray(picture(20, 30, seed=2)).save(folder / "broken.png")
    predict(weights, folder)
    assert "3 done, 1 done before, 0 with problems" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    assert after[out / "masks" / "sub" / "c.png"] == before[out / "masks" / "sub" / "c.png"]
    with Image.open(out / "labels" / "a.png") as labels:
        assert labels.size == (30, 20)
    (out / "ledger.jsonl").open("a").write('{"name": "b", "so')  # a kill in the middle of a line
    predict(weights, folder)
    assert "0 done, 4 done before" in capsys.readouterr().out
    (out / "masks" / "b.png").unlink()
    predict(weights, folder)
    assert '"so{' not in (out / "ledger.jsonl").read_text()


def test_what_is_missing_is_done_in_the_batches_of_an_uninterrupted_run(weights, tmp_path, monkeypatch):
    folder, batches, segment_read = tmp_path / "in", [], LSegPredictor.segment_read
    folder.mkdir()
    for number, name in enumerate("abcdef"):
        Image.fromarray(picture(40 + number, 50)).save(folder / f"{name}.png")

    def noted(self, images, *arguments, **options):
        batches.append([image.shape[1] - 40 for image in images])
        return segment_read(self, images, *arguments, **options)

    monkeypatch.setattr(LSegPredictor, "segment_read", noted)
    whole = contents(predict(weights, folder, more=["--batch_size", 3]))
    assert batches == [[0, 1, 2], [3, 4, 5]]
    batches.clear()
    kept = folder.parent / "out" / "masks" / "f.png"
    before = kept.stat().st_mtime_ns
    for name in "bde":
        (kept.parent / f"{name}.png").unlink()
    out = predict(weights, folder, more=["--batch_size", 3])
    assert batches == [[1], [3, 4]] and kept.stat().st_mtime_ns == before
    assert contents(out).keys() == whole.keys()


def test_other_settings_are_refused_by_name_and_overwrite_does_all_again(weights, folder):
    out = predict(weights, folder)
    with pytest.raises(InputError, match=r"other settings:\n  labels: .*dog.* there, .*cat.* now\n.*--overwrite"):
        predict(weights, folder, more=["--labels", "cat, grass"])
    with pytest.raises(InputError, match='mode: "whole" there, "windows" now'):
        predict(weights, folder, more=["--mode", "windows"])
    assert json.loads((out / "labels.json").read_text())["labels"] == LABELS
    predict(weights, folder, more=["--labels", "cat, grass", "--overwrite"])
    assert json.loads((out / "summary.json").read_text())["done"] == 3
    assert json.loads((out / "run.json").read_text())["settings"]["labels"] == ["cat", "grass"]


def test_overwrite_leaves_no_results_whose_numbers_would_mean_other_labels(weights, folder):
    out = predict(weights, folder, more=["--embeddings", "h5", "--pca", 3])
    predict(weights, folder, more=["--write", "json", "--labels", "cat, grass", "--overwrite"])
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["json"]
    predict(weights, folder, more=["--write", "json", "--embeddings", "h5", "--overwrite"])
    stored = json.loads((out / "embeddings" / "manifest.json").read_text())["embeddings"]
    assert len(stored) == 3 and (out / "embeddings" / "embeddings.h5").exists()


def test_results_of_another_precision_or_device_are_not_mixed_in(weights, folder):
    out = predict(weights, folder)
    predict(weights, folder, more=["--precision", "32"])  # what auto means on a CPU
    assert json.loads((out / "summary.json").read_text())["done_before"] == 3
    with pytest.raises(InputError, match='precision: "float32" there, "bfloat16" now'):
        predict(weights, folder, more=["--precision", "bf16"])
    run = json.loads((out / "run.json").read_text())
    run["settings"]["device"] = "cuda"
    (out / "run.json").write_text(json.dumps(run))
    with pytest.raises(InputError, match='device: "cuda" there, "cpu" now'):
        predict(weights, folder)


def test_a_full_disk_ends_the_run_and_the_next_one_resumes(weights, folder, monkeypatch, capsys):
    save, saved = Image.Image.save, []

    def full_after_five(self: Image.Image, path: Path, *more: object, **options: object) -> None:
        saved.append(path)
        if len(saved) > 5:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full_after_five)
        with pytest.raises(InputError, match="no room left on the disk"):
            predict(weights, folder)
    out = folder.parent / "out"
    assert "1 done, 0 done before" in capsys.readouterr().out
    assert len(saved) == 6  # the legend, three files of one picture, one of the next, and no more tries
    files(out)
    predict(weights, folder)
    assert "2 done, 1 done before, 0 with problems" in capsys.readouterr().out


def test_a_finished_run_does_not_build_the_network(weights, folder, monkeypatch, capsys):
    more = ["--embeddings", "npy"]
    line = arguments(weights, folder, more=more)
    del line[line.index("--labels") : line.index("--labels") + 2]
    assert predict_lseg.main(line) == 0
    (folder.parent / "out" / "embeddings" / "manifest.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(LSegPredictor, "from_checkpoint", None)  # calling it would fail
        assert predict_lseg.main(line) == 0
    assert "0 done, 3 done before" in capsys.readouterr().out
    assert len(manifest(folder.parent / "out")["embeddings"]) == 3
    with pytest.raises(InputError, match="labels: .*a red car.* there, .*sky.* now"):
        predict(weights, folder, more=more)


def test_a_folder_is_used_by_one_run_at_a_time(weights, folder):
    out = folder.parent / "out"
    out.mkdir()
    code = "import sys, lseg_utils.lock as lock\nwith lock.locked(sys.argv[1], ''): print(flush=True), input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(out)], cwd=REPOSITORY, **pipes) as process:
        process.stdout.readline()
        with pytest.raises(InputError, match=rf"out is in use by process {process.pid} .*--output_dir"):
            predict(weights, folder)
        process.communicate(b"\n")
    predict(weights, folder)


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


def test_without_weights_the_checkpoint_of_the_quickstart_is_used(weights, folder, monkeypatch, capsys):
    monkeypatch.setattr(predict_lseg, "default_checkpoint", lambda: weights)
    line = arguments(weights, folder)
    del line[line.index("--weights") : line.index("--weights") + 2]
    assert predict_lseg.main(line) == 0
    assert str(weights) in capsys.readouterr().out
    run = json.loads((folder.parent / "out" / "run.json").read_text())
    assert run["settings"]["checkpoint"]["file"] == "tiny.ckpt"


# ------------------------------------------------------------------------------------------------------ bad options


def test_everything_wrong_with_a_command_is_reported_at_once(weights, folder, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "nothing").mkdir()
    wrong = ["--labels", " , ", "--write", "overlay,pixels", "--batch_size", 0, "--opacity", 2]
    more = [*wrong, "--embedding_size", "big", "--output_dir", tmp_path / "file" / "out"]
    with pytest.raises(InputError) as error:
        predict(weights, folder, "missing.jpg", tmp_path / "nothing", more=more)
    expected = (
        *("missing.jpg", f"{tmp_path / 'nothing'}", "'pixels'", "--batch_size is 0", "--opacity is 2"),
        *("--output_dir", "' , '", "--embedding_size is 'big'"),
    )
    assert [text for text in expected if text not in str(error.value)] == []


def test_a_folder_of_other_files_is_refused_for_results(weights, folder):
    with pytest.raises(InputError, match="is an input and also the output folder"):
        predict(weights, folder, more=["--output_dir", folder])
    with pytest.raises(InputError, match="contains files, but no earlier run .* --output_dir"):
        predict(weights, folder / "a.png", more=["--output_dir", folder, "--overwrite"])
    assert files(folder) == ["a.png", "b.png", "sub/c.jpg"]
    (folder.parent / "out").mkdir()
    (folder.parent / "out" / ".hidden").touch()
    predict(weights, folder)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--labels", "labels.txt"], "cannot read the label file labels.txt"),
        (["--labels", "word " * 100], "longer than"),
        (["--pca", "2"], "--pca is 2; .* 3"),
        (["--pca", "99999"], "--pca is 99999"),
        (["--write", "none"], "nothing to write"),
        (["--write", "none,mask"], "none cannot be combined"),
        (["--embedding_variant", "raw", "--embedding_multi_scale"], "variant, --embedding_multi_scale: no embeddings"),
        (["--weights", "no.ckpt"], "there is no file"),
        (["--device", "warp"], "warp"),
    ],
)
def test_bad_options_are_explained(weights, folder, more, message):
    with pytest.raises(InputError, match=message):
        predict(weights, folder, more=more)


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


def test_overwrite_deletes_nothing_of_another_programs_run(weights, folder, tmp_path):
    out = tmp_path / "theirs"
    (out / "masks").mkdir(parents=True)
    (out / "masks" / "1.txt").write_text("precious")
    (out / "run.json").write_text('{"experiment": 7}')
    with pytest.raises(InputError, match="was not written by this script"):
        predict(weights, folder, more=["--output_dir", out, "--overwrite"])
    assert (out / "masks" / "1.txt").read_text() == "precious"


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


def test_a_name_that_is_not_utf8_and_a_long_number_are_explained(weights, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(picture(20, 30)).save(tmp_path / name)
    with pytest.raises(InputError, match=r"is not UTF-8.*\n?.*") as error:
        predict(weights, tmp_path, "20241124001340", more=["--output_dir", tmp_path.parent / "out"])
    assert "there is no file or folder 20241124001340" in str(error.value)


def test_one_label_alone_is_doubted(weights, folder, capsys):
    out = predict(weights, folder / "a.png", more=["--labels", "labls", "--write", "json"])
    assert "note: 'labls' is the only label, so every pixel gets it (there is no file" in capsys.readouterr().out
    assert json.loads((out / "labels.json").read_text())["labels"] == ["labls"]


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


# ------------------------------------------------------------------------------------------------------------ videos


def test_a_video_keeps_its_frames_and_each_is_segmented(weights, tmp_path):
    clip = video(tmp_path / "clip.mp4", 10, 47, 63)  # stored as 48 x 64
    out = predict(weights, clip, more=["--batch_size", 1])  # as the predictor below: rounding depends on the batch
    frames = list(VideoFile(clip))
    predictor = LSegPredictor.from_checkpoint(weights, "cpu")
    facts = json.loads((out / "json" / "clip.json").read_text())
    assert (facts["frames"], facts["frames_per_second"], facts["problem"]) == (10, 24, None)
    for number, frame in enumerate(frames):
        with Image.open(out / "labels" / "clip.frames" / f"{number:06d}.png") as labels:
            mask = np.asarray(labels)
        np.testing.assert_array_equal(mask, predictor.segment(frame.pixels, LABELS).mask)
        assert facts["pixels_by_frame"][number] == {str(i): int((mask == i).sum()) for i in np.unique(mask)}
    for kind in ("overlays", "masks"):
        written = VideoFile(out / kind / "clip.mp4")
        assert written.timing.rate == 24 and [f.ticks for f in written] == [f.ticks for f in frames]
    assert not (out / ".unfinished_videos").exists()


@pytest.mark.slow
def test_a_killed_run_resumes_and_gives_the_same_results(weights, folder):
    video(folder / "sub" / "a_clip.mp4", 30)  # after a.png and b.png, before c.jpg
    more = ["--batch_size", 2]
    whole = contents(predict(weights, folder, more=more))
    out = folder.parent / "out"
    out.rename(folder.parent / "whole")
    frames = out / "labels" / "sub" / "a_clip.frames"
    kill_when(lambda: len(list(frames.glob("[!.]*.png"))) >= 9, arguments(weights, folder, more=more))
    kept = sorted(frames.glob("[!.]*.png"))
    again = [out / "labels" / "a.png", kept[0]]
    times = [path.stat().st_mtime_ns for path in again]
    assert 9 <= len(kept) < 30 and not (out / "overlays" / "sub" / "a_clip.mp4").exists()
    predict(weights, folder, more=more)
    assert differing(contents(out), whole) == []
    assert [path.stat().st_mtime_ns for path in again] == times  # they were not done again
    assert json.loads((out / "summary.json").read_text())["done_before"] == 2


def test_an_interrupted_gif_resumes(weights, tmp_path, monkeypatch):
    clip = video(tmp_path / "clip.mp4", 9)
    more = ["--video_format", "gif", "--batch_size", 2]
    whole = contents(predict(weights, clip, more=more))
    out = tmp_path / "out"
    out.rename(tmp_path / "whole")
    interrupt(weights, clip, monkeypatch, more)
    assert len(list((out / "labels" / "clip.frames").glob("*.png"))) == 4
    predict(weights, clip, more=more)
    assert differing(contents(out), whole) == []
    with Image.open(out / "overlays" / "clip.gif") as film:
        assert film.n_frames == 9


def interrupt(weights, clip: Path, monkeypatch: pytest.MonkeyPatch, more: list[object]) -> None:
    """Run until the third batch goes through the network, and press Ctrl-C there."""
    calls, segment_read = [], LSegPredictor.segment_read

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return segment_read(self, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LSegPredictor, "segment_read", interrupted)
        predict(weights, clip, more=more)


def test_another_video_of_the_same_name_does_not_inherit_frames(weights, tmp_path, monkeypatch):
    clip = video(tmp_path / "clip.mp4", 30)
    interrupt(weights, clip, monkeypatch, [])
    frames = [frame.pixels for frame in VideoFile(video(tmp_path / "clip.mp4", 4, 64, 64))]
    out = predict(weights, clip)
    with Image.open(out / "labels" / "clip.frames" / "000000.png") as labels:
        expected = LSegPredictor.from_checkpoint(weights, "cpu").segment(frames[0], LABELS).mask
        np.testing.assert_array_equal(np.asarray(labels), expected)
    assert len(list((out / "labels" / "clip.frames").iterdir())) == 4


def test_a_cut_off_video_keeps_its_whole_frames_and_is_reported_every_time(weights, tmp_path, capsys):
    data = video(tmp_path / "whole.mp4", 30).read_bytes()
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(data[: len(data) * 6 // 10])
    out = predict(weights, clip, code=1)
    assert "damaged or cut off after" in capsys.readouterr().err
    facts = json.loads((out / "json" / "clip.json").read_text())
    assert 3 < facts["frames"] < 30 and "cut off" in facts["problem"]
    assert len(list(VideoFile(out / "overlays" / "clip.mp4"))) == facts["frames"]
    predict(weights, clip, code=1)
    captured = capsys.readouterr()
    assert "cut off" in captured.err and "0 done, 1 done before, 1 with problems" in captured.out


def test_max_frames(weights, tmp_path):
    out = predict(weights, video(tmp_path / "clip.mp4", 10), more=["--max_frames", 3, "--write", "mask"])
    assert len(list(VideoFile(out / "masks" / "clip.mp4"))) == 3
    assert not (out / "labels").exists() and not (out / ".unfinished_videos").exists()


class StoppedCamera(FakeCamera):
    """Somebody presses Ctrl-C while the fourth picture is taken."""

    def read(self) -> tuple[bool, np.ndarray]:
        if self.taken == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return super().read()


def test_a_camera_stops_at_ctrl_c_or_after_max_frames(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", StoppedCamera)
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    for more, frames in (([], 4), (["--max_frames", 2], 2)):
        out = tmp_path / f"out{frames}"
        predict(weights, "0", more=[*more, "--output_dir", out])
        (film,) = (out / "overlays").iterdir()
        assert film.name.startswith("camera0_") and len(list(VideoFile(film))) == frames
    assert signal.getsignal(signal.SIGINT) is handler


# -------------------------------------------------------------------------------------------------------- embeddings


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


@pytest.mark.parametrize("more", [[], ["--pca", 3]])
def test_a_kill_during_overwrite_leaves_nothing_old_under_the_new_settings(weights, folder, monkeypatch, more):
    out = predict(weights, folder, more=["--pca", 3])
    old = (out / "pca.npz").read_bytes()

    def killed(path: Path, content: object) -> None:
        assert path.name == "run.json" and not (out / "ledger.jsonl").exists() and not (out / "pca.npz").exists()
        raise KeyboardInterrupt

    again = ["--embedding_variant", "raw", "--overwrite"] if more else ["--mode", "windows", "--overwrite"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(journal, "write_json", killed)
        predict(weights, folder, more=[*more, *again])
    predict(weights, folder, more=[*more, *again])
    assert not more or (out / "pca.npz").read_bytes() != old
