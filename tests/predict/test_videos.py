"""predict_lseg.py on videos and a camera: every frame is segmented, also after an interruption."""

from __future__ import annotations

import json
import os
import signal

import cv2
import numpy as np
from PIL import Image

from apps.predict.video_reader import VideoFile
from modules.predictor import LSegPredictor
from predict_script import (
    LABELS,
    FakeCamera,
    arguments,
    contents,
    differing,
    interrupt,
    predict,
    video,
)


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


def test_an_interrupted_gif_resumes(weights, tmp_path):
    clip = video(tmp_path / "clip.mp4", 9)
    more = ["--video_format", "gif", "--batch_size", 2]
    whole = contents(predict(weights, clip, more=more))
    out = tmp_path / "out"
    out.rename(tmp_path / "whole")
    interrupt("segment_read", 3, arguments(weights, clip, more=more))
    assert len(list((out / "labels" / "clip.frames").glob("*.png"))) == 4
    predict(weights, clip, more=more)
    assert differing(contents(out), whole) == []
    with Image.open(out / "overlays" / "clip.gif") as film:
        assert film.n_frames == 9


def test_another_video_of_the_same_name_does_not_inherit_frames(weights, tmp_path):
    clip = video(tmp_path / "clip.mp4", 30)
    interrupt("segment_read", 3, arguments(weights, clip))
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
