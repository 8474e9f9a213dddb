"""The frames of a video file or a camera, each once and with its time. Files need PyAV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np

from lseg_utils.errors import InputError

CAMERA_RATE = Fraction(30)  # frames per second, for a camera that does not report its rate
MILLISECONDS = Fraction(1, 1000)
# A header may give a little more time than the last frame needs; more than this many frames is a cut-off end.
MISSING_FRAMES = Fraction(3, 2)


class VideoError(InputError):
    """A video or camera cannot be opened, or not all its frames can be read. The frames given out before are good."""


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
    """PyAV, silenced; ``InputError`` with the command that installs it if it is missing."""
    try:
        import av
    except ImportError as error:
        raise InputError("videos need PyAV: pip install av") from error
    # FFmpeg's own messages would end up between progress bars. With any level, even PANIC, its threads call into
    # Python, and once in some hundred times closing a video that was not read to its end then waits for them forever.
    av.logging.set_level(None)
    return av


class VideoFile:
    """``timing``, and in a loop all good frames in the order in which they are shown.

    Frames are turned upright as the file asks; frames of another size than the first are stretched to it. Where data
    is damaged or missing, the frames up to the next key frame are left out, since they would be computed from it.

    Raises ``VideoError`` when created, for a file that is not a video, and in the loop, after the last good frame,
    if frames were left out or the video ends too early.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        av = import_av()
        if path.exists() and not path.is_file():
            raise VideoError(f"{path} is not a regular file (a pipe, socket or device?); copy the video to a file")
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                rate = stream.average_rate or stream.guessed_rate or CAMERA_RATE
                seconds = container.duration and Fraction(container.duration, 1_000_000)
                frames = stream.frames or (round(seconds * rate) if seconds else None)
                self.timing = Timing(stream.time_base, rate, frames)
        # A stream's name or its rate may be damaged too, which raises a ValueError or an ArithmeticError.
        except (av.FFmpegError, OSError, IndexError, ValueError, ArithmeticError) as error:
            empty = "it contains no video stream" if isinstance(error, IndexError) else ""
            reason = empty or getattr(error, "strerror", None) or error
            raise VideoError(f"{path} cannot be read as a video ({reason}); fetch it again, or convert it") from error

    def __iter__(self) -> Iterator[Frame]:
        av = import_av()
        count, last, size, damage = 0, -1, None, _Damage()
        with av.open(str(self.path)) as container:
            try:
                for picture in _decoded(container, damage):
                    size = size or (picture.width, picture.height)
                    pixels = picture.to_ndarray(format="rgb24", width=size[0], height=size[1])
                    usual = round(count / self.timing.rate / self.timing.time_base)
                    count, last = count + 1, max(usual if picture.pts is None else picture.pts, last + 1)
                    yield Frame(np.ascontiguousarray(np.rot90(pixels, picture.rotation // 90)), last)
            except av.FFmpegError as error:  # of the file, not of a frame: nothing follows
                damage.at_end = damage.at_end or error.strerror
            missing = Fraction(0)  # seconds by which the video ends before the time that its header gives
            if container.duration:
                missing = Fraction(container.duration + (container.start_time or 0), 1_000_000) - damage.end
        if missing > MISSING_FRAMES / self.timing.rate:
            damage.at_end = damage.at_end or f"{float(missing):.1f} seconds are missing"
        problems = [f"has {damage.skipped} damaged frames, which were left out"] if damage.skipped else []
        if damage.at_end:
            problems.append(f"is damaged or cut off after {count} complete frames ({damage.at_end})")
        if problems:
            raise VideoError(f"{self.path} {', and '.join(problems)}; fetch it again")


@dataclass
class _Damage:
    """skipped: damaged frames with good ones after them; at_end: what is wrong with the end; end: last time seen."""

    skipped: int = 0
    at_end: str = ""
    end: Fraction = Fraction(0)


def _decoded(container: Any, damage: _Damage) -> Iterator[Any]:
    """The decoded frames of the first video stream; ``damage`` describes what is left out."""
    av = import_av()
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    skipped = 0  # packets since the damage that was met last
    for packet in container.demux():
        if packet.pts is not None:
            damage.end = max(damage.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet.stream is not stream:
            continue
        try:
            if packet.is_corrupt:
                raise av.InvalidDataError(0, "a frame is incomplete")
            if skipped and not packet.is_keyframe:
                skipped += bool(packet.size)  # the last packet, which is empty, ends the stream
                continue
            damage.skipped, skipped, damage.at_end = damage.skipped + skipped, 0, ""
            for picture in packet.decode():
                if picture.is_corrupt:
                    stream.codec_context.flush_buffers()  # what waits may be computed from it
                    raise av.InvalidDataError(0, "a frame is incomplete")
                yield picture
        except av.InvalidDataError as error:
            skipped, damage.at_end = skipped + 1, error.strerror
            yield from stream.codec_context.decode(None)  # the good frames that wait for their turn
            stream.codec_context.flush_buffers()


class Camera:
    """The pictures of camera ``number``, as fast as they are asked for, each with the time at which it was taken.

    The loop ends with the camera. Raises ``VideoError`` where there is no such camera.
    """

    def __init__(self, number: int) -> None:
        # OpenCV complains about a missing camera once for each way to open it: its own words stay off the screen.
        logging = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has these functions in cv2 itself
        level = logging.setLogLevel(0)  # silent
        try:
            self._capture = cv2.VideoCapture(number)
        finally:
            logging.setLogLevel(level)
        if not self._capture.isOpened():
            raise VideoError(
                f"camera {number} cannot be opened; check its number (0 is the first) and the permission to use it"
            )
        # Frames come when the network asks for them, so their times are read from a clock, not counted.
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
