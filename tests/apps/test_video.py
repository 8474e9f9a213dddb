"""Videos in and out: every frame once, at its time; files that end in the middle; files that are never half-written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from apps.predict.video_reader import Camera, Frame, VideoError, VideoFile
from apps.predict.video_writer import WRITERS
from lseg_utils.errors import InputError
from predict_script import TIMING, write_video

av = pytest.importorskip("av")


def moving_square(count: int, height: int = 48, width: int = 64) -> Iterator[Frame]:
    """A white square that moves by two pixels a frame over grey, on which a grey level counts the frames."""
    for number in range(count):
        pixels = np.full((height, width, 3), 4 * number, np.uint8)
        pixels[10:20, 2 * number : 2 * number + 10] = 255
        yield Frame(pixels, number)


def noise(count: int) -> Iterator[Frame]:
    """Frames that take many bytes each, so that a cut falls into one."""
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for number in range(count):
        yield Frame(np.roll(picture, 3 * number, axis=1), number)


def levels(frames: Iterator[Frame]) -> list[int]:
    """The number that each frame of ``moving_square`` carries, read off its lower half."""
    return [round(frame.pixels[30:].mean() / 4) for frame in frames]


def rotated(path: Path, to: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A copy of an MP4 whose track header asks players to turn it."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    for place, value in zip((0, 1, 3, 4), matrix):
        data[start + 4 * place : start + 4 * place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    to.write_bytes(data)
    return to


def test_mp4_keeps_every_frame_its_rate_and_its_order(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.mp4"
    write_video(path, moving_square(25))
    video = VideoFile(path)
    assert video.timing.rate == 24 and video.timing.frames == 25
    frames = list(video)
    assert levels(iter(frames)) == list(range(25))
    assert [frame.ticks * video.timing.time_base for frame in frames] == [Fraction(i, 24) for i in range(25)]
    capture = cv2.VideoCapture(str(path))  # another reader agrees
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (24, 25)
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving_square(3))
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it plays before it is loaded


def test_odd_sides_are_filled_up_and_uneven_times_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    ticks = [0, 3, 4, 10]
    frames = (Frame(frame.pixels, at) for frame, at in zip(moving_square(4, 47, 63), ticks))
    write_video(path, frames)
    video = VideoFile(path)
    found = list(video)
    assert found[0].pixels.shape == (48, 64, 3)
    assert [frame.ticks * video.timing.time_base * 24 for frame in found] == ticks
    bottom = found[1].pixels[46:].astype(int)
    assert np.abs(bottom[0] - bottom[1]).max() < 12  # the last row again


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for suffix in WRITERS:
            write_video(tmp_path / f"{name}.{suffix}", moving_square(10))
    for suffix in WRITERS:
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_gif_keeps_every_frame_and_the_length(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    write_video(path, moving_square(24))
    with Image.open(path) as picture:
        times = []
        for number in range(picture.n_frames):
            picture.seek(number)
            times.append(picture.info["duration"])
    assert len(times) == 24 and sum(times) == 1000 and set(times) == {40, 50}


def test_no_frames_no_file(tmp_path: Path) -> None:
    for suffix in WRITERS:
        with pytest.raises(VideoError, match="no frame"):
            write_video(tmp_path / f"a.{suffix}", iter([]))
    assert list(tmp_path.iterdir()) == []


# The rows of the track header's matrix are where right and down go; quarters are turned anticlockwise.
@pytest.mark.parametrize(("matrix", "quarters"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_frames_are_turned_upright(tmp_path: Path, matrix: tuple[int, int, int, int], quarters: int) -> None:
    write_video(tmp_path / "a.mp4", moving_square(2))
    stored = next(iter(VideoFile(tmp_path / "a.mp4"))).pixels
    path = rotated(tmp_path / "a.mp4", tmp_path / "turned.mp4", matrix)
    turned = next(iter(VideoFile(path))).pixels
    np.testing.assert_array_equal(turned, np.rot90(stored, quarters))
    if not cv2.__version__.startswith("4."):  # the wheel of 4.11 gives frames as they are stored
        np.testing.assert_array_equal(turned, cv2.VideoCapture(str(path)).read()[1][..., ::-1])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_file_cut_off_in_a_frame_gives_the_whole_frames_and_reports_it(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    options = {"movflags": "+faststart"} if suffix == "mp4" else {}
    with av.open(str(whole), "w", options=options) as container:
        stream = container.add_stream("mpeg4" if suffix == "avi" else "libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in noise(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.pixels, format="rgb24")))
        container.mux(stream.encode())
    expected = [frame.pixels for frame in VideoFile(whole)]
    assert len(expected) == 30
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 7 // 10])
    found = []
    with pytest.raises(VideoError, match=rf"cut\.{suffix} is damaged or cut off after \d+ complete frames") as error:
        for frame in VideoFile(cut):
            found.append(frame.pixels)
    assert 5 < len(found) < 30 and f"after {len(found)} complete" in str(error.value)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)


def transport_stream(path: Path) -> tuple[list[np.ndarray], bytes]:
    """60 frames in MPEG-TS with a key frame every 10: their pixels, and the bytes of the file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in noise(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.pixels, format="rgb24")))
        container.mux(stream.encode())
    return [frame.pixels for frame in VideoFile(path)], path.read_bytes()


