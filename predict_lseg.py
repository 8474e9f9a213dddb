"""Segment pictures, folders, videos or a camera with any labels: overlays, masks, label maps, areas, embeddings.

If a run is interrupted, the same command resumes it. Inputs that cannot be read are reported at the end; all others are
processed. NAME in the paths of results is the input's path without its suffix; where two inputs would get the same
name, the suffix is kept: cat.jpg and cat.png become cat_jpg and cat_png. Frames of a video are NAME.frames/000000 and
so on. --embeddings h5 writes one file, embeddings/embeddings.h5, with a float16 dataset (H, W, C) for each picture or
frame, in chunks of 32 x 32 pixels; manifest.json next to it describes what was embedded and how. --embeddings
store writes the folder embeddings/ in an eighth of the space, see docs/feature_store.md. Embeddings of videos are
large; the script prints an estimate before it starts.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from apps.predict.journal import foreign_files
from apps.predict.options import (
    KINDS,
    OPACITY,
    PICTURE_FORMATS,
    STORES,
    VIDEO_FORMATS,
    EmbeddingOptions,
    LookOptions,
    Request,
    WriteOptions,
    parse_kinds,
)
from apps.predict.sources import Source, find_sources
from apps.web.places import default_checkpoint
from data.labels import labels_from
from encoding_ext.label_colours import SCHEMES
from lseg_utils.cli import Parser, chosen, doubts_as_notes
from lseg_utils.errors import raise_all, run_script
from lseg_utils.feature_store import BASIS, CODES
from lseg_utils.files import REPOSITORY, unwritable
from modules.choices import CALLERS, LAYOUTS, MODES, VARIANTS, block_options
from modules.options import add_device_options, add_network_options, add_weights_options, weights_name

IDLE_ALONE = {"embedding_size": "half", "embedding_variant": "unit", "embedding_multi_scale": False}  # and defaults
IDLE_ALONE |= {"embedding_layout": "hwc", "embedding_suffix": "", "store_codes": CODES[0]}


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    what = "segment this: a picture, folder, video, or the number of a camera"
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=what)
    add_weights_options(parser, default="the quickstart's")
    labels = "use these labels: 'cat, grass, other', or a file with one per line; default: the checkpoint's"
    parser.add_argument("--labels", help=labels)
    sentences = "put the labels into these sentences; default: the labels alone"
    parser.add_argument("--templates", choices=("imagenet",), help=sentences)
    views = "process the image as a whole, in windows, or at six sizes"
    parser.add_argument("--mode", choices=MODES, default="whole", help=views)
    parser.add_argument("--long_side", type=int, help="resize the long side to this many pixels for the network")
    parser.add_argument(
        "--batch_size", type=int, default=4, help="send this many pictures through the network together"
    )
    group = parser.add_argument_group("results")
    group.add_argument(
        "--output_dir", type=Path, help="write results to this folder; default: outputs/predict_<weights>"
    )
    group.add_argument("--overwrite", action="store_true", help="delete earlier results there and do everything again")
    group.add_argument("--write", default=",".join(KINDS), help="write some of these, or 'none' (embeddings alone)")
    group.add_argument("--opacity", type=float, default=OPACITY, help="set the opacity of overlay colours, 0 to 1")
    group.add_argument(
        "--palette", choices=SCHEMES, default="natural", help="colour labels by their meaning, or in a fixed palette"
    )
    group.add_argument("--no_names", action="store_true", help="leave the labels' names out of picture overlays")
    group.add_argument(
        "--overlay_format", choices=PICTURE_FORMATS, default="jpg", help="choose the file type of picture overlays"
    )
    group.add_argument("--video_format", choices=VIDEO_FORMATS, default="mp4", help="choose the file type of videos")
    group.add_argument(
        "--max_frames", type=int, help="stop a video or camera after this many frames; a camera also stops at Ctrl-C"
    )
    group = parser.add_argument_group("embeddings")
    group.add_argument(
        "--embeddings", choices=STORES, help="also write pixel embeddings: files of this type, or a compact store"
    )
    group.add_argument("--store_codes", choices=CODES, default=CODES[0], help="choose the number format of a store")
    group.add_argument(
        "--embedding_size", default="half", help="set their height and width: half, input, or HEIGHTxWIDTH"
    )
    group.add_argument(
        "--embedding_variant",
        choices=(*VARIANTS, *CALLERS),
        default="unit",
        help="choose how embeddings are normalised, or the project whose embeddings to compute exactly",
    )
    group.add_argument("--embedding_layout", choices=LAYOUTS, default="hwc", help="order the axes of the files")
    group.add_argument("--embedding_suffix", default="", help="end file names with this text, such as _fmap_CxHxW")
    group.add_argument(
        "--embedding_multi_scale", action="store_true", help="add up embeddings of six sizes and mirror images"
    )
    group.add_argument(
        "--pca", type=int, metavar="K", help="keep K principal components, and save pictures of the first three"
    )
    add_network_options(parser, backbone=None)
    add_device_options(parser, compiled=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the command, then run it. Returns 1 if some inputs could not be read, 2 if the run had to stop."""
    request = read_request(build_parser().parse(argv))
    from apps.predict.run import predict  # imports torch: what is wrong with a command is reported before

    return predict(request)


