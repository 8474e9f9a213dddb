"""The page of ``lseg_app.py``. Streamlit runs it from top to bottom whenever a visitor changes something.

Only the network is shared. What belongs to a visitor lies in ``st.session_state``; nothing is cached by content.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from apps.web import drawing, inputs
from apps.web.clickable import (
    Download,
    accept_pasted_pictures,
    clickable_picture,
    download_buttons,
    wanted_download,
)
from apps.web.link import Link
from apps.web.places import found_checkpoints, is_miniature, label_lists, name_of, sample_pictures
from apps.web.work import SharedPredictor, Work, pixel_at
from encoding_ext.label_colours import label_colours
from lseg_utils.errors import InputError
from modules.inference.segmentation import OPACITY
from modules.predictor import Segmentation

EVERYDAY = ["person", "cat", "grass", "tree", "sky", "other"]
SUFFIXES = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"]
LABELS, HEAT, PHOTO = "Labels", "Heat map", "Picture"
QUICK, PUBLISHED = "quick", "published protocol (slow)"
MODES = {QUICK: "whole", PUBLISHED: "multi_scale"}
PALETTES = {"after the labels' meaning": "natural", "for colour-blind eyes": "colour_blind", "of ADE20K": "ade20k"}
EXAMPLES = 4  # labels that are offered as words to look for
PRIVACY = "Pictures stay in the memory of this session and are gone when it ends."
LOOK_HELP = "The published protocol looks 36 times, in six sizes and mirrored; on a CPU this takes minutes."
NO_PICTURE = "Upload a photograph above, drop it there or paste it: its pixels then get labels of your choice."
TOY_NETWORK = (
    "This small network has only seen coloured shapes on four textures. For photographs, use a published checkpoint."
)

# Less empty space above; the switch for the view wraps instead of being cut off on a narrow screen.
STYLE = """<style>
.stMainBlockContainer { padding-top: 2.2rem; padding-bottom: 3rem; }
[data-testid="stButtonGroup"] [role="radiogroup"] { flex-wrap: wrap; }
h1 { font-size: 2rem !important; padding: 0 !important; }
[data-testid="stCaptionContainer"] { opacity: 1; }
[data-testid="stCaptionContainer"] p { color: #5b6068; }
@media (prefers-color-scheme: dark) { [data-testid="stCaptionContainer"] p { color: #b3b8c0; } }
@media (max-width: 640px) { .stMainBlockContainer { padding-left: 1rem; padding-right: 1rem; } }
</style>"""
INTRODUCTION = (
    "Label the pixels of a picture with any words. "
    "[Paper](https://openreview.net/forum?id=RriDjddCLN) · [official code](https://github.com/isl-org/lang-seg)"
)
# Advice in messages that is for people who write Python.
FOR_PROGRAMMERS = re.compile(
    r"; encode_text\(.*?\) cuts it|\. Python code that trusts the image can raise max_pixels", re.DOTALL
)


@dataclass(frozen=True)
class Choice:
    """What is looked at.

    source: tells pictures, networks and modes apart. name: of the picture. note: what happened to the picture.
    sample: the file, unless it was uploaded.
    """

    predictor: SharedPredictor
    checkpoint: Path
    mode: str
    source: tuple[Hashable, ...]
    name: str
    picture: np.ndarray
    note: str
    sample: Path | None


def show(
    checkpoint: Path | None, checkpoint_dir: Path, quickstart: Path, device: str, lists: dict[str, list[str]]
) -> None:
    """The whole page; what a visitor can put right is explained in it, without a traceback.

    Args:
        checkpoint: the one to begin with; None: the first of those found.
        checkpoint_dir, quickstart: where checkpoints are looked for, see ``places.found_checkpoints``.
        device: of the network.
        lists: label lists to begin with, by name, besides the network's and the miniature's.
    """
    st.set_page_config(page_title="LSeg", page_icon="🖍️", layout="wide")
    st.html(STYLE)
    found = found_checkpoints(checkpoint_dir, quickstart)
    if checkpoint is not None:
        found = [checkpoint] + [path for path in found if path.resolve() != checkpoint.resolve()]
    if not found:
        _nothing_trained(checkpoint_dir)
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
            network, predictor, mode, palette = _settings(found, checkpoint_dir, device, link)
        choice = _choose(network, predictor, mode, link, upload_place, sample_place)
        if choice is None:
            picture_place.info(NO_PICTURE)
            accept_pasted_pictures()
            return
        with labels_place:
            results = _results(choice, lists, link)
        for result in results:
            result.colours = label_colours(result.labels, palette)
        if view == HEAT and results:
            with query_place:
                query = _query(results[0].labels, link)
        with picture_place:
            if results:
                _pictures(choice, results, view, query if view == HEAT else "", opacity)
            else:
                st.image(drawing.shown_photo(choice.picture))
    except InputError as error:
        with picture_place:
            st.error(_plain(error))
    accept_pasted_pictures()
    link.write()


def refused(message: str) -> None:
    """A page with nothing but this message."""
    st.title("LSeg")
    st.error(message)


def _nothing_trained(checkpoint_dir: Path) -> None:
    st.title("LSeg")
    st.info("There is no trained network on this machine yet. This trains one in miniature, in about ten minutes:")
    st.code("bash quickstart.sh", language="bash")
    st.write("Or put a checkpoint (`.ckpt`, `.pth`) here, and reload this page:")
    st.code(str(checkpoint_dir), language=None)


# ------------------------------------------------------------------------------------------------ network and picture


@st.cache_resource(max_entries=2, show_spinner="Loading the network ...")
def _shared_predictor(checkpoint: str, modified: float, device: str) -> SharedPredictor:
    """One for all visitors; ``modified`` makes a file that was written anew another one."""
    return SharedPredictor.load(Path(checkpoint), device)


def _settings(
    found: list[Path], checkpoint_dir: Path, device: str, link: Link
) -> tuple[Path, SharedPredictor, str, str]:
    """The network's file, the network, how it looks at a picture, and the palette."""
    names = [name_of(path, checkpoint_dir) for path in found]
    name = st.selectbox("Checkpoint", names, link.position("network", names))
    network = found[names.index(name)]
    modified = network.stat().st_mtime if network.is_file() else 0.0
    predictor = _shared_predictor(str(network), modified, device)
    st.caption(f"`{predictor.backbone}`")
    look = st.radio("Look", list(MODES), link.position("look", list(MODES)), help=LOOK_HELP)
    palette = st.radio("Colours", list(PALETTES), link.position("colours", list(PALETTES)))
    link.keep("network", name, names[0])
    link.keep("look", look, QUICK)
    link.keep("colours", palette, next(iter(PALETTES)))
    return network, predictor, MODES[look], PALETTES[palette]


def _choose(
    network: Path, predictor: SharedPredictor, mode: str, link: Link, upload_place: Any, sample_place: Any
) -> Choice | None:
    """The picture that a visitor uploaded, or the chosen sample; None if there is neither."""
    upload = upload_place.file_uploader(
        "Your picture: upload, drop or paste it", SUFFIXES, max_upload_size=inputs.MAX_UPLOAD_MB, help=PRIVACY
    )
    samples = {path.stem.replace("_", " "): path for path in sample_pictures(network)}
    sample = None
    if upload is not None:
        name, source = Path(upload.name).stem, upload.file_id
        picture = _work().picture(source, lambda: inputs.read_picture(upload.getvalue(), upload.name))
    elif not samples:
        return None
    else:
        name = sample_place.selectbox("Or a sample", list(samples), link.position("sample", list(samples)))
        sample = source = samples[name]
        picture = _work().picture(source, lambda: inputs.read_sample(source))
        link.keep("sample", name, next(iter(samples)))
    modified = network.stat().st_mtime if network.is_file() else 0.0
    return Choice(predictor, network, mode, (network, modified, mode, source), name, *picture, sample)


# ------------------------------------------------------------------------------------------------------------- labels


def _results(choice: Choice, lists: dict[str, list[str]], link: Link) -> list[Segmentation]:
    """The picture under the labels, and if asked for under a second list; none if the labels cannot be used."""
    mine = label_lists(choice.checkpoint, choice.sample)
    own = {"the network's own labels": list(choice.predictor.labels)} if choice.predictor.labels else {}
    offers = {**mine, **({} if mine else {"everyday things": EVERYDAY}), **own, **lists}
    results = []
    texts = [_labels("", offers, 0, choice, link)]
    if st.toggle("Compare with a second list", value=bool(link.text("labels2"))):
        texts.append(_labels("2", offers, min(1, len(offers) - 1), choice, link))
    for number, text in enumerate(texts):
        try:
            labels = inputs.parse_labels(text)
            with st.spinner("Segmenting ...", show_time=True):
                results.append(
                    _work().segment(choice.predictor, choice.source, choice.picture, labels, choice.mode, number)
                )
        except InputError as error:
            st.error(_plain(error))
            return []
    return results


def _labels(which: str, offers: dict[str, list[str]], first: int, choice: Choice, link: Link) -> str:
    """A list to begin with, as text that a visitor changes. What was changed stays when the picture changes."""
    names = list(offers)
    position = link.position(f"list{which}", names) or first
    name = st.selectbox("Begin with", names, position, key=f"list{which}")
    changed = st.session_state.setdefault(f"changed{which}", {names[position]: link.text(f"labels{which}")})
    offered = "\n".join(offers[name])
    text = st.text_area(
        "Labels" if not which else "Second list of labels",
        changed.get(name) or offered,
        height=180,
        key=f"labels{which} {name} {hash(choice.source)}",  # keys go to the browser: without this machine's paths
        help=f"One per line, or separated by commas; at most {inputs.MAX_LABELS}. Click elsewhere to apply.",
    )
    st.session_state[f"changed{which}"] = {name: text if text != offered else ""}
    link.keep(f"list{which}", name, names[first])
    link.keep(f"labels{which}", text.strip() if text != offered else "")
    return text


def _query(labels: list[str], link: Link) -> str:
    """The words that the heat map looks for: written, or clicked."""
    query = st.text_input("Where is ...", link.text("query"), placeholder="any words", key="query")
    examples = [label for label in labels if label != query][:EXAMPLES]
    columns = st.columns(len(examples)) if examples else []
    for column, label in zip(columns, examples):
        column.button(label, on_click=_ask, args=(label,), width="stretch", key=f"ask {label}")
    query = inputs.parse_query(query)
    link.keep("query", query)
    return query


def _ask(label: str) -> None:
    st.session_state["query"] = label


# ------------------------------------------------------------------------------------------------------------ pictures


def _pictures(choice: Choice, results: list[Segmentation], view: str, query: str, opacity: float) -> None:
    """The picture in the chosen view, what its colours mean, the labels of a clicked pixel, and the files."""
    if view == HEAT and query:
        with st.spinner("Comparing every pixel with the text ...", show_time=True):
            cosines = _work().heatmap(choice.predictor, query)
        alt = f"Heat map of {query} in {choice.name}: cosines from {cosines.min():.2f} to {cosines.max():.2f}."
        picture = drawing.shown_heat(results[0].image, cosines, opacity)
        point = clickable_picture(picture, f"picture {hash(choice.source)}", alt, [])
        st.html(drawing.heat_scale_html(cosines))
        here = f" At the marked pixel: {cosines[pixel_at(*point, *cosines.shape)]:.3f}." if point else ""
        st.caption(f"Cosine of every pixel with the text, from the lowest to the highest in this picture.{here}")
        _nearest(choice, results[0], point, 0)
    else:
        places = st.columns(len(results)) if len(results) > 1 else [st.container()]
        for number, (place, result) in enumerate(zip(places, results)):
            picture = drawing.shown_photo(result.image)
            if view == LABELS:
                picture = drawing.shown_labels(result, opacity, len(results))
            with place:
                key, alt = f"picture{number or ''} {hash(choice.source)}", drawing.described(result, choice.name)
                point = clickable_picture(picture, key, alt, result.labels, drawing.label_grid(result))
                st.html(drawing.legend_html(result))
                _nearest(choice, result, point, number)
    if is_miniature(choice.checkpoint) and choice.sample is None:
        st.warning(TOY_NETWORK)
    if choice.note:
        st.caption(choice.note)
    files = {
        "mask": ("Mask", "Palette PNG; a pixel's value is the position of its label in the list, from 1."),
        "overlay": ("Overlay", "The picture under the labels' colours, with a legend."),
    }
    wanted = wanted_download("files")
    content = None
    if wanted in files:
        content = drawing.mask_png(results[0]) if wanted == "mask" else drawing.overlay_png(results[0], opacity)
    offers = [Download(kind, title, hint) for kind, (title, hint) in files.items()]
    download_buttons(
        offers,
        "files",
        drawing.file_name(choice.name, results[0].labels, wanted or ""),
        content,
        str(hash(choice.source)),
    )


def _nearest(choice: Choice, result: Segmentation, point: tuple[float, float] | None, place: int) -> None:
    """The labels nearest to the clicked pixel."""
    if point is None:
        st.caption("Click a pixel of the picture to see the labels nearest to it.")
        return
    row, column = pixel_at(*point, *result.mask.shape)
    st.markdown(f"**Pixel {column}, {row}**", help="Probability among these labels, and score: cosine / 0.07.")
    with st.spinner("Looking up the labels ..."):
        near = _work().nearest(choice.predictor, *point, place)
    st.html(drawing.nearest_html(near, result.colours))


def _work() -> Work:
    return st.session_state.setdefault("work", Work())


def _plain(error: InputError) -> str:
    """For visitors: as Markdown that shows the words as they are, one problem per line, without advice on Python."""
    special = str.maketrans({sign: "\\" + sign for sign in "\\`*_[]$:<>#~|"})
    return FOR_PROGRAMMERS.sub("", str(error)).translate(special).replace("\n", "  \n")
