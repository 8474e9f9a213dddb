"""LSeg in a browser: a picture, labels as text, their colours over it, what is near a pixel, heat maps of any words.

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


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", "--weights", type=Path, help="to begin with; others can be chosen in the page")
    folder = REPOSITORY / "checkpoints"
    parser.add_argument("--checkpoint_dir", type=Path, default=folder, help="searched with its subfolders")
    folder = REPOSITORY / "quickstart"
    parser.add_argument("--quickstart", type=Path, default=folder, help="the --folder of quickstart.sh")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Show the page; Streamlit calls this once for every change that a visitor makes."""
    from apps.web import page

    try:
        options = build_parser().parse(argv)
    except SystemExit:  # it would end Streamlit's thread without a word to the visitor
        page.refused("The app was started with options that it does not take; its terminal says which.")
        return
    page.show(
        options.checkpoint,
        options.checkpoint_dir,
        options.quickstart,
        options.device,
        {"ADE20K, 150 labels": get_labels("ade20k", "corrected")},
    )


def refuse() -> None:
    """Say how this script is started, or what its options are."""
    build_parser().parse(None)
    raise InputError(
        "this is a page for a browser; start it with `streamlit run lseg_app.py -- [options]` (if there is no "
        "streamlit: pip install -r requirements-extras.txt)"
    )


def in_streamlit() -> bool:
    """Whether Streamlit runs this script."""
    runtime = sys.modules.get("streamlit.runtime")
    return runtime is not None and runtime.exists()


if __name__ == "__main__":
    if in_streamlit():
        main()
    else:
        run_script(refuse)
