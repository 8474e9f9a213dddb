"""The frames of a video file or a camera, every one of them once, each with its time. Files need PyAV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np

from lseg_utils.errors import InputError

CAMERA_RATE = Fraction(30)  # frames a second, for a camera that does not say
MILLISECONDS = Fraction(1, 1000)
# A file may say that it is a little longer than its last frame; more than this many frames is a cut-off end.
MISSING_FRAMES = Fraction(3, 2)


class VideoError(InputError):
    """A video or camera cannot be opened, or ends before its end. The frames given out before are good."""


class Frame(NamedTuple):
    """pixels: uint8 (H, W, 3), RGB, upright; ticks: when it is shown, counted in the video's ``time_base``."""

    pixels: np.ndarray
    ticks: int


@dataclass(frozen=True)
class Timing:
    """time_base: seconds per tick; rate: frames per second on average; frames: about how many, None if unknown."""

    time_base: Fraction
    rate: Fraction
    frames: int | None = None


def import_av() -> ModuleType:
    """PyAV, silenced; ``InputError`` with the command that installs it where it is missing."""
    try:
        import av
    except ImportError as error:
        raise InputError("videos need PyAV: pip install av") from error
    # What FFmpeg has to say is in our messages, not between progress bars. With any level, even PANIC, its threads call
    # into Python, and closing a video that was not read to its end waits for them for ever, once in some hundred times.
    av.logging.set_level(None)
    return av


class VideoFile:
    """``timing``, and in a loop all frames in the order in which they are shown.

    Frames are turned upright as the file asks; frames of another size than the first are stretched to it.
    Raises ``VideoError`` when made, for a file that is no video, and in the loop, after the last whole frame, for one
    that ends in the middle or is damaged there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        av = import_av()
        try:
            with av.open(str(path)) as container:
                self.timing = _timing(container)
        except (av.FFmpegError, OSError, IndexError) as error:
            reason = "it holds no moving picture" if isinstance(error, IndexError) else error.strerror
            raise VideoError(f"{path} cannot be read as a video ({reason}); fetch it again, or convert it") from error

    def __iter__(self) -> Iterator[Frame]:
        av = import_av()
        count, last, size = 0, -1, None
        with av.open(str(self.path)) as container:
            try:
                for picture in _decoded(container, self.timing.rate):
                    size = size or (picture.width, picture.height)
                    pixels = picture.to_ndarray(format="rgb24", width=size[0], height=size[1])
                    usual = round(count / self.timing.rate / self.timing.time_base)
                    count, last = count + 1, max(usual if picture.pts is None else picture.pts, last + 1)
                    yield Frame(np.ascontiguousarray(np.rot90(pixels, picture.rotation // 90)), last)
            except (av.FFmpegError, VideoError) as error:
                reason = error if isinstance(error, VideoError) else error.strerror
                raise VideoError(
                    f"{self.path} is damaged or cut off after {count} whole frames ({reason}); fetch it again"
                ) from error


def _timing(container: Any) -> Timing:
    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate or CAMERA_RATE
    seconds = container.duration and Fraction(container.duration, 1_000_000)
    return Timing(stream.time_base, rate, stream.frames or (round(seconds * rate) if seconds else None))


def _decoded(container: Any, rate: Fraction) -> Iterator[Any]:
    """Decoded frames; ``VideoError`` with a short reason after the last one if the file ends before its time."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    end = Fraction(0)
    for packet in container.demux():
        if packet.is_corrupt and packet.stream is stream:
            yield from stream.codec_context.decode(None)  # those that still wait for their turn
            raise VideoError("a frame is incomplete")
        if packet.pts is not None:
            end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet.stream is stream:
            yield from packet.decode()
    if container.duration:
        missing = Fraction(container.duration + (container.start_time or 0), 1_000_000) - end
        if missing > MISSING_FRAMES / rate:
            raise VideoError(f"{float(missing):.1f} seconds are missing")


@contextmanager
def _opencv_silenced() -> Iterator[None]:
    """Keep OpenCV's own words off the screen: it complains of a missing camera once for each way to open one."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


class Camera:
    """The pictures of camera ``number``, as fast as they are asked for, each with the time at which it was taken.

    The loop ends with the camera. Raises ``VideoError`` where there is no such camera.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        with _opencv_silenced():
            self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise VideoError(f"camera {number} cannot be opened; check its number (0 is the first) and its rights")
        # Frames come when the network asks for them, so times are read off a clock, not counted.
        rate = Fraction(self._capture.get(cv2.CAP_PROP_FPS) or CAMERA_RATE).limit_denominator(1000)
        self.timing = Timing(MILLISECONDS, rate)

    def __iter__(self) -> Iterator[Frame]:
        start, last = time.monotonic(), -1
        try:
            while True:
                there, pixels = self._capture.read()
                if not there:
                    return
                last = max(round((time.monotonic() - start) * 1000), last + 1)
                yield Frame(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), last)
        finally:
            self._capture.release()
