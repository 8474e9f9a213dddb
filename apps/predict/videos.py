"""A video through the network: frames in, results of each kept one by one, videos of the same frames out."""

from __future__ import annotations

import shutil
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from apps.predict.embeddings import EmbeddingWriter, Place
from apps.predict.outputs import KINDS, Outputs, count, frame_name, read_label_png, save_label_png
from apps.predict.sources import Source
from apps.predict.video_reader import Camera, Frame, Timing, VideoError, VideoFile
from apps.predict.video_writer import WRITERS
from lseg_utils.errors import InputError
from lseg_utils.files import replace_folder
from lseg_utils.pictures import colourise, overlay
from lseg_utils.progress import progress_bar

Segmenter = Callable[[Sequence[np.ndarray]], list[np.ndarray]]  # pictures (H, W, 3) -> label maps (H, W)


@dataclass
class VideoResult:
    """size: height, width; embedding: what the journal notes of a frame's, if there are; areas: label number ->
    pixels; by_frame: the same of each frame; ticks: when each is shown; problem: why the video ended early, or "".
    """

    size: tuple[int, int] = (0, 0)
    embedding: dict[str, Any] | None = None
    areas: Counter[int] = field(default_factory=Counter)
    by_frame: list[dict[int, int]] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    problem: str = ""

    def add_frame(self, frame: Frame) -> None:
        """Note a frame that will be done."""
        self.size = frame.pixels.shape[:2]
        self.ticks.append(frame.ticks)

    def add_mask(self, mask: np.ndarray) -> None:
        """Count the label map of a frame."""
        self.by_frame.append(count(mask))
        self.areas.update(self.by_frame[-1])


def predict_video(
    source: Source,
    outputs: Outputs,
    segment: Segmenter,
    embeddings: EmbeddingWriter | None,
    batch_size: int,
    max_frames: int | None,
) -> VideoResult:
    """Write all results of a video or camera.

    Label map and embedding of each frame are kept in a folder until all is done, so that a killed run goes on with the
    frame after the last one; videos are encoded from the first frame again, and come out as if there had been no kill.
    A camera stops at ``max_frames`` or Ctrl-C. Of a video that is cut off, all whole frames are written, and
    ``problem`` tells. Raises ``VideoError`` if there is not one frame, or its embedding would be too large.
    """
    video = Camera(int(source.path.name)) if source.kind == "camera" else VideoFile(source.path)
    work = outputs.work_folder(source)
    masks = FrameMasks(work / KINDS["labels"], len(outputs.labels))
    result = VideoResult()
    with ctrl_c_ends(source.kind == "camera") as ended:
        frames = _until_problem(islice(video, max_frames), result, ended)
        if source.kind != "camera":
            total = min(video.timing.frames or 0, max_frames or 10**9) or None
            frames = progress_bar(frames, total=total, desc=source.path.name, unit="frame", leave=False)
        if embeddings:
            frames = _embedded(frames, embeddings, embeddings.place.members_of(source.name, work), result)
        if outputs.kinds:
            frames = _labelled(frames, masks, segment, 1 if source.kind == "camera" else batch_size, result)
        if "overlay" in outputs.kinds:
            _write_overlays(source, outputs, frames, video.timing)
        deque(frames, maxlen=0)  # whatever no overlay has asked for
    if not result.ticks:
        raise VideoError(result.problem or f"{source.path} has no frame")
    if "mask" in outputs.kinds:
        _write_masks(source, outputs, masks, result.ticks, video.timing)
    if "json" in outputs.kinds:
        _write_json(source, outputs, result, float(video.timing.rate))
    if embeddings:
        embeddings.place.adopt(source.name, work)
    if "labels" in outputs.kinds:
        replace_folder(masks.folder, outputs.path("labels", source))
    _remove(work)
    return result


