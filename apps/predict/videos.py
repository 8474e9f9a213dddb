"""A video through the network: frames in; the results of each frame, and videos of the same frames, out."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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

Segmenter = Callable[[Sequence[Tensor]], Iterable[Segmentation]]  # frames (3, H, W), uint8


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
    masks_folder, kinds = outputs.frames_folder(source), outputs.options.kinds
    facts: dict[str, Any] = {}
    areas_by_frame: list[dict[int, int]] = []  # label number -> pixels
    with ExitStack() as stack:
        frames = GoodFrames(video, look.max_frames, stack.enter_context(ctrl_c_ends(camera)))
        add = {
            kind: stack.enter_context(WRITERS[outputs.options.video_format](outputs.path(kind, source), video.timing))
            for kind in ("overlay", "mask")
            if kind in kinds
        }
        shown: Iterable[Frame] = frames
        if not camera:
            total = min(video.timing.frames or 0, look.max_frames or 10**9) or None
            shown = progress_bar(frames, total=total, desc=source.path.name, unit="frame", leave=False)
        shown, number = iter(shown), 0
        while batch := list(islice(shown, 1 if camera else look.batch_size)):
            numbers = [f"{number + i:06d}" for i in range(len(batch))]
            number += len(batch)
            if embeddings:
                facts = embed_frames(embeddings, f"{source.name}{FRAMES}", numbers, batch)
            if not kinds:
                continue
            paths = [masks_folder / f"{name}.png" for name in numbers]
            for frame, mask in zip(batch, label_maps(paths, batch, segment, len(outputs.labels)), strict=True):
                areas = np.bincount(mask.ravel())
                areas_by_frame.append({int(label): int(areas[label]) for label in np.flatnonzero(areas)})
                # Videos of the same frames, at the same times.
                if "overlay" in add:
                    mixed = overlay(frame.pixels, mask, outputs.colours, outputs.options.opacity)
                    add["overlay"](Frame(np.asarray(mixed), frame.ticks))
                if "mask" in add:
                    add["mask"](Frame(colourise(mask, outputs.colours), frame.ticks))
        if not frames.read:
            raise VideoError(frames.problem or f"{source.path} contains no frame")
    facts |= {"frames": frames.read, "problem": frames.problem}
    if kinds:
        facts["areas"] = dict(sum(map(Counter, areas_by_frame), Counter()))
    if "json" in kinds:
        height, width = frames.size
        about = {"width": width, "height": height, "frames": frames.read}
        about |= {"frames_per_second": float(video.timing.rate), "problem": frames.problem or None}
        areas = area_table(facts["areas"], outputs.labels)
        outputs.write_facts(source, {**about, "areas": areas, "pixels_by_frame": areas_by_frame})
    outputs.forget_unfinished(source)
    return facts


class GoodFrames:
    """The frames up to the end of what can be read, to ``limit``, or to where the user stops.

    Attributes, of what was given so far: ``read``, the number of frames; ``size``, their height and width; ``problem``,
    why the video ended early, or "".
    """

    def __init__(self, video: Iterable[Frame], limit: int | None, stopped: Callable[[], bool]) -> None:
        self.video, self.limit, self.stopped = video, limit, stopped
        self.read, self.size, self.problem = 0, (0, 0), ""

    def __iter__(self) -> Iterator[Frame]:
        try:
            for frame in islice(self.video, self.limit):
                self.read, self.size = self.read + 1, frame.pixels.shape[:2]
                yield frame
                if self.stopped():
                    return
        except VideoError as error:
            self.problem = str(error)


def embed_frames(
    embeddings: EmbeddingWriter, folder: str, numbers: Sequence[str], batch: Sequence[Frame]
) -> dict[str, Any]:
    """Write the embeddings of a batch, except those of an earlier run; returns the facts that all frames share."""
    try:
        facts = embeddings.facts(*batch[0].pixels.shape[:2])
    except InputError as error:  # this video's problem; the run continues
        raise VideoError(str(error)) from error
    for number, frame in zip(numbers, batch, strict=True):
        if not embeddings.has(f"{folder}/{number}"):
            embeddings.write(f"{folder}/{number}", frame.pixels)
    return facts


def label_maps(paths: Sequence[Path], batch: Sequence[Frame], segment: Segmenter, labels: int) -> list[np.ndarray]:
    """The masks (H, W) of a batch of frames: those of an earlier run, or new ones, which are written to ``paths``.

    A batch is kept as a whole, since in other batches rounding could change a frame's result.
    """
    if all(path.is_file() for path in paths):
        return [np.asarray(Image.open(path)).astype(np.int64) for path in paths]
    masks = [result.mask for result in segment([torch.from_numpy(frame.pixels).permute(2, 0, 1) for frame in batch])]
    for path, mask in zip(paths, masks, strict=True):
        save_picture(path, label_picture(mask, labels))
    return masks


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
