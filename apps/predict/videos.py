"""A video through the network: frames in; the results of each frame, and videos of the same frames, out."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
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
    masks_folder = outputs.frames_folder(source)
    kinds, colours = outputs.options.kinds, outputs.colours
    batch_size = 1 if camera else look.batch_size
    facts: dict[str, Any] = {}
    read, size, problem = 0, (0, 0), ""  # frames; height, width; why the video ended early
    areas_by_frame: list[dict[int, int]] = []  # label number -> pixels

    def good_frames() -> Iterator[Frame]:
        """The frames up to the end of what can be read, or to where the user stops."""
        nonlocal read, size, problem
        try:
            for frame in islice(video, look.max_frames):
                read, size = read + 1, frame.pixels.shape[:2]
                yield frame
                if stopped():
                    return
        except VideoError as error:
            problem = str(error)

    with ExitStack() as stack:
        stopped = stack.enter_context(ctrl_c_ends(camera))
        write = {
            kind: stack.enter_context(WRITERS[outputs.options.video_format](outputs.path(kind, source), video.timing))
            for kind in ("overlay", "mask")
            if kind in kinds
        }
        frames = good_frames()
        if not camera:
            total = min(video.timing.frames or 0, look.max_frames or 10**9) or None
            frames = progress_bar(frames, total=total, desc=source.path.name, unit="frame", leave=False)
        frames = iter(frames)
        number = 0
        while batch := list(islice(frames, batch_size)):
            names = [f"{source.name}{FRAMES}/{number + i:06d}" for i in range(len(batch))]
            number += len(batch)
            # Embeddings: those of an earlier run are kept.
            if embeddings:
                try:
                    facts = facts or embeddings.facts(*size)
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
                masks = [np.asarray(Image.open(path)).astype(np.int64) for path in paths]
            else:
                pixels = [torch.from_numpy(frame.pixels).permute(2, 0, 1) for frame in batch]  # (3, H, W)
                masks = [result.mask for result in segment(pixels)]
                for path, mask in zip(paths, masks, strict=True):
                    save_picture(path, label_picture(mask, len(outputs.labels)))
            # Videos of the same frames, at the same times.
            for frame, mask in zip(batch, masks, strict=True):
                areas = np.bincount(mask.ravel())
                areas_by_frame.append({int(label): int(areas[label]) for label in np.flatnonzero(areas)})
                if "overlay" in write:
                    mixed = overlay(frame.pixels, mask, colours, outputs.options.opacity)
                    write["overlay"](Frame(np.asarray(mixed), frame.ticks))
                if "mask" in write:
                    write["mask"](Frame(colourise(mask, colours), frame.ticks))
        if not read:
            raise VideoError(problem or f"{source.path} contains no frame")
    facts |= {"frames": read, "problem": problem}
    if kinds:
        facts["areas"] = dict(sum(map(Counter, areas_by_frame), Counter()))
    if "json" in kinds:
        about = {
            "width": size[1],
            "height": size[0],
            "frames": read,
            "frames_per_second": float(video.timing.rate),
            "problem": problem or None,
            "areas": area_table(facts["areas"], outputs.labels),
            "pixels_by_frame": areas_by_frame,
        }
        outputs.write_facts(source, about)
    if "labels" not in kinds:
        shutil.rmtree(masks_folder, ignore_errors=True)
        with suppress(OSError):  # not empty: another video is unfinished
            for parent in masks_folder.relative_to(outputs.folder).parents:
                (outputs.folder / parent).rmdir()
    return facts


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