def _until_problem(frames: Iterable[Frame], result: VideoResult, ended: Callable[[], bool]) -> Iterator[Frame]:
    """The frames, up to where the video is damaged, which is noted in ``result``, or to where the user ends it."""
    try:
        for frame in frames:
            result.add_frame(frame)
            yield frame
            if ended():
                return
    except VideoError as error:
        result.problem = str(error)


def _embedded(
    frames: Iterable[Frame], embeddings: EmbeddingWriter, place: Place, result: VideoResult
) -> Iterator[Frame]:
    """The frames; each that goes through has its embedding in ``place``, kept from an earlier run, or new."""
    for number, frame in enumerate(frames):
        if result.embedding is None:
            try:
                result.embedding = embeddings.facts(*frame.pixels.shape[:2])
            except InputError as error:  # of this video alone, where it would otherwise end the run
                raise VideoError(str(error)) from error
        if not place.has(frame_name(number)):
            embeddings.write(frame_name(number), frame.pixels, place)
        yield frame


def _labelled(
    frames: Iterable[Frame], masks: FrameMasks, segment: Segmenter, batch_size: int, result: VideoResult
) -> Iterator[tuple[Frame, np.ndarray]]:
    """Each frame with its label map: kept from an earlier run, or new and then kept."""
    frames, number = iter(frames), 0
    while batch := list(islice(frames, batch_size)):
        numbers = range(number, number + len(batch))
        # A batch is taken up as a whole: in another company, rounding could give a frame another result.
        if all(masks.has(i) for i in numbers):
            found = [masks.read(i) for i in numbers]
        else:
            found = segment([frame.pixels for frame in batch])
            for i, mask in zip(numbers, found, strict=True):
                masks.write(i, mask)
        for frame, mask in zip(batch, found, strict=True):
            result.add_mask(mask)
            yield frame, mask
        number += len(batch)


def _write_overlays(
    source: Source, outputs: Outputs, labelled: Iterable[tuple[Frame, np.ndarray]], timing: Timing
) -> None:
    drawn = (
        Frame(np.asarray(overlay(frame.pixels, mask, outputs.colours, outputs.opacity)), frame.ticks)
        for frame, mask in labelled
    )
    WRITERS[outputs.video_format](outputs.path("overlay", source), drawn, timing)


def _write_masks(source: Source, outputs: Outputs, masks: FrameMasks, ticks: Sequence[int], timing: Timing) -> None:
    coloured = (Frame(colourise(masks.read(number), outputs.colours), at) for number, at in enumerate(ticks))
    WRITERS[outputs.video_format](outputs.path("mask", source), coloured, timing)


def _write_json(source: Source, outputs: Outputs, result: VideoResult, rate: float) -> None:
    height, width = result.size
    outputs.write_facts(
        source,
        width=width,
        height=height,
        frames=len(result.ticks),
        frames_per_second=rate,
        problem=result.problem or None,
        areas=outputs.describe(result.areas),
        pixels_by_frame=result.by_frame,
    )


class FrameMasks:
    """Label maps of the frames that are done, each a PNG of its own, ``000000.png`` the first."""

    def __init__(self, folder: Path, num_labels: int) -> None:
        self.folder, self.num_labels = folder, num_labels

    def path(self, number: int) -> Path:
        return self.folder / f"{frame_name(number)}.png"

    def has(self, number: int) -> bool:
        return self.path(number).is_file()

    def read(self, number: int) -> np.ndarray:
        return read_label_png(self.path(number))

    def write(self, number: int, mask: np.ndarray) -> None:
        save_label_png(self.path(number), mask, self.num_labels)


def _remove(work: Path) -> None:
    """Delete the work folder of a video, and the folders that it leaves empty."""
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):  # not empty: another video is unfinished
        for parent in work.parents:
            parent.rmdir()


@contextmanager
def ctrl_c_ends(wanted: bool) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed; the first time it interrupts nothing, if ``wanted``."""
    pressed = False

    def note(number: int, stack: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    if wanted:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
