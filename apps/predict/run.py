"""A run of predict_lseg.py: every source through the network, results and a record for each, and a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apps.predict.embeddings import EmbeddingWriter, forget_embeddings
from apps.predict.journal import Journal, Record
from apps.predict.lookahead import sample_images, size_note
from apps.predict.options import LookOptions, Request
from apps.predict.outputs import MAX_LABELS, Outputs
from apps.predict.report import Report
from apps.predict.sources import Source
from apps.predict.video_reader import VideoError
from apps.predict.videos import predict_video
from lseg_utils.cli import doubts_as_notes
from lseg_utils.errors import InputError
from lseg_utils.files import sha256_of
from lseg_utils.image_input import read_rgb
from lseg_utils.lock import locked
from lseg_utils.progress import progress_bar
from modules.checkpoints import git_state
from modules.device import reduced_dtype, resolve_device
from modules.inference.segmentation import Segmentation
from modules.predictor import LSegPredictor
from modules.training.start import check_backbone

SHOWN_LABELS = 3


@dataclass
class Run:
    """What every source passes through: the network, what is written, and the account of what is finished.

    Args:
        predictor: the network.
        labels, text: N names and their embeddings (N, C).
        look: how the network looks at pictures and frames.
        outputs, embeddings: write the results; embeddings None for none.
        journal: records what is finished.
    """

    predictor: LSegPredictor
    labels: Sequence[str]
    text: Tensor
    look: LookOptions
    outputs: Outputs
    embeddings: EmbeddingWriter | None
    journal: Journal
    report: Report = field(default_factory=Report)

    def run(self, sources: Sequence[Source]) -> None:
        """Process every source that is not finished; ``report`` contains the outcome.

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
            for group in _in_groups(sources, self.look.batch_size):  # of all, so that a resumed run has equal batches
                group = [source for source in group if source in pending]
                if group and group[0].kind == "picture":
                    self._pictures(group)
                elif group:
                    self._video(group[0])
                bar.update(len(group))

    def segment(self, images: Iterable[Tensor | np.ndarray]) -> Iterator[Segmentation]:
        """The segmentations of pictures (3, H, W) or frames (H, W, 3), in their order."""
        look = self.look
        return self.predictor.segment_many(
            images, self.text, look.mode, look.long_side, names=self.labels, batch_size=look.batch_size
        )

    @property
    def _parts(self) -> frozenset[str]:
        return self.outputs.kinds | ({"embeddings"} if self.embeddings else set())

    def _finished(self, source: Source) -> Record | None:
        record = self.journal.finished(source, self._parts)
        if record is None or not self.outputs.complete(source):
            return None
        return record if self.embeddings is None or self.embeddings.complete(record) else None

    def _pictures(self, group: Sequence[Source]) -> None:
        """Read, segment, write and record up to a batch of pictures."""
        images: dict[Source, Tensor] = {}  # (3, H, W)
        for source in group:
            try:
                rgb = read_rgb(source.path, self.predictor.max_pixels)
                self.outputs.check_size(*rgb.shape[1:])
                if self.embeddings:
                    self.embeddings.shape(*rgb.shape[1:])
                images[source] = rgb
            except InputError as error:
                self.report.failures.append((str(source.path), str(error)))
        results = self.segment(images.values()) if self.outputs.kinds else iter(())
        for source, rgb in images.items():
            facts: dict[str, Any] = {}
            if self.outputs.kinds:
                facts["areas"] = self.outputs.write(source, next(results))
            if self.embeddings:
                self.embeddings.write(source.name, rgb)
                facts.update(self.embeddings.facts(*rgb.shape[1:]))
            self._done(source, facts)

    def _video(self, source: Source) -> None:
        if not self.journal.begin(source):  # frames of an earlier file of this name
            self.outputs.forget_frames(source)
            if self.embeddings:
                self.embeddings.forget_frames(source)
        try:
            self._done(source, predict_video(source, self.outputs, self.segment, self.embeddings, self.look))
        except VideoError as error:
            self.report.failures.append((str(source.path), str(error)))

    def _done(self, source: Source, facts: dict[str, Any]) -> None:
        self.report.done += 1
        self.report.count(self.journal.add(source, self._parts, **facts))


