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


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", "--weights", type=Path, help="begin with this one; others can be chosen in the page"
    )
    folder = REPOSITORY / "checkpoints"
    parser.add_argument("--checkpoint_dir", type=Path, default=folder, help="look for checkpoints here")
    folder = REPOSITORY / "quickstart"
    parser.add_argument("--quickstart", type=Path, default=folder, help="look for networks of quickstart.sh here")
    parser.add_argument("--device", default="auto", help="run on auto, cpu, cuda, cuda:1 or mps")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Show the page; Streamlit calls this again after each change by a visitor."""
    from apps.web import page

    try:
        options = build_parser().parse(argv)
    except SystemExit:  # it would end Streamlit's thread, and the visitor would see nothing
        page.refused("The app was started with unknown options; the message in its terminal names them.")
        return
    page.show(
        options.checkpoint,
        options.checkpoint_dir,
        options.quickstart,
        options.device,
        {"ADE20K, 150 labels": get_labels("ade20k", "corrected")},
    )


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
