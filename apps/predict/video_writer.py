"""Videos that appear under their name only when they are complete: H.264 in MP4, which browsers play, or GIF."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import getdata

from apps.predict.video_reader import Frame, Timing, VideoError, import_av
from lseg_utils.files import write_aside

# x264's constant rate factor: lower is better, 18 is hard to tell from the original. Without mbtree=0 the same frames
# gave other bytes from run to run (PyAV 18.1, with one thread too), and a resumed video would not equal a whole one.
X264 = {"crf": "18", "x264-params": "mbtree=0"}
GIF_TICK = Fraction(1, 100)  # seconds, the unit of times in a GIF
# A GIF's header for a width and height, without a palette for all frames, and the extension that makes it loop.
GIF_HEADER, GIF_LOOP, GIF_END = "<6sHHBBB", b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00", b";"

AddFrame = Callable[[Frame], None]


@contextmanager
def mp4_writer(path: Path, timing: Timing) -> Iterator[AddFrame]:
    """Give a function that adds a frame, at its own time, to the video ``path``, which is complete after the block.

    Frames are uint8 (H, W, 3) of one size. H.264 needs even sides: odd ones get their last row or column twice. The
    same frames always give the same bytes. Raises ``VideoError`` after a block that added no frame.
    """
    av = import_av()
    stream = None
    with write_aside(path) as aside, av.open(str(aside), "w", options={"movflags": "+faststart"}) as container:

        def add(frame: Frame) -> None:
            """Encode a frame; the first one decides on the size of the video."""
            nonlocal stream
            height, width = frame.pixels.shape[:2]
            pixels = np.pad(frame.pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream("libx264", rate=timing.rate)
                stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
                stream.options = X264
                stream.codec_context.time_base = timing.time_base
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = frame.ticks, timing.time_base
            container.mux(stream.encode(picture))

        yield add
        if stream is None:
            raise VideoError(f"there is no frame to write to {path}")
        container.mux(stream.encode())


@contextmanager
def gif_writer(path: Path, timing: Timing) -> Iterator[AddFrame]:
    """As :func:`mp4_writer`, with at most 256 colours per frame and times in hundredths of a second.

    The next frame makes up for the time by which one is rounded. Only two frames are in memory.
    """
    waiting: Frame | None = None  # for the next frame, which tells how long it is shown
    with write_aside(path) as aside, aside.open("wb") as file:

        def write(frame: Frame, end: Fraction | int) -> None:
            """Encode a frame that is shown until ``end``."""
            if not file.tell():
                height, width = frame.pixels.shape[:2]
                file.write(struct.pack(GIF_HEADER, b"GIF89a", width, height, 0, 0, 0) + GIF_LOOP)
            start, end = (round(ticks * timing.time_base / GIF_TICK) for ticks in (frame.ticks, end))
            picture = Image.fromarray(frame.pixels).convert("P", palette=Image.Palette.ADAPTIVE)
            for block in getdata(picture, duration=10 * (end - start), include_color_table=True):
                file.write(block)

        def add(frame: Frame) -> None:
            """Write the frame before this one, which is shown until this one begins."""
            nonlocal waiting
            if waiting is not None:
                write(waiting, frame.ticks)
            waiting = frame

        yield add
        if waiting is None:
            raise VideoError(f"there is no frame to write to {path}")
        write(waiting, waiting.ticks + 1 / timing.rate / timing.time_base)
        file.write(GIF_END)


WRITERS: dict[str, Callable[[Path, Timing], AbstractContextManager[AddFrame]]] = {"mp4": mp4_writer, "gif": gif_writer}