def read_request(options: argparse.Namespace) -> Request:
    """What the command line asks for; one ``InputError`` with everything that is wrong with it."""
    weights = options.weights
    if weights is None:
        weights = default_checkpoint()
        print(f"note: no --weights given; using {weights}")
    folder = options.output_dir or REPOSITORY / "outputs" / f"predict_{weights_name(weights)}"
    sources, problems = find_sources(options.inputs, folder)
    if not weights.is_file():
        problems.append(
            f"there is no file {weights}; `python -m modules.zoo` lists the published checkpoints, and "
            "`bash quickstart.sh` trains a small one in about ten minutes"
        )
    if problem := unwritable(folder, "--output_dir") or foreign_files(folder, "--output_dir"):
        problems.append(problem)
    problems += contradictions(options, sources, folder)
    with doubts_as_notes():
        labels, look, kinds, write, embedding = raise_all(
            problems,
            lambda: options.labels and tuple(labels_from(options.labels)),
            lambda: chosen(LookOptions, options),
            lambda: parse_kinds(options.write),
            lambda: WriteOptions(
                opacity=options.opacity,
                palette=options.palette,
                names=not options.no_names,
                picture_format=options.overlay_format,
                video_format=options.video_format,
            ),
            lambda: EmbeddingOptions(
                store=options.embeddings,
                size=options.embedding_size,
                variant=options.embedding_variant,
                multi_scale=options.embedding_multi_scale,
                pca=options.pca,
                long_side=options.long_side,
                layout=options.embedding_layout,
                suffix=options.embedding_suffix,
                codes=options.store_codes,
            ),
        )
    return Request(
        sources=tuple(sources),
        weights=weights,
        trust=options.trust_checkpoint,
        backbone=options.backbone,
        block=block_options(options),
        device=options.device,
        precision=options.precision,
        labels=labels,
        templates=options.templates,
        look=look,
        write=replace(write, kinds=kinds),
        embedding=embedding if options.embeddings or options.pca else None,
        folder=folder,
        overwrite=options.overwrite,
    )


def contradictions(options: argparse.Namespace, sources: Sequence[Source], folder: Path) -> list[str]:
    """What the options and inputs ask for that cannot be done, or has no effect."""
    problems = []
    if any(source.kind != "picture" for source in sources) and find_spec("av") is None:
        problems.append("videos need PyAV: pip install av")
    if not (options.embeddings or options.pca):
        if idle := [f"--{name}" for name, default in IDLE_ALONE.items() if getattr(options, name) != default]:
            problems.append(f"{', '.join(idle)}: no embeddings are asked for; add --embeddings or --pca")
        if options.write.strip() == "none":
            problems.append("--write none leaves nothing to write; add --embeddings or --pca")
    basis = folder / ("embeddings" if options.embeddings == "store" else "") / BASIS
    cameras_alone = bool(sources) and all(source.kind == "camera" for source in sources)
    if options.pca and cameras_alone and (options.overwrite or not basis.exists()):
        problems.append(
            "--pca fits its components to pictures and videos before a camera is opened; add some that resemble what "
            f"the camera will see, choose an --output_dir with the components of an earlier run ({BASIS}), or leave "
            "out --pca"
        )
    return problems


if __name__ == "__main__":
    run_script(main)
