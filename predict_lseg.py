"""Segment pictures, folders, videos or a camera with any labels: overlays, masks, label maps, areas, embeddings.

The same command again goes on where a killed one ended. What cannot be read is named at the end; the rest is done.
Results have the input's name without its suffix. Where that is not enough to tell inputs apart, the suffix is kept:
cat.jpg and cat.png become cat_jpg and cat_png. Frames of a video are NAME/000000 and so on. --embeddings h5: one
embeddings/embeddings.h5 with a float16 dataset (H, W, C) for each picture or frame, in chunks of 32 x 32 pixels;
manifest.json beside it says what was embedded and how. Videos need much room for them, which is said at the start.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apps.predict.checks import OF_EMBEDDINGS, option_problems, parse_kinds
from apps.predict.embedding_store import STORES
from apps.predict.embeddings import EmbeddingOptions, EmbeddingWriter, forget_embeddings, parse_size
from apps.predict.journal import Journal
from apps.predict.lookahead import sample_images, size_note
from apps.predict.outputs import KINDS, MOST_LABELS, PICTURE_FORMATS, Outputs
from apps.predict.run import PredictionRun, Segmenting
from apps.predict.sources import Source, find_sources
from apps.predict.video_reader import import_av
from apps.predict.video_writer import WRITERS
from data.labels import labels_from
from lseg_utils.cli import Parser, doubts_as_notes
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.files import REPOSITORY, sha256_of
from lseg_utils.pictures import legend, save_picture
from lseg_utils.results import write_json
from modules.choices import PRECISIONS
from modules.device import resolve_device
from modules.inference.segmentation import OPACITY, label_colours
from modules.models.text_encoder import check_labels
from modules.options import add_network_options, block_options
from modules.predictor import MODES, VARIANTS, LSegPredictor
from modules.testing.common import weights_name
from modules.testing.protocol import describe_precision
from modules.training.start import check_backbone

MOST_IN_LEGEND, FIRST_SHOWN = 500, 3


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, folder, video, or a camera's number")
    parser.add_argument("--weights", "--checkpoint", type=Path, required=True, help="official or own checkpoint")
    parser.add_argument("--trust_checkpoint", action="store_true", help="run code found in the file: risky")
    parser.add_argument("--labels", help="'cat, grass, other', or a file with one a line; default: the checkpoint's")
    parser.add_argument("--templates", choices=("imagenet",), help="sentences to put labels in; default: none")
    parser.add_argument("--mode", choices=MODES, default="whole", help="the image at once, in windows, or in six sizes")
    parser.add_argument("--long_side", type=int, help="pixels that the network sees; see the README")
    parser.add_argument("--batch_size", type=int, default=4, help="pictures that go through the network together")
    group = parser.add_argument_group("results")
    group.add_argument("--output_dir", type=Path, help="default: outputs/predict_<weights>")
    group.add_argument("--overwrite", action="store_true", help="delete the results there and do everything again")
    group.add_argument("--write", default=",".join(KINDS), help="some of these, or 'none' (embeddings alone)")
    group.add_argument("--opacity", type=float, default=OPACITY, help="of the colours in overlays, 0 to 1")
    group.add_argument("--overlay_format", choices=PICTURE_FORMATS, default="jpg", help="of pictures")
    group.add_argument("--video_format", choices=list(WRITERS), default="mp4", help="of videos")
    group.add_argument("--max_frames", type=int, help="of a video or camera; a camera also stops at Ctrl-C")
    group = parser.add_argument_group("embeddings")
    group.add_argument("--embeddings", choices=list(STORES), help="also write pixel embeddings, float16")
    group.add_argument("--embedding_size", default=OF_EMBEDDINGS["embedding_size"], help="half, input, or HEIGHTxWIDTH")
    group.add_argument(
        "--embedding_variant",
        choices=VARIANTS,
        default=OF_EMBEDDINGS["embedding_variant"],
        help="raw, or of which length",
    )
    group.add_argument("--embedding_multi_scale", action="store_true", help="six sizes and mirror images, added up")
    group.add_argument("--pca", type=int, metavar="K", help="K principal components, and pictures of the first three")
    add_network_options(parser, backbone=None)
    group = parser.add_argument_group("device")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: bf16, else fp16; 32 on the CPU")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything, load, do all sources, report. 1: some could not be read; 2: the run could not go on."""
    options = build_parser().parse(argv)
    folder = options.output_dir or REPOSITORY / "outputs" / f"predict_{weights_name(options.weights)}"
    sources, labels = check_all(options, folder)
    predictor = load_predictor(options)
    labels, text = labels_and_matrix(options, labels or predictor.net.labels, predictor)
    run = build_run(options, folder, sources, predictor, labels, text)
    if options.embeddings and (note := size_note(sources, run.embeddings, options.max_frames)):
        print(f"note: {note}")
    problem = ""
    try:
        if run.embeddings:
            run.embeddings.prepare(sample_images(sources, predictor.max_pixels, options.max_frames), labels, text)
        run.run(sources)
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


