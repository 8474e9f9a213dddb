"""Videos that appear under their name only when they are complete: H.264 in MP4, which browsers play, or GIF."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from apps.predict.video_reader import Frame, Timing, import_av
from lseg_utils.files import write_aside

# x264's constant rate factor: lower is better, 18 is hard to tell from the original. Without mbtree=0 the same frames
# gave other bytes from run to run (PyAV 18.1, with one thread too), and a resumed video would not equal a whole one.
X264 = {"crf": "18", "x264-params": "mbtree=0"}
GIF_TICK = Fraction(1, 100)  # seconds; a GIF knows no finer times


def write_mp4(path: Path, frames: Iterable[Frame], timing: Timing) -> int:
    """Write all ``frames`` with their own times; returns how many there were (with none, no file is made).

    Frames are uint8 (H, W, 3) of one size. H.264 takes even sides only: odd ones get their last row or column twice.
    The same frames always give the same bytes.
    """
    av = import_av()
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return 0
    count = 0
    with write_aside(path) as aside, av.open(str(aside), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=timing.rate)
        height, width = _even(first.pixels).shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = X264
        stream.codec_context.time_base = timing.time_base
        for frame in chain([first], frames):
            picture = av.VideoFrame.from_ndarray(_even(frame.pixels), format="rgb24")
            picture.pts, picture.time_base = frame.ticks, timing.time_base
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode())
    return count


def _even(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def write_gif(path: Path, frames: Iterable[Frame], timing: Timing) -> int:
    """As :func:`write_mp4`, with at most 256 colours a frame and times in hundredths of a second.

    The time by which one frame is rounded is made up for by the next. Frames that are equal to the one before are
    not stored again: that one is shown for longer.
    """
    pictures = _timed(frames, timing)
    first = next(pictures, None)
    if first is None:
        return 0
    count = 1

    def others() -> Iterator[Image.Image]:
        nonlocal count
        for picture in pictures:
            count += 1
            yield picture

    with write_aside(path) as aside:
        first.save(aside, save_all=True, append_images=others(), loop=0)
    return count


def _timed(frames: Iterable[Frame], timing: Timing) -> Iterator[Image.Image]:
    """Pictures that carry their ``duration`` in milliseconds, known when the next frame is; the last one's is usual."""

    def shown(ticks: Fraction) -> int:
        return round(ticks * timing.time_base / GIF_TICK)

    usual = 1 / timing.rate / timing.time_base
    frames = iter(frames)
    frame = next(frames, None)
    while frame is not None:
        following = next(frames, None)
        end = following.ticks if following else frame.ticks + usual
        picture = Image.fromarray(frame.pixels)
        picture.info["duration"] = 10 * (shown(end) - shown(frame.ticks))
        yield picture
        frame = following


WRITERS: dict[str, Callable[[Path, Iterable[Frame], Timing], int]] = {"mp4": write_mp4, "gif": write_gif}