def _in_groups(sources: Sequence[Source], batch_size: int) -> Iterator[list[Source]]:
    """Up to a batch of pictures, or one video, at a time."""
    group: list[Source] = []
    for source in sources:
        if group and (source.kind != "picture" or len(group) == batch_size):
            yield group
            group = []
        group.append(source)
        if source.kind != "picture":
            yield group
            group = []
    if group:
        yield group


def predict(request: Request) -> int:
    """Load the network, process all sources, report. Returns 1 if some could not be read, otherwise 0.

    Raises ``InputError`` for whatever ends a run, after the report if it had begun.
    """
    network, folder = request.network, request.folder
    with locked(folder, "--output_dir"):
        predictor = LSegPredictor.from_checkpoint(
            network.weights, network.device, network.precision, trust_checkpoint=network.trust, **network.block
        )
        check_backbone(predictor.net, network.backbone, network.weights)
        labels, text = _labels_and_matrix(request, predictor)
        run = _build_run(request, predictor, labels, text)
        problem = ""
        try:
            run.outputs.describe_labels()
            if run.embeddings:
                if note := size_note(request.sources, run.embeddings, request.look.max_frames):
                    print(f"note: {note}")
                images = sample_images(request.sources, predictor.max_pixels, request.look.max_frames)
                run.embeddings.prepare(images, labels, text)
            run.run(request.sources)
            if run.embeddings:
                run.embeddings.finish(run.journal.records())
        except OSError as error:
            problem = f"{error.filename or folder} cannot be written: {error.strerror or error}"
        except InputError as error:
            problem = str(error)
        run.report.show(labels, folder)
    if problem:
        raise InputError(problem)
    return 1 if run.report.failures else 0


def _labels_and_matrix(request: Request, predictor: LSegPredictor) -> tuple[list[str], Tensor]:
    """The labels and their matrix (N, C), computed once for the whole run; doubts about them are printed."""
    labels, weights = request.labels or predictor.net.labels, request.network.weights
    if labels is None and not request.write.kinds:
        return [], torch.zeros(0, predictor.net.text_encoder.embed_dim)  # embeddings need no labels
    if labels is None:
        raise InputError(f"{weights} contains no labels; give --labels 'cat, grass, other', or a file")
    if request.labels is None and request.write.kinds:
        shown = ", ".join(labels[:SHOWN_LABELS]) + (", ..." if len(labels) > SHOWN_LABELS else "")
        print(f"note: using the checkpoint's own {len(labels)} labels ({shown}); --labels chooses others")
    if len(labels) > MAX_LABELS:
        raise InputError(f"{len(labels):,} labels do not fit into a label PNG; give at most {MAX_LABELS:,}")
    with doubts_as_notes():
        return list(labels), predictor.encode_text(labels, request.templates)


def _build_run(request: Request, predictor: LSegPredictor, labels: list[str], text: Tensor) -> Run:
    """Everything that a run needs; ``InputError`` if the folder contains results of other settings."""
    network, look, write, folder = request.network, request.look, request.write, request.folder
    checkpoint = {"file": network.weights.name, "sha256": sha256_of(network.weights), **network.block}
    dtype = reduced_dtype(network.precision, resolve_device(network.device)) or torch.float32
    settings = {
        "checkpoint": checkpoint,
        "labels": labels,
        "mode": look.mode,
        "long_side": look.long_side,
        "templates": request.templates,
        "opacity": write.opacity,
        "overlay_format": write.picture_format,
        "video_format": write.video_format,
        "max_frames": look.max_frames,
        "precision": str(dtype).removeprefix("torch."),  # what "auto" means here; on another device it may differ
        "device": resolve_device(network.device).type,
        "embeddings": request.embedding and vars(request.embedding),
    }
    about = {name: settings[name] for name in ("checkpoint", "mode", "long_side", "templates")}
    outputs = Outputs(folder, write, labels, {**about, "labels_file": "labels.json"})
    if request.embedding:
        request.embedding.check_dimensions(text.shape[1])

    def forget() -> None:
        outputs.forget()
        forget_embeddings(folder)  # also where this run writes none: a later one would use them

    journal = Journal(folder, settings, {"git": git_state()}, forget if request.overwrite else None)
    embeddings = None
    if request.embedding:
        facts = {"checkpoint": checkpoint, "base_size": predictor.base_size}
        embeddings = EmbeddingWriter(predictor, request.embedding, folder, facts)
    return Run(predictor, labels, text, look, outputs, embeddings, journal)
