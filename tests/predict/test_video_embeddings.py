"""predict_lseg.py --embeddings on videos and a camera: every frame's, after kills too, and never another video's."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from apps.predict import lookahead
from apps.predict.embeddings import EmbeddingWriter
from apps.predict.options import EmbeddingOptions
from apps.predict.sources import find_sources
from apps.predict.video_reader import VideoFile
from lseg_utils.errors import InputError
from modules.predictor import LSegPredictor
from predict_script import (
    FakeCamera,
    arguments,
    contents,
    differing,
    files,
    interrupt,
    kill_when,
    manifest,
    predict,
    stored,
    video,
)
from predicting import picture

ALONE = ["--write", "none", "--embedding_size", "6x8"]


@pytest.fixture(params=["npy", "pt", "h5"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "h5":
        pytest.importorskip("h5py")
    return request.param


def same_as_embed(weights: Path, out: Path, clip: Path) -> None:
    """The manifest lists all frames of the video and no others, and the arrays are those of the predictor."""
    predictor, entries = LSegPredictor.from_checkpoint(weights, "cpu"), manifest(out)["embeddings"]
    frames = list(VideoFile(clip))
    assert [(entry["name"], entry["frame"]) for entry in entries] == [
        (f"clip.frames/{i:06d}", i) for i in range(len(frames))
    ]
    for entry, frame in zip(entries, frames, strict=True):
        expected = predictor.embed(frame.pixels, (6, 8)).half().numpy()
        found = stored(out, entry)
        assert entry["shape"] == list(found.shape) and found.dtype == np.float16
        assert entry["source"] == str(clip)
        np.testing.assert_array_equal(found, expected)


def test_embeddings_of_a_video_are_those_of_its_frames(weights, tmp_path, kind, capsys):
    clip = video(tmp_path / "clip.mp4", 5, 47, 63)
    out = predict(weights, clip, more=["--embeddings", kind, *ALONE])
    assert "1 video with about 5 frames need about 1 MB of disk space\n" in capsys.readouterr().out
    same_as_embed(weights, out, clip)
    one = {
        "npy": "embeddings/clip.frames/000004.npy",
        "pt": "embeddings/clip.frames/000004.pt",
        "h5": "embeddings/embeddings.h5",
    }
    assert one[kind] in files(out) and not (out / ".unfinished_videos").exists()
    assert not {"overlays", "masks", "labels", "json"} & {path.name for path in out.iterdir()}
    predict(weights, clip, more=["--embeddings", kind, *ALONE])
    assert "0 done, 1 done before" in capsys.readouterr().out
    same_as_embed(weights, out, clip)


def test_they_can_be_added_to_the_masks_of_a_finished_video(weights, tmp_path):
    clip = video(tmp_path / "clip.mp4", 3)
    before = contents(predict(weights, clip))
    out = predict(weights, clip, more=["--embeddings", "npy", *ALONE])
    same_as_embed(weights, out, clip)
    kept = [name for name in before if name.split("/")[0] in ("overlays", "masks", "labels", "json")]
    assert len(kept) == 6 and {name: contents(out)[name] for name in kept} == {name: before[name] for name in kept}
    assert json.loads((out / "summary.json").read_text())["areas"]  # still counted
    (out / "embeddings" / "clip.frames" / "000001.npy").unlink()
    predict(weights, clip, more=["--embeddings", "npy", *ALONE, "--write", "mask"])  # what is missing is seen
    same_as_embed(weights, out, clip)


@pytest.mark.slow
def test_a_killed_run_resumes_and_gives_the_same_results(weights, tmp_path):
    clip = video(tmp_path / "clip.mp4", 30)
    more = ["--batch_size", 2, "--embeddings", "npy", "--pca", 3]
    whole = contents(predict(weights, clip, more=more))
    assert "pca/clip.frames/000029.png" in whole and "embeddings/clip.frames/000029.npy" in whole
    out = tmp_path / "out"
    out.rename(tmp_path / "whole")
    frames = out / "embeddings" / "clip.frames"
    kill_when(lambda: len(list(frames.glob("[!.]*.npy"))) >= 9, arguments(weights, clip, more=more))
    kept = sorted(frames.glob("[!.]*.npy"))
    assert 9 <= len(kept) < 30 and not (out / "overlays" / "clip.mp4").exists()
    time = kept[0].stat().st_mtime_ns
    predict(weights, clip, more=more)
    assert differing(contents(out), whole) == []
    assert kept[0].stat().st_mtime_ns == time  # not done again


def test_an_interrupted_hdf5_run_resumes(weights, tmp_path):
    pytest.importorskip("h5py")
    clip, more = video(tmp_path / "clip.mp4", 5), ["--embeddings", "h5", *ALONE]
    interrupt("embed", 4, arguments(weights, clip, more=more))
    assert len(list((tmp_path / "out" / "embeddings" / ".parts" / "clip.frames").iterdir())) == 3
    same_as_embed(weights, predict(weights, clip, more=more), clip)


def test_another_video_of_the_same_name_inherits_nothing(weights, tmp_path, kind):
    clip, more = tmp_path / "clip.mp4", ["--embeddings", kind, "--pca", 3, "--write", "none"]
    video(clip, 6)
    out = predict(weights, clip, more=more)
    old = {entry["name"]: stored(out, entry) for entry in manifest(out)["embeddings"]}
    interrupt(
        "embed", 3, arguments(weights, video(clip, 5, 40, 40), more=more)
    )  # a second one is begun, and a third one comes
    predict(weights, video(clip, 3, 64, 48), more=more)
    new = {entry["name"]: stored(out, entry) for entry in manifest(out)["embeddings"]}
    assert list(old) == [f"clip.frames/{i:06d}" for i in range(6)] and list(new) == [
        f"clip.frames/{i:06d}" for i in range(3)
    ]
    assert {array.shape for array in old.values()} == {(24, 32, 3)}
    assert {array.shape for array in new.values()} == {(32, 24, 3)}
    assert len(list((out / "pca" / "clip.frames").iterdir())) == 3
    if kind == "h5":
        with pytest.importorskip("h5py").File(out / "embeddings" / "embeddings.h5") as file:
            assert len(file["clip.frames"]) == 3
    else:
        assert len(list((out / "embeddings" / "clip.frames").iterdir())) == 3


def test_whole_frames_of_a_cut_off_video_are_embedded(weights, tmp_path, capsys):
    data, clip = video(tmp_path / "whole.mp4", 30).read_bytes(), tmp_path / "clip.mp4"
    clip.write_bytes(data[: len(data) * 6 // 10])
    out = predict(weights, clip, code=1, more=["--embeddings", "npy", *ALONE])
    assert "damaged or cut off after" in capsys.readouterr().err
    entries = manifest(out)["embeddings"]
    assert 3 < len(entries) < 30 and len(list((out / "embeddings" / "clip.frames").iterdir())) == len(entries)


def test_a_frame_too_large_to_embed_is_the_problem_of_its_video(weights, tmp_path, capsys):
    folder = tmp_path / "in"
    video(folder / "clip.mp4", 2)
    Image.fromarray(picture(40, 50)).save(folder / "b.png")
    shape_of = EmbeddingWriter.shape

    def shape(self, height: int, width: int) -> list[int]:
        if (height, width) == (48, 64):
            raise InputError("embeddings of a frame take 9 GB")
        return shape_of(self, height, width)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddingWriter, "shape", shape)
        out = predict(weights, folder, code=1, more=["--embeddings", "npy", *ALONE])
    assert "clip.mp4: embeddings of a frame take 9 GB" in capsys.readouterr().err
    assert [entry["name"] for entry in manifest(out)["embeddings"]] == ["b"]


class PulledCamera(FakeCamera):
    """It is pulled out after three pictures."""

    pictures = 3


def test_a_camera_has_embeddings_but_gives_no_basis(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", PulledCamera)
    monkeypatch.chdir(tmp_path)
    more = ["--output_dir", tmp_path / "out", "--embeddings", "npy", "--write", "none"]
    with pytest.raises(InputError, match=r"--pca fits its components to .* before a camera is"):
        predict(weights, "0", more=[*more, "--pca", 3])
    Image.fromarray(picture(40, 50)).save(tmp_path / "a.png")
    predict(weights, "a.png", "0", more=[*more, "--pca", 3])
    frames = [entry for entry in manifest(tmp_path / "out")["embeddings"] if "frame" in entry]
    assert [entry["frame"] for entry in frames] == [0, 1, 2] and {entry["source"] for entry in frames} == {"0"}
    pixels = cv2.cvtColor(picture(48, 64, seed=2), cv2.COLOR_BGR2RGB)
    basis = np.load(tmp_path / "out" / "pca.npz")
    full = LSegPredictor.from_checkpoint(weights, "cpu").embed(pixels, "half").numpy()
    expected = (full - basis["mean"]) @ basis["components"].T
    np.testing.assert_allclose(stored(tmp_path / "out", frames[1]).astype(np.float32), expected, atol=2e-3)


def test_samples_for_the_basis_are_spread_over_videos_and_their_frames(tmp_path):
    for name, length in (("a.mp4", 40), ("b.mp4", 3)):
        video(tmp_path / name, length)
    (tmp_path / "c.mp4").write_text("no video")
    for number in range(2):
        Image.fromarray(picture(20, 30, seed=number)).save(tmp_path / f"p{number}.png")

    def samples(*names: str, max_frames: int | None = None) -> list[np.ndarray | torch.Tensor]:
        sources, problems = find_sources([str(tmp_path / name) for name in names], tmp_path / "out")
        assert not problems
        return list(lookahead.sample_images(sources, 10**6, max_frames))

    frames = [frame.pixels for frame in VideoFile(tmp_path / "a.mp4")]
    alone = samples("a.mp4")
    assert len(alone) == 32
    np.testing.assert_array_equal(alone, [frames[i * 40 // 32] for i in range(32)])
    np.testing.assert_array_equal(samples("a.mp4", max_frames=4), frames[:4])
    mixed = samples("p0.png", "a.mp4", "b.mp4", "c.mp4", "p1.png")
    assert [tuple(sample.shape) for sample in mixed[:2]] == [(3, 20, 30)] * 2
    assert len(mixed) == 2 + 10 + 3  # (32 - 2) // 3 of each video; one is shorter, one cannot be read
    np.testing.assert_array_equal(mixed[2:12], [frames[4 * i] for i in range(10)])


def test_the_note_on_room_counts_by_hand_and_gives_advice(weights, tmp_path, monkeypatch):
    video(tmp_path / "a.mp4", 10)
    (tmp_path / "c.mp4").write_text("no video")
    Image.fromarray(picture(20, 30)).save(tmp_path / "p.png")
    sources, _ = find_sources([str(tmp_path)], tmp_path / "out")
    predictor = LSegPredictor.from_checkpoint(weights, "cpu")

    def note(
        size: tuple[int, int] | str, pca: int | None = None, max_frames: int | None = None, store: str = "npy"
    ) -> str:
        options = EmbeddingOptions(store, size, "unit", False, pca)
        return lookahead.size_note(sources, EmbeddingWriter(predictor, options, tmp_path, {}), max_frames)

    dimensions = predictor.net.text_encoder.embed_dim
    size = 11 * 1000 * 2000 * dimensions * 2 / 1e9
    assert note((1000, 2000)) == (
        f"embeddings of 1 picture and 1 video with about 10 frames need about {size:.1f} GB of disk space"
    )
    # In the file 32 x 32 chunks, so 1024 x 2016 pixels; while it is made everything is there once more.
    size = 11 * (1024 * 2016 + 1000 * 2000) * dimensions * 2 / 1e9
    assert f" {size:.1f} GB" in note((1000, 2000), store="h5")
    assert note("half", 5, 4).endswith("1 video with about 4 frames need about 1 MB of disk space")
    assert "--pca" not in note((1000, 2000))
    monkeypatch.setattr(lookahead, "LARGE", 1e9)
    assert note((1000, 2000)).endswith(
        "; --pca 64, --embeddings store or a smaller --embedding_size HEIGHTxWIDTH would need less"
    )
    sources[:] = [source for source in sources if source.name != "a"]
    assert note("half") == "embeddings of 1 picture need about 1 MB of disk space"
    sources[:] = [source for source in sources if source.name == "c"]
    assert note("half") == ""
