"""Segment pictures, write their pixel embeddings, inspect checkpoints: the command ``lseg`` of the package.

It is for a few pictures. Folders with resuming, videos and the app need the repository: predict_lseg.py, lseg_app.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.files import write_aside
from lseg_utils.label_list import split_labels

from . import zoo
from .choices import CALLERS, LAYOUTS, MODES, VARIANTS
from .models.backbones import BACKBONES
from .weights_file import check_weights_file


def build_parser() -> Parser:
    """The command and its options."""
    parser = Parser(__doc__ or "", prog="lseg")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{segment,embed,zoo}", parser_class=Parser)
    commands.add_parser(
        "zoo", help="list, check and convert checkpoints: lseg zoo --help", add_help=False, description=""
    )
    for name, does in (("segment", "label every pixel of pictures"), ("embed", "write pixel embeddings as .npy files")):
        command = commands.add_parser(name, help=does, description=does)
        command.add_argument("pictures", nargs="+", metavar="PICTURE", help="read these pictures")
        command.add_argument("--weights", required=True, help="use this checkpoint")
        command.add_argument("--output_dir", default="lseg_output", help="write to this folder")
        shapes = "choose the network of the checkpoint, if its weights fit several"
        command.add_argument("--backbone", choices=list(BACKBONES), help=shapes)
        command.add_argument("--device", default="auto", help="run on auto, cpu, cuda, cuda:1 or mps")
        if name == "segment":
            command.add_argument(
                "--labels", help="use these labels, separated by commas; default: the checkpoint's own"
            )
            command.add_argument(
                "--mode",
                choices=MODES,
                default="whole",
                help="process the image as a whole, in windows, or at six sizes",
            )
        else:
            variants = (*VARIANTS, *CALLERS)
            command.add_argument("--variant", choices=variants, default="unit", help="choose the form, or a project")
            command.add_argument(
                "--layout", choices=LAYOUTS, default="hwc", help="order the axes: pixels first or last"
            )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code; ``InputError`` for everything that is wrong with the arguments, before the network is loaded."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["zoo"]:
        return zoo.main(argv[1:])
    options = build_parser().parse(argv)
    pictures, folder = [Path(picture).expanduser() for picture in options.pictures], Path(options.output_dir)
    problems = [f"there is no picture {picture}" for picture in pictures if not picture.is_file()]
    stems = [picture.stem for picture in pictures]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    problems += [f"two pictures are called {stem}; write them to two folders" for stem in twice]
    try:
        check_weights_file(options.weights)
    except InputError as error:
        problems.append(str(error))
    raise_all(problems)

    import numpy as np
    import torch

    from .predictor import LSegPredictor

    predictor = LSegPredictor.from_checkpoint(options.weights, options.device, backbone=options.backbone)
    for picture in pictures:
        place = folder / picture.stem
        if options.command == "segment":
            labels = split_labels(options.labels) if options.labels else None
            result = predictor.segment(picture, labels, options.mode)
            result.save(place)
            areas = ", ".join(f"{label} {area:.0%}" for label, area in result.areas().items() if area)
            print(f"{place}: {areas}")
            continue
        mode = "protocol" if options.variant in CALLERS else "whole"
        pixels = predictor.embed(picture, variant=options.variant, mode=mode, dtype=torch.float16).cpu()
        if options.layout == "chw":
            pixels = pixels.permute(2, 0, 1)
        with write_aside(place.with_name(f"{picture.stem}.npy")) as aside:
            np.save(aside, np.ascontiguousarray(pixels.numpy()))
        print(f"{place}.npy: {' x '.join(map(str, pixels.shape))}, float16")
    return 0


def run() -> None:
    """The console command."""
    run_script(main)


if __name__ == "__main__":
    run()
