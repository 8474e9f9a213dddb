"""The same command of predict_lseg.py again does what is missing, after kills too, and mixes no other settings in."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import predict_lseg
from apps.predict import journal
from lseg_utils.errors import InputError
from modules.predictor import LSegPredictor
from predict_script import (
    LABELS,
    arguments,
    contents,
    differing,
    files,
    kill_when,
    manifest,
    predict,
    video,
)
from predicting import picture
from scripts import REPOSITORY


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
        if isinstance(path, io.BytesIO):  # a picture inside a page
            return save(self, path, *more, **options)
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
