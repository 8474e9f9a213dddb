"""The page of ``lseg_app.py``. Streamlit runs it from top to bottom whenever a visitor changes something."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from apps.web import drawing
from apps.web.choosing import Start, choose, plain, query_of, results_of, settings
from apps.web.clickable import accept_pasted_pictures
from apps.web.link import Link
from apps.web.showing import HEAT, LABELS, PHOTO, show_pictures
from encoding_ext.label_colours import label_colours
from lseg_utils.errors import InputError
from modules.inference.segmentation import OPACITY

NO_PICTURE = "Upload, drop or paste a photograph above, then choose the labels for its pixels."

# Less empty space above; the switch for the view wraps instead of being cut off on a narrow screen.
STYLE = """<style>
.stMainBlockContainer { padding-top: 2.2rem; padding-bottom: 3rem; }
[data-testid="stButtonGroup"] [role="radiogroup"] { flex-wrap: wrap; }
h1 { font-size: 2rem !important; padding: 0 !important; }
[data-testid="InputInstructions"] { display: none; } /* "Ctrl+Enter" helps nobody on a phone */
[data-testid="stCaptionContainer"] { opacity: 1; }
[data-testid="stCaptionContainer"] p { color: #5b6068; }
@media (prefers-color-scheme: dark) { [data-testid="stCaptionContainer"] p { color: #b3b8c0; } }
@media (max-width: 640px) { .stMainBlockContainer { padding-left: 1rem; padding-right: 1rem; } }
</style>"""
INTRODUCTION = (
    "Label the pixels of a picture with any words. "
    "[Paper](https://openreview.net/forum?id=RriDjddCLN) · [official code](https://github.com/isl-org/lang-seg)"
)


def show(start: Start, lists: dict[str, list[str]]) -> None:
    """The whole page; what a visitor can correct is explained in it, without a traceback.

    lists: label lists to begin with, by name, besides the network's and the miniature's.
    """
    st.set_page_config(page_title="LSeg", page_icon="🖍️", layout="wide")
    st.html(STYLE)
    if not start.found():
        _nothing_trained(start.checkpoint_dir)
        return
    link = Link()
    head, upload_place, sample_place = st.columns([3, 3, 2], gap="medium", vertical_alignment="bottom")
    with head:
        st.title("LSeg", anchor=False)
        st.markdown(INTRODUCTION)
    left, right = st.columns([8, 5], gap="medium")
    with right:
        labels_place, settings_place = st.container(), st.expander("Network and display")
    with left:
        what, how = st.columns([5, 4])
        views = [LABELS, HEAT, PHOTO]
        view = what.segmented_control("View", views, default=views[link.position("view", views)], required=True)
        opacity = how.slider("Opacity", 0.0, 1.0, link.share("opacity", OPACITY), 0.05, disabled=view == PHOTO)
        query_place, picture_place = st.container(), st.container()
    link.keep("view", view, LABELS)
    link.keep("opacity", opacity, OPACITY)
    try:
        with settings_place:
            network, predictor, mode, palette = settings(start, link)
        choice = choose(network, predictor, mode, link, upload_place, sample_place)
        if choice is None:
            picture_place.info(NO_PICTURE)
            accept_pasted_pictures()
            return
        with labels_place:
            results = results_of(choice, lists, link)
        for result in results:
            result.colours = label_colours(result.labels, palette)
        if view == HEAT and results:
            with query_place:
                query = query_of(results[0].labels, link)
        with picture_place:
            if results:
                show_pictures(choice, results, view, query if view == HEAT else "", opacity)
            else:
                st.image(drawing.shown_photo(choice.picture))
    except InputError as error:
        with picture_place:
            st.error(plain(error))
    accept_pasted_pictures()
    link.write()


def refused(message: str) -> None:
    """A page with nothing but this message."""
    st.title("LSeg")
    st.error(message)


def _nothing_trained(checkpoint_dir: Path) -> None:
    st.title("LSeg")
    st.info("There is no trained network on this machine yet. This command trains a small one in about ten minutes:")
    st.code("bash quickstart.sh", language="bash")
    st.write("Or copy a checkpoint (`.ckpt` or `.pth`) into this folder and reload the page:")
    st.code(str(checkpoint_dir), language=None)
