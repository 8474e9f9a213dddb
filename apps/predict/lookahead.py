"""What is looked at before a run: samples for the PCA basis, and the size of the embeddings on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from torch import Tensor

from apps.predict.embeddings import FIT_PICTURES, EmbeddingWriter
from apps.predict.sources import Source
from apps.predict.video_reader import VideoError, VideoFile
from lseg_utils.errors import InputError
from lseg_utils.image_input import read_rgb
from lseg_utils.picture_files import DECODING_ERRORS, open_picture

LARGE = 10e9  # bytes of embeddings from which on the note contains advice
MAX_LOOKED_AT = 500  # pictures whose size is read

T = TypeVar("T")


def sample_images(sources: Sequence[Source], max_pixels: int, max_frames: int | None) -> Iterator[Tensor | np.ndarray]:
    """Up to 32 pictures (3, H, W) and frames (H, W, 3) for the basis, the same ones in every run.

    They are spread over all pictures, and over videos and their frames. If there are both, up to half are pictures,
    and the rest are frames. What cannot be read is skipped.
    """
    pictures = [source for source in sources if source.kind == "picture"]
    videos = [source for source in sources if source.kind == "video"]
    pictures = _spread(pictures, FIT_PICTURES // 2 if videos else FIT_PICTURES)
    videos = _spread(videos, FIT_PICTURES - len(pictures))
    for source in pictures:
        try:
            yield read_rgb(source.path, max_pixels)
        except InputError:
            continue  # reported when its turn comes
    for source in videos:
        most = (FIT_PICTURES - len(pictures)) // len(videos)
        try:
            video = VideoFile(source.path)
            # The first frames if the header does not give their number.
            wanted = _spread(range(_frames(video, max_frames) or most), most)
            for number, frame in enumerate(islice(video, wanted[-1] + 1)):
                if number in wanted:
                    yield frame.pixels
        except VideoError:
            continue


def size_note(sources: Sequence[Source], writer: EmbeddingWriter, max_frames: int | None) -> str:
    """How much disk space the embeddings need; "" without a store, or if no source can be estimated.

    Up to 500 pictures are looked at, and the header and first frame of every video.
    """
    if writer.store is None:
        return ""
    pictures = [source for source in sources if source.kind == "picture"]
    looked_at = _spread(pictures, MAX_LOOKED_AT)
    sizes: list[int] = []
    for source in looked_at:
        try:
            if source.path.is_file():  # opening a pipe would wait forever
                with open_picture(source.path) as picture:
                    sizes.append(writer.store.bytes_of(writer.shape(picture.height, picture.width)))
        except DECODING_ERRORS:
            continue  # reported when its turn comes
    videos: list[tuple[int, int]] = []  # frames, bytes of their embeddings
    for source in sources:
        try:
            if source.kind == "video" and (frames := _frames(video := VideoFile(source.path), max_frames)):
                height, width = next(iter(video)).pixels.shape[:2]
                videos.append((frames, frames * writer.store.bytes_of(writer.shape(height, width))))
        except (InputError, StopIteration):
            continue  # damaged
    counted, size = [], 0.0
    if sizes:
        number = round(len(pictures) * len(sizes) / len(looked_at))
        counted.append(_plural(number, "picture"))
        size += number * sum(sizes) / len(sizes)
    if videos:
        counted.append(f"{_plural(len(videos), 'video')} with about {sum(frames for frames, _ in videos):,} frames")
        size += sum(each for _, each in videos)
    if not counted:
        return ""
    room = f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{math.ceil(size / 1e6)} MB"
    note = f"embeddings of {' and '.join(counted)} need about {room} of disk space"
    if size > LARGE:
        others = "" if writer.is_grid else ", --embeddings store or a smaller --embedding_size HEIGHTxWIDTH"
        note += f"; --pca 64{others} would need less"
    return note


def _plural(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _frames(video: VideoFile, max_frames: int | None) -> int:
    """How many frames will be read according to the header; 0 if it does not tell."""
    frames = video.timing.frames or 0
    return frames if max_frames is None else min(frames, max_frames)


def _spread(items: Sequence[T], most: int) -> list[T]:
    """Up to ``most`` of the items, evenly spaced, including the first."""
    count = min(len(items), most)
    return [items[i * len(items) // count] for i in range(count)]
