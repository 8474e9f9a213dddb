"""The page of ``lseg_app.py``. Streamlit runs it from top to bottom whenever a visitor changes something.

Only the network is shared. What belongs to a visitor lies in ``st.session_state``; nothing is cached by content.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from apps.web import drawing, inputs
from apps.web.clickable import clickable_picture
from apps.web.places import found_checkpoints, label_lists, name_of, sample_pictures
from apps.web.work import SharedPredictor, Work, pixel_at
from lseg_utils.errors import InputError
from modules.inference.segmentation import OPACITY
from modules.predictor import Segmentation

EVERYDAY = ["person", "cat", "dog", "grass", "tree", "sky", "building", "road", "water", "other"]
SUFFIXES = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"]
LABELS, HEAT, PHOTO = "Labels", "Heat map", "Picture"


@dataclass(frozen=True)
class Choice:
    """What the sidebar says. source: tells pictures and networks apart. note: what happened to the picture."""

    predictor: SharedPredictor
    lists: dict[str, list[str]]
    source: tuple[Hashable, ...]
    picture: np.ndarray
    note: str


def show(
    checkpoint: Path | None, checkpoint_dir: Path, quickstart: Path, device: str, lists: dict[str, list[str]]
) -> None:
    """The whole page; what a visitor can put right is said in it, without traceback.

    Args:
        checkpoint: the one to begin with; None: the first of those found.
        checkpoint_dir, quickstart: where checkpoints are looked for, see ``places.found_checkpoints``.
        device: of the network.
        lists: label lists to begin with, by name, besides the network's and the miniature's.
    """
    st.set_page_config(page_title="LSeg", page_icon="🖍️", layout="wide")
    found = found_checkpoints(checkpoint_dir, quickstart)
    if checkpoint is not None:
        found = [checkpoint] + [path for path in found if path.resolve() != checkpoint.resolve()]
    if not found:
        _nothing_trained(checkpoint_dir)
        return
    try:
        _segment(_sidebar(found, checkpoint_dir, device, lists))
    except InputError as error:
        st.error(_plain(error))


def refused(message: str) -> None:
    """A page that only says why there is no other."""
    st.title("LSeg")
    st.error(message)


def _nothing_trained(checkpoint_dir: Path) -> None:
    st.title("LSeg")
    st.info("There is no trained network on this machine yet. This trains one in miniature, in about ten minutes:")
    st.code("bash quickstart.sh", language="bash")
    st.write("Or put a checkpoint (`.ckpt`, `.pth`) here, and reload this page:")
    st.code(str(checkpoint_dir), language=None)


# ---------------------------------------------------------------------------------------------------------- sidebar


@st.cache_resource(max_entries=2, show_spinner="Loading the network ...")
def _shared_predictor(checkpoint: str, modified: float, device: str) -> SharedPredictor:
    """One for all visitors; ``modified`` makes a file that was written anew another one."""
    return SharedPredictor.load(Path(checkpoint), device)


def _sidebar(found: list[Path], checkpoint_dir: Path, device: str, lists: dict[str, list[str]]) -> Choice:
    with st.sidebar:
        st.title("LSeg", help="Label the pixels of a picture with any words.")
        checkpoint = st.selectbox("Checkpoint", found, format_func=lambda path: name_of(path, checkpoint_dir))
        modified = checkpoint.stat().st_mtime if checkpoint.is_file() else 0.0
        predictor = _shared_predictor(str(checkpoint), modified, device)
        st.caption(f"`{predictor.backbone}`")
        upload = st.file_uploader("Your picture", SUFFIXES, max_upload_size=inputs.MAX_UPLOAD_MB)
        samples = sample_pictures(checkpoint)
        sample = st.selectbox(
            "Or a sample", samples, format_func=lambda path: path.stem.replace("_", " "), disabled=upload is not None
        )
        st.caption("Pictures stay in the memory of this session and are gone when it ends.")
        if upload is not None:
            picture = _work().picture(upload.file_id, lambda: inputs.read_picture(upload.getvalue(), upload.name))
        else:
            picture = _work().picture(sample, lambda: inputs.read_sample(sample))
    source = (checkpoint, modified, upload.file_id if upload is not None else sample)
    own = {"the network's own": list(predictor.labels)} if predictor.labels else {}
    everyday = {"everyday things": EVERYDAY}
    mine = label_lists(checkpoint)
    return Choice(predictor, {**mine, **own, **({} if mine else everyday), **lists}, source, *picture)


# ------------------------------------------------------------------------------------------------- picture and labels


def _segment(choice: Choice) -> None:
    left, right = st.columns([8, 5], gap="medium")
    with left:
        what, how = st.columns([5, 4])
        view = what.segmented_control("View", [LABELS, HEAT, PHOTO], default=LABELS, required=True)
        opacity = how.slider("Opacity", 0.0, 1.0, OPACITY, 0.05, disabled=view == PHOTO)
        query = _query() if view == HEAT else ""
    with right:
        result = _result(choice)
    with left:
        if result is None:
            st.image(drawing.shown_photo(choice.picture))
            return
        point = _picture(choice, result, view, query, opacity)
    with right:
        _nearest(choice, result, point)
        _downloads(result, opacity)


def _query() -> str:
    text = st.text_input("Where is ...", placeholder="any words, such as: a crimson disc")
    try:
        return inputs.parse_query(text)
    except InputError as error:
        st.error(_plain(error))
        return ""


def _result(choice: Choice) -> Segmentation | None:
    """The labels as text, and beneath it in their colours; None if they cannot be used."""
    name = st.selectbox("Begin with", list(choice.lists))
    text = st.text_area(
        "Labels",
        "\n".join(choice.lists[name]),
        height=180,
        key=f"labels {hash(choice.source[0])} {name}",  # keys go to the browser: without this machine's paths
        help=f"One per line, or separated by commas; at most {inputs.MAX_LABELS}. Ctrl+Enter applies.",
    )
    try:
        labels = inputs.parse_labels(text)
        with st.spinner("Segmenting ..."):
            result = _work().segment(choice.predictor, choice.source, choice.picture, labels)
    except InputError as error:
        st.error(_plain(error))
        return None
    st.html(drawing.legend_html(result))
    return result


def _picture(choice: Choice, result: Segmentation, view: str, query: str, opacity: float) -> tuple[float, float] | None:
    """The view; the point that was clicked in it, as shares (y, x) of height and width."""
    cosines = None
    if view == LABELS:
        picture = drawing.shown_labels(result, opacity)
    elif view == HEAT and query:
        try:
            cosines = _work().heatmap(choice.predictor, query)
        except InputError as error:
            st.error(_plain(error))
            return None
        picture = drawing.shown_heat(result.image, cosines, opacity)
    else:
        picture = drawing.shown_photo(result.image)
    point = clickable_picture(picture, key=f"picture {hash(choice.source)}")
    if cosines is not None:
        st.html(drawing.heat_scale_html(cosines))
        here = f" At the marked pixel: {cosines[pixel_at(*point, *cosines.shape)]:.3f}." if point else ""
        st.caption(f"Cosine of every pixel with the text, from the lowest to the highest in this picture.{here}")
    if choice.note:
        st.caption(choice.note)
    return point


def _nearest(choice: Choice, result: Segmentation, point: tuple[float, float] | None) -> None:
    """The labels nearest to the clicked pixel."""
    if point is None:
        st.caption("Click a pixel of the picture to see the labels nearest to it.")
        return
    row, column = pixel_at(*point, *result.mask.shape)
    st.markdown(f"**Pixel {column}, {row}**", help="Probability among these labels, and score: cosine / 0.07.")
    near = _work().nearest(choice.predictor, *point)
    st.html(drawing.nearest_html(near, result.colours))


def _downloads(result: Segmentation, opacity: float) -> None:
    """Both files are made when they are asked for."""
    mask, overlay = st.columns(2)
    mask.download_button(
        "Mask",
        lambda: drawing.mask_png(result),
        "mask.png",
        "image/png",
        on_click="ignore",
        icon=":material/download:",
        width="stretch",
        help="Palette PNG of the picture's size; a pixel's value is the position of its label in the list, from 1.",
    )
    overlay.download_button(
        "Overlay",
        lambda: drawing.overlay_png(result, opacity),
        "overlay.png",
        "image/png",
        on_click="ignore",
        icon=":material/download:",
        width="stretch",
        help="The picture under the labels' colours, with a legend.",
    )


def _work() -> Work:
    return st.session_state.setdefault("work", Work())


def _plain(error: InputError) -> str:
    """As Markdown that shows the words as they are, one problem a line."""
    special = str.maketrans({sign: "\\" + sign for sign in "\\`*_[]$:<>#~|"})
    return str(error).translate(special).replace("\n", "  \n")
