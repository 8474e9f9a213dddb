"""All sources of a run: what is done is passed over, what cannot be read is noted, and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from apps.predict.embeddings import EmbeddingWriter
from apps.predict.journal import Journal, Record
from apps.predict.outputs import Outputs, count
from apps.predict.report import Report
from apps.predict.sources import Source
from apps.predict.video_reader import VideoError
from apps.predict.videos import predict_video
from lseg_utils.errors import InputError
from lseg_utils.image_input import read_rgb, to_pixels
from lseg_utils.progress import progress_bar
from modules.predictor import LSegPredictor


@dataclass(frozen=True)
class Segmenting:
    """How pictures become label maps.

    text: (N, C), the label embeddings. mode, long_side: as in ``LSegPredictor.segment``.
    """

    predictor: LSegPredictor
    text: Tensor
    mode: str
    long_side: int | None
    batch_size: int

    def __call__(self, images: Sequence[Tensor | np.ndarray]) -> list[np.ndarray]:
        """Label maps (H, W) of images of any sizes."""
        results = self.predictor.segment_many(images, self.text, self.mode, self.long_side, batch_size=self.batch_size)
        return [result.mask for result in results]


class PredictionRun:
    """Sends sources through the network and keeps account.

    embeddings: None for none. max_frames: of each video or camera, None for all.
    """

    def __init__(
        self,
        segment: Segmenting,
        outputs: Outputs,
        embeddings: EmbeddingWriter | None,
        journal: Journal,
        max_frames: int | None,
    ) -> None:
        self.segment, self.outputs, self.embeddings = segment, outputs, embeddings
        self.journal, self.max_frames = journal, max_frames
        self.report = Report()

    def run(self, sources: Sequence[Source]) -> None:
        """Do everything that is not done; ``report`` says what came of it.

        A source that cannot be read is a failure in the report. What cannot be written ends the run with
        ``InputError`` or ``OSError``: the next file could not be written either.
        """
        pending = set()
        for source in sources:
            if record := self._finished(source):
                self.report.earlier += 1
                self.report.count(record)
            else:
                pending.add(source)
        with progress_bar(total=len(pending), desc="segmenting", unit="file") as bar:
            for group in self._groups(sources):  # of all, so that batches are those of a run without a kill
                missing = pending.intersection(group)
                if missing and group[0].kind == "picture":
                    self._pictures(group, missing)
                elif missing:
                    self._video(group[0])
                bar.update(len(missing))

    def _groups(self, sources: Sequence[Source]) -> Iterator[list[Source]]:
        """Up to a batch of pictures, or one video."""
        group: list[Source] = []
        for source in sources:
            if group and (source.kind != "picture" or len(group) == self.segment.batch_size):
                yield group
                group = []
            group.append(source)
            if source.kind != "picture":
                yield group
                group = []
        if group:
            yield group

    @property
    def _parts(self) -> set[str]:
        return set(self.outputs.kinds) | ({"embeddings"} if self.embeddings else set())

    def _finished(self, source: Source) -> Record | None:
        record = self.journal.finished(source, self._parts)
        if record is None or not self.outputs.complete(source):
            return None
        return record if self.embeddings is None or self.embeddings.complete(record) else None

    def _pictures(self, group: Sequence[Source], missing: Set[Source]) -> None:
        """Do what is ``missing``; the others of ``group`` go through the network again, but are not written.

        In another company, rounding could give a picture another result. Embeddings are made one by one.
        """
        wanted = self._read(source for source in group if source in missing)
        masks: dict[Source, np.ndarray] = {}
        if wanted and self.outputs.kinds:
            readable = {**wanted, **self._read(source for source in group if source not in missing)}
            together = [source for source in group if source in readable]
            masks = dict(zip(together, self.segment([readable[source] for source in together]), strict=True))
        for source, rgb in wanted.items():
            facts: dict[str, Any] = {}
            if source in masks:
                self.outputs.write_picture(source, to_pixels(rgb), masks[source])
                facts["areas"] = count(masks[source])
            if self.embeddings:
                self.embeddings.write(source.name, rgb)
                facts.update(self.embeddings.facts(*rgb.shape[1:]))
            self._done(source, facts)

    def _read(self, sources: Iterable[Source]) -> dict[Source, Tensor]:
        """The pictures (3, H, W) that can be read and written; the others are failures."""
        read: dict[Source, Tensor] = {}
        for source in sources:
            try:
                rgb = read_rgb(source.path, self.segment.predictor.max_pixels)
                self.outputs.check_size(rgb)
                if self.embeddings:
                    self.embeddings.shape(*rgb.shape[1:])
                read[source] = rgb
            except InputError as error:
                self._fail(source, str(error))
        return read

    def _video(self, source: Source) -> None:
        try:
            result = predict_video(
                source, self.outputs, self.segment, self.embeddings, self.segment.batch_size, self.max_frames
            )
        except VideoError as error:
            self._fail(source, str(error))
            return
        facts: dict[str, Any] = {"problem": result.problem, "frames": len(result.ticks)}
        if self.outputs.kinds:
            facts["areas"] = dict(result.areas)
        if self.embeddings:
            facts.update(result.embedding or {})
        self._done(source, facts)

    def _done(self, source: Source, facts: dict[str, Any]) -> None:
        self.report.done += 1
        self.report.count(self.journal.add(source, self._parts, **facts))

    def _fail(self, source: Source, problem: str) -> None:
        self.report.failures.append((str(source.path), problem))
