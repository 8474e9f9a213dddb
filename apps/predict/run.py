"""A run of predict_lseg.py: every source through the network, results and a record for each, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from apps.predict.embeddings import EmbeddingWriter, forget_embeddings
from apps.predict.journal import Journal, read_run
from apps.predict.lookahead import sample_images, size_note
from apps.predict.options import LookOptions, Request
from apps.predict.outputs import MAX_LABELS, Outputs
from apps.predict.report import Report
from apps.predict.sources import Source
from apps.predict.video_reader import VideoError
from apps.predict.videos import predict_video
from lseg_utils.cli import doubts_as_notes
from lseg_utils.errors import InputError, few
from lseg_utils.files import sha256_of
from lseg_utils.git import git_state
from lseg_utils.image_input import read_rgb
from lseg_utils.lock import locked
from lseg_utils.progress import progress_bar
from modules.device import dtype_name, reduced_dtype, resolve_device
from modules.inference.segmentation import Segmentation
from modules.predictor import LSegPredictor


@dataclass
class Run:
    """What every source passes through: the network, what is written, and the account of what is finished.

    Args:
        predictor: the network; None where everything is finished.
        labels, text: N names and their embeddings (N, C).
        look: how the network looks at pictures and frames.
        outputs, embeddings: write the results; embeddings None for none.
        journal: records what is finished.
    """

    predictor: LSegPredictor | None
    labels: list[str]
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
        pending = self.pending(sources)
        for source in sources:
            if source not in pending:
                self.report.earlier += 1
                self.report.count(self.journal.finished(source, self._parts))
        # Up to a batch of pictures, or one video, at a time; groups of all sources, so that a resumed run has equal
        # batches.
        groups: list[list[Source]] = []
        for source in sources:
            joins = groups and source.kind == groups[-1][0].kind == "picture"
            if joins and len(groups[-1]) < self.look.batch_size:
                groups[-1].append(source)
            else:
                groups.append([source])
        with progress_bar(total=len(pending), desc="segmenting", unit="file") as bar:
            for group in groups:
                group = [source for source in group if source in pending]
                if group and group[0].kind == "picture":
                    self._pictures(group)
                elif group:
                    self._video(group[0])
                bar.update(len(group))

    def pending(self, sources: Sequence[Source]) -> set[Source]:
        """The sources that are not finished with everything that this run writes, or whose files have changed."""
        found = set()
        for source in sources:
            record = self.journal.finished(source, self._parts)
            written = record is not None and self.outputs.complete(source)
            if not written or (self.embeddings and not self.embeddings.complete(record)):
                found.add(source)
        return found

    def segment(self, images: Sequence[Tensor]) -> Iterator[Segmentation]:
        """The segmentations of a batch of pictures or frames, uint8 (3, H, W), in their order."""
        look = self.look
        return self.predictor.segment_read(images, self.labels, self.text, look.mode, look.long_side, look.batch_size)

    @property
    def _parts(self) -> frozenset[str]:
        return self.outputs.options.kinds | ({"embeddings"} if self.embeddings else set())

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
        results = self.segment(list(images.values())) if self.outputs.options.kinds else iter(())
        for source, rgb in images.items():
            facts: dict[str, Any] = {}
            if self.outputs.options.kinds:
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


def predict(request: Request) -> int:
    """Load the network, process all sources, report. Returns 1 if some could not be read, otherwise 0.

    Raises ``InputError`` for whatever ends a run, after the report if it had begun.
    """
    folder, max_frames = request.folder, request.look.max_frames
    with locked(folder, "--output_dir"):
        run = _start(request)
        problem = ""
        try:
            if run.predictor:
                run.outputs.describe_labels()
            if run.predictor and run.embeddings:
                if note := size_note(request.sources, run.embeddings, max_frames):
                    print(f"note: {note}")
                images = sample_images(request.sources, run.predictor.max_pixels, max_frames)
                run.embeddings.prepare(images, run.labels, run.text)
            run.run(request.sources)
            if run.embeddings:
                run.embeddings.finish(run.journal.records())
        except OSError as error:
            problem = f"{error.filename or folder} cannot be written: {error.strerror or error}"
        except InputError as error:
            problem = str(error)
        run.report.show(run.labels, folder, run.outputs.about)
    if problem:
        raise InputError(problem)
    return 1 if run.report.failures else 0


def _start(request: Request) -> Run:
    """The run, with its network loaded unless an earlier run has finished all sources.

    ``InputError`` if the folder contains results of other settings, or network and labels do not fit the request.
    """
    weights, kinds = request.weights, request.write.kinds
    checkpoint = {"file": weights.name, "sha256": sha256_of(weights), **request.block}
    # 1. If everything is finished, loading the network would take time for nothing.
    earlier = None if request.overwrite else read_run(request.folder)
    if earlier and "network" in earlier:
        # If the checkpoint is another one, the settings differ.
        labels = request.labels or (earlier["settings"]["labels"] if earlier["own_labels"] else None)
        if labels is not None:
            run = _build_run(request, checkpoint, None, list(labels), torch.empty(0), earlier["network"])
            if not run.pending(request.sources):
                return run
    # 2. The network.
    given = {"trust_checkpoint": request.trust, "backbone": request.backbone, **request.block}
    predictor = LSegPredictor.from_checkpoint(weights, request.device, request.precision, **given)
    dimensions, pca = predictor.net.text_encoder.embed_dim, request.embedding and request.embedding.pca
    if pca and pca > dimensions:
        raise InputError(f"--pca is {pca}; it must be at most {dimensions}, the embeddings' dimensions")
    # 3. The labels; embeddings alone need none.
    labels = list(request.labels or predictor.net.labels or ())
    if not labels and kinds:
        raise InputError(f"{weights} contains no labels; give --labels 'cat, grass, other', or a file")
    if request.labels is None and kinds:
        print(f"note: using the checkpoint's own {len(labels)} labels ({few(labels, 3)}); --labels chooses others")
    if len(labels) > MAX_LABELS:
        raise InputError(f"{len(labels):,} labels do not fit into a label PNG; give at most {MAX_LABELS:,}")
    with doubts_as_notes():
        text = predictor.encode_text(labels, request.templates) if labels else torch.zeros(0, dimensions)
    net = predictor.net
    network = {"base_size": predictor.base_size, "dimensions": dimensions, "mean": net.mean, "std": net.std}
    return _build_run(request, checkpoint, predictor, labels, text, network)


def _build_run(
    request: Request,
    checkpoint: dict[str, Any],
    predictor: LSegPredictor | None,
    labels: list[str],
    text: Tensor,
    network: dict[str, Any],
) -> Run:
    """Everything that a run needs; ``InputError`` if the folder contains results of other settings.

    network: facts for run.json and the manifest of embeddings.
    """
    look, write, folder, device = request.look, request.write, request.folder, resolve_device(request.device)
    settings = {
        "checkpoint": checkpoint,
        "labels": labels,
        "mode": look.mode,
        "long_side": look.long_side,
        "templates": request.templates,
        "opacity": write.opacity,
        "palette": write.palette,
        "names": write.names,
        "overlay_format": write.picture_format,
        "video_format": write.video_format,
        "max_frames": look.max_frames,
        # What "auto" means here; on another device it may differ.
        "precision": dtype_name(reduced_dtype(request.precision, device)),
        "device": device.type,
        "embeddings": request.embedding and vars(request.embedding),
    }
    about = {name: settings[name] for name in ("checkpoint", "mode", "long_side", "templates")}
    outputs = Outputs(folder, write, labels, {**about, "labels_file": "labels.json"})

    def forget() -> None:
        outputs.forget()
        forget_embeddings(folder)  # also where this run writes none: a later one would use them

    facts = {"own_labels": request.labels is None, "network": network, "git": git_state()}
    journal = Journal(folder, settings, facts, forget if request.overwrite else None)
    embeddings = None
    if request.embedding:
        shared = {"checkpoint": checkpoint, **network}
        if request.embedding.store == "store":
            shared |= {"labels": labels, "templates": request.templates}
        embeddings = EmbeddingWriter(predictor, request.embedding, folder, shared)
    return Run(predictor, labels, text, look, outputs, embeddings, journal)