# ------------------------------------------------------------------------------------------------ before the run


def check_all(options: argparse.Namespace, folder: Path) -> tuple[list[Source], list[str]]:
    """The sources, and the labels of ``--labels``, none for the checkpoint's own.

    One ``InputError`` with everything that is wrong, before the network is loaded.
    """
    sources, problems = find_sources(options.inputs, folder)
    problems += option_problems(options, sources, folder)
    labels: list[str] = []
    checks = [
        lambda: labels.extend([] if options.labels is None else labels_from(options.labels)),
        lambda: parse_size(options.embedding_size),
    ]
    if any(source.kind != "picture" for source in sources):
        checks.append(import_av)
    with doubts_as_notes():
        raise_all(problems, *checks)
    return sources, labels


def load_predictor(options: argparse.Namespace) -> LSegPredictor:
    """The network of ``--weights``, on its device."""
    predictor = LSegPredictor.from_checkpoint(
        options.weights,
        options.device,
        options.precision,
        trust_checkpoint=options.trust_checkpoint,
        **block_options(options),
    )
    check_backbone(predictor.net, options.backbone, options.weights)
    return predictor


def labels_and_matrix(
    options: argparse.Namespace, labels: list[str] | None, predictor: LSegPredictor
) -> tuple[list[str], Tensor]:
    """The labels and their matrix (N, C), once for the whole run; what is doubtful about them is printed."""
    if labels is None and not parse_kinds(options.write):
        return [], torch.zeros(0, predictor.net.text_encoder.embed_dim)  # embeddings need no labels
    if labels is None:
        raise InputError(f"{options.weights} has no labels of its own; give --labels 'cat, grass, other', or a file")
    if options.labels is None and parse_kinds(options.write):
        named = ", ".join(labels[:FIRST_SHOWN]) + (", ..." if len(labels) > FIRST_SHOWN else "")
        print(f"note: the checkpoint's own {len(labels)} labels ({named}); --labels names others")
    if len(labels) > MOST_LABELS:
        raise InputError(f"{len(labels):,} labels are more than a label PNG can hold; give at most {MOST_LABELS:,}")
    with doubts_as_notes():
        text = predictor.encode_text(labels, options.templates)
    return check_labels(labels), text


def build_run(
    options: argparse.Namespace,
    folder: Path,
    sources: Sequence[Source],
    predictor: LSegPredictor,
    labels: list[str],
    text: Tensor,
) -> PredictionRun:
    """Everything that a run needs, and the files that describe it; ``InputError`` if ``folder`` holds another run's."""
    embedding = None
    if options.embeddings or options.pca:
        size = parse_size(options.embedding_size)
        chosen = (options.embeddings, size, options.embedding_variant, options.embedding_multi_scale, options.pca)
        embedding = EmbeddingOptions(*chosen, options.long_side)
        raise_all(embedding.problems(text.shape[1]))
    settings = describe_settings(options, labels, embedding)
    about = {name: settings[name] for name in ("checkpoint", "mode", "long_side", "templates")}
    network = {"checkpoint": settings["checkpoint"], "base_size": predictor.base_size}
    outputs = Outputs(
        folder,
        frozenset(parse_kinds(options.write)),
        labels,
        label_colours(len(labels)),
        options.opacity,
        options.overlay_format,
        options.video_format,
        {**about, "labels_file": "labels.json"},
    )

    def writer() -> EmbeddingWriter | None:
        return EmbeddingWriter(predictor, embedding, folder, network) if embedding else None

    writer()  # what cannot be stored is said before anything is deleted

    def forget() -> None:
        outputs.forget()
        forget_embeddings(folder)  # also where this run needs none: a later one would take it

    journal = Journal(folder, settings, forget if options.overwrite else None)
    raise_all(journal.clashes(sources))
    write_json(folder / "labels.json", {"labels": labels})
    if 0 < len(labels) <= MOST_IN_LEGEND:
        save_picture(folder / "legend.png", legend(range(len(labels)), labels, outputs.colours, 800))
    segment = Segmenting(predictor, text, options.mode, options.long_side, options.batch_size)
    return PredictionRun(segment, outputs, writer(), journal, options.max_frames)


def describe_settings(
    options: argparse.Namespace, labels: list[str], embedding: EmbeddingOptions | None
) -> dict[str, Any]:
    """Everything that the results depend on, in plain types, for run.json."""
    names = ("mode", "long_side", "templates", "opacity", "overlay_format", "video_format", "max_frames")
    return {
        "checkpoint": {"file": options.weights.name, "sha256": sha256_of(options.weights), **block_options(options)},
        "labels": labels,
        **{name: getattr(options, name) for name in names},
        "precision": describe_precision(options),  # what "auto" stands for here; on another device it may be another
        "device": resolve_device(options.device).type,
        "embeddings": embedding and vars(embedding),
    }


if __name__ == "__main__":
    run_script(main)
