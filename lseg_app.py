"""LSeg in a browser: segment a picture with any labels, ask about a pixel, see heat maps of any words.

streamlit run lseg_app.py
streamlit run lseg_app.py -- --checkpoint FILE
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from data import get_labels
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.files import REPOSITORY
from modules.models.backbones import BACKBONES


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint",
        "--weights",
        type=Path,
        help="start with this checkpoint; visitors can choose others on the page",
    )
    shapes = "choose the network of --checkpoint, if its weights fit several"
    parser.add_argument("--backbone", choices=list(BACKBONES), help=shapes)
    folder = REPOSITORY / "checkpoints"
    parser.add_argument("--checkpoint_dir", type=Path, default=folder, help="look for checkpoints in this folder")
    folder = REPOSITORY / "quickstart"
    parser.add_argument(
        "--quickstart", type=Path, default=folder, help="look for the quickstart's networks in this folder"
    )
    parser.add_argument("--device", default="auto", help="run on auto, cpu, cuda, cuda:1 or mps")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Show the page; Streamlit calls this again after each change by a visitor."""
    from apps.web import page

    try:
        options = build_parser().parse(argv)
    except SystemExit:  # it would end Streamlit's thread, and the visitor would see nothing
        page.refused("The app was started with unknown options. The message in its terminal lists them.")
        return
    if options.backbone and not options.checkpoint:
        page.refused(
            "The app was started with --backbone but without --checkpoint, the file that it describes. Give both."
        )
        return
    start = page.Start(options.checkpoint, options.backbone, options.checkpoint_dir, options.quickstart, options.device)
    page.show(start, {"ADE20K, 150 labels": get_labels("ade20k", "corrected")})


def refuse() -> None:
    """Explain how to start this script, or list its options."""
    build_parser().parse(None)
    raise InputError(
        "this script is a web page; start it with `streamlit run lseg_app.py -- [options]` (to install streamlit: "
        "pip install 'streamlit>=1.65')"
    )


def in_streamlit() -> bool:
    """Whether Streamlit is running this script."""
    runtime = sys.modules.get("streamlit.runtime")
    return runtime is not None and runtime.exists()


if __name__ == "__main__":
    if in_streamlit():
        main()
    else:
        run_script(refuse)
