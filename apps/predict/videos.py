"""A video through the network: frames in; the results of each frame, and videos of the same frames, out."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from apps.predict.embeddings import EmbeddingWriter
from apps.predict.options import LookOptions
from apps.predict.outputs import Outputs
from apps.predict.sources import FRAMES, Source
from apps.predict.video_reader import Camera, Frame, VideoError, VideoFile
from apps.predict.video_writer import WRITERS
from lseg_utils.errors import InputError
from lseg_utils.pictures import colourise, label_picture, overlay, save_picture
from lseg_utils.progress import progress_bar
from modules.inference.segmentation import Segmentation, area_table

Segmenter = Callable[[Sequence[np.ndarray]], Iterable[Segmentation]]  # frames (H, W, 3)


@dataclass
class _Progress:
    """The frames read so far: their number, size (height, width), and why the video ended early, or ""."""

    frames: int = 0
    size: tuple[int, int] = (0, 0)
    problem: str = ""
    areas: list[dict[int, int]] = field(default_factory=list)  # of each frame: label number -> pixels


def predict_video(
    source: Source, outputs: Outputs, segment: Segmenter, embeddings: EmbeddingWriter | None, look: LookOptions
) -> dict[str, Any]:
    """Write all results of a video or camera; returns the facts for the journal: frames, problem, areas, embeddings.

    The label map and embedding of each frame are files, so that a killed run resumes with the next frame; the videos
    are encoded from the first frame again, and equal those of a run without a kill. A camera stops at
    ``look.max_frames`` or Ctrl-C. Damaged frames are left out and reported as the problem. Raises ``VideoError`` if no
    frame can be read, or a frame's embedding would be too large.
    """
    camera = source.kind == "camera"
    video = Camera(int(source.path.name)) if camera else VideoFile(source.path)
    masks_folder = outputs.frames_folder(source)
    kinds, colours = outputs.options.kinds, outputs.colours
    batch_size = 1 if camera else look.batch_size
    done, facts = _Progress(), {}
    with ExitStack() as stack:
        stop = stack.enter_context(ctrl_c_ends(camera))
        write = {
            kind: stack.enter_context(WRITERS[outputs.options.video_format](outputs.path(kind, source), video.timing))
            for kind in ("overlay", "mask")
            if kind in kinds
        }
        frames = _until_problem(islice(video, look.max_frames), done, stop)
        if not camera:
            total = min(video.timing.frames or 0, look.max_frames or 10**9) or None
            frames = progress_bar(frames, total=total, desc=source.path.name, unit="frame", leave=False)
        frames = iter(frames)
        number = 0
        while batch := list(islice(frames, batch_size)):
            names = [frame_name(source, number + i) for i in range(len(batch))]
            number += len(batch)
            # Embeddings: those of an earlier run are kept.
            if embeddings:
                try:
                    facts = facts or embeddings.facts(*done.size)
                except InputError as error:  # this video's problem; the run continues
                    raise VideoError(str(error)) from error
                for name, frame in zip(names, batch, strict=True):
                    if not embeddings.has(name):
                        embeddings.write(name, frame.pixels)
            if not kinds:
                continue
            # Label maps: a batch is kept as a whole, since in other batches rounding could change a frame's result.
            paths = [masks_folder / f"{name.rpartition('/')[2]}.png" for name in names]
            if all(path.is_file() for path in paths):
                masks = [read_label_png(path) for path in paths]
            else:
                masks = [result.mask for result in segment([frame.pixels for frame in batch])]
                for path, mask in zip(paths, masks, strict=True):
                    save_picture(path, label_picture(mask, len(outputs.labels)))
            # Videos of the same frames, at the same times.
            for frame, mask in zip(batch, masks, strict=True):
                done.areas.append(count(mask))
                if "overlay" in write:
                    mixed = overlay(frame.pixels, mask, colours, outputs.options.opacity)
                    write["overlay"](Frame(np.asarray(mixed), frame.ticks))
                if "mask" in write:
                    write["mask"](Frame(colourise(mask, colours), frame.ticks))
        if not done.frames:
            raise VideoError(done.problem or f"{source.path} contains no frame")
    facts |= {"frames": done.frames, "problem": done.problem}
    if kinds:
        facts["areas"] = dict(sum(map(Counter, done.areas), Counter()))
    if "json" in kinds:
        height, width = done.size
        about = {
            "width": width,
            "height": height,
            "frames": done.frames,
            "frames_per_second": float(video.timing.rate),
            "problem": done.problem or None,
            "areas": area_table(facts["areas"], outputs.labels),
            "pixels_by_frame": done.areas,
        }
        outputs.write_facts(source, about)
    if "labels" not in kinds:
        shutil.rmtree(masks_folder, ignore_errors=True)
        with suppress(OSError):  # not empty: another video is unfinished
            for parent in masks_folder.relative_to(outputs.folder).parents:
                (outputs.folder / parent).rmdir()
    return facts


def _until_problem(frames: Iterable[Frame], done: _Progress, stop: Callable[[], bool]) -> Iterator[Frame]:
    """The frames up to the end of what can be read, or to where the user stops; ``done`` counts them."""
    try:
        for frame in frames:
            done.frames += 1
            done.size = frame.pixels.shape[:2]
            yield frame
            if stop():
                return
    except VideoError as error:
        done.problem = str(error)


def frame_name(source: Source, number: int) -> str:
    """The name of a frame's results; the first frame is number 0."""
    return f"{source.name}{FRAMES}/{number:06d}"


def count(mask: np.ndarray) -> dict[int, int]:
    """Label number -> pixels, of the labels that occur in a label map (H, W)."""
    pixels = np.bincount(mask.ravel())
    return {int(number): int(pixels[number]) for number in np.flatnonzero(pixels)}


def read_label_png(path: Path) -> np.ndarray:
    """The label map (H, W) int64 in a grey PNG whose pixel values are label numbers."""
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.int64)


@contextmanager
def ctrl_c_ends(wanted: bool) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C was pressed; if ``wanted``, the first press interrupts nothing."""
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