@pytest.mark.parametrize("damage", ["lost", "zeros"])
def test_damaged_frames_of_a_transport_stream_are_left_out_and_the_rest_is_read(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.ts"
    whole, data = transport_stream(path)
    middle = len(data) // 2 // 188 * 188  # in whole packets
    path.write_bytes(data[:middle] + (b"" if damage == "lost" else bytes(3 * 188)) + data[middle + 3 * 188 :])
    found: list[Frame] = []
    with pytest.raises(VideoError, match=r"a\.ts has \d+ damaged frames, which were left out; "):
        for frame in VideoFile(path):
            found.append(frame)
    assert 48 <= len(found) < 60
    np.testing.assert_array_equal(found[-1].pixels, whole[-1])  # it was read to its end
    for frame in found:
        assert any(np.array_equal(frame.pixels, one) for one in whole)
    assert all(a.ticks < b.ticks for a, b in pairwise(found))


def test_a_transport_stream_that_is_cut_off_gives_its_whole_frames_and_reports_it(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    whole, data = transport_stream(path)
    path.write_bytes(data[: len(data) * 7 // 10])
    found = []
    with pytest.raises(VideoError, match="is damaged or cut off after"):
        for frame in VideoFile(path):
            found.append(frame.pixels)
    np.testing.assert_array_equal(found, whole[: len(found)])


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match=r"pipe\.mp4 is not a regular file"):
        VideoFile(tmp_path / "pipe.mp4")


def test_a_gif_is_written_frame_by_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    with WRITERS["gif"](path, TIMING) as add:
        sizes = []
        for frame in noise(20):
            add(frame)
            sizes.append((tmp_path / ".a.aside.gif").stat().st_size)
    assert sizes[-1] > 20_000  # not only at the end


def test_files_that_are_not_videos_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_video(tmp_path / "whole.mp4", moving_square(5))
    (tmp_path / "headless.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:200])
    for name in ("text.mp4", "empty.mp4", "headless.mp4", "missing.mp4"):
        with pytest.raises(VideoError, match=f"{name} cannot be read as a video"):
            VideoFile(tmp_path / name)


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text("old")

    def failing() -> Iterator[Frame]:
        yield from moving_square(3)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="no room left"):
        write_video(path, failing())
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


class FakeCapture:
    """What cv2.VideoCapture is to a camera that gives three pictures."""

    def __init__(self, number: int) -> None:
        self.number, self.left = number, 3

    def isOpened(self) -> bool:
        return self.number == 0

    def get(self, what: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.full((2, 2, 3), (255, 0, 0), np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.left = 0


def test_camera_gives_rgb_with_growing_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    frames = list(Camera(0))
    assert len(frames) == 3 and frames[0].pixels[0, 0].tolist() == [0, 0, 255]  # OpenCV's blue came first
    assert all(a.ticks < b.ticks for a, b in pairwise(frames))
    with pytest.raises(VideoError, match="camera 7 cannot be opened"):
        Camera(7)


def test_a_missing_camera_is_reported_in_our_words_alone(capfd: pytest.CaptureFixture[str]) -> None:
    logging = getattr(cv2.utils, "logging", cv2)
    level = logging.getLogLevel()
    with pytest.raises(VideoError, match="camera 990 cannot be opened"):
        Camera(990)
    assert capfd.readouterr().err == ""
    assert logging.getLogLevel() == level
