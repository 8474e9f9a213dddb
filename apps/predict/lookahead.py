"""What the sources of a run hold, seen before it: pictures and frames for the basis, the size of embeddings on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from apps.predict.embeddings import FIT_PICTURES, EmbeddingWriter
from apps.predict.sources import Source
from apps.predict.video_reader import VideoError, VideoFile
from lseg_utils.errors import InputError
from lseg_utils.image_input import read_rgb

LARGE = 10e9  # bytes of embeddings about which advice is given
LOOKED_AT = 500  # pictures of which the size is read

T = TypeVar("T")


def sample_images(sources: Sequence[Source], max_pixels: int, max_frames: int | None) -> Iterator[Tensor | np.ndarray]:
    """Up to 32 pictures (3, H, W) and frames (H, W, 3) for the basis, the same ones in every run.

    They are spread over all pictures, and over videos and their frames. Where there are both, each kind gives up to
    half; frames make up for fewer pictures. What cannot be read is passed over.
    """
    pictures = [source for source in sources if source.kind == "picture"]
    videos = [source for source in sources if source.kind == "video"]
    pictures = _spread(pictures, FIT_PICTURES // 2 if videos else FIT_PICTURES)
    videos = _spread(videos, FIT_PICTURES - len(pictures))
    for source in pictures:
        try:
            yield read_rgb(source.path, max_pixels)
        except InputError:
            continue  # named when its turn comes
    for source in videos:
        yield from _sample_frames(source, (FIT_PICTURES - len(pictures)) // len(videos), max_frames)


def _sample_frames(source: Source, most: int, max_frames: int | None) -> Iterator[np.ndarray]:
    """Frames spread over a video; the first ones if its header does not say how many it has."""
    try:
        video = VideoFile(source.path)
        wanted = _spread(range(_frames(video, max_frames) or most), most)
        for number, frame in enumerate(islice(video, wanted[-1] + 1)):
            if number in wanted:
                yield frame.pixels
    except VideoError:
        return


def size_note(sources: Sequence[Source], writer: EmbeddingWriter, max_frames: int | None) -> str:
    """How much room the embeddings need on the disk; "" if that cannot be told of any source.

    Of pictures up to 500 are looked at, of videos the header and the first frame.
    """
    pictures = [source for source in sources if source.kind == "picture"]
    looked_at = _spread(pictures, LOOKED_AT)
    of_pictures = [size for source in looked_at if (size := _picture_bytes(source, writer))]
    videos = [_video_bytes(source, writer, max_frames) for source in sources if source.kind == "video"]
    videos = [(frames, size) for frames, size in videos if size]
    counted, size = [], 0.0
    if of_pictures:
        number = round(len(pictures) * len(of_pictures) / len(looked_at))
        counted.append(_plural(number, "picture"))
        size += number * sum(of_pictures) / len(of_pictures)
    if videos:
        counted.append(f"{_plural(len(videos), 'video')} with about {sum(frames for frames, _ in videos):,} frames")
        size += sum(each for _, each in videos)
    if not counted:
        return ""
    room = f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{math.ceil(size / 1e6)} MB"
    note = f"embeddings of {' and '.join(counted)} need about {room} on the disk"
    if size > LARGE:
        note += "; --pca 64 or a smaller --embedding_size HEIGHTxWIDTH need less"
    return note


def _picture_bytes(source: Source, writer: EmbeddingWriter) -> int:
    """Of a picture's embedding; 0 for what cannot be read, which is named when its turn comes."""
    try:
        with Image.open(source.path) as picture:
            return writer.bytes_of(picture.height, picture.width)
    except (InputError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0


def _video_bytes(source: Source, writer: EmbeddingWriter, max_frames: int | None) -> tuple[int, int]:
    """The number of frames, and the size of all their embeddings; 0 where the video does not say, or is damaged."""
    try:
        video = VideoFile(source.path)
        frames = _frames(video, max_frames)
        return frames, frames * writer.bytes_of(*next(iter(video)).pixels.shape[:2])
    except (InputError, StopIteration):
        return 0, 0


def _plural(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _frames(video: VideoFile, max_frames: int | None) -> int:
    """How many frames will be read, by the header; 0 if it does not say."""
    frames = video.timing.frames or 0
    return frames if max_frames is None else min(frames, max_frames)


def _spread(items: Sequence[T], most: int) -> list[T]:
    """Up to ``most`` of the items, at even distances, the first one among them."""
    count = min(len(items), most)
    return [items[i * len(items) // count] for i in range(count)]
