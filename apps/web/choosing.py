"""What a visitor chooses: network, picture, labels, words to look for. Each choice is a widget of the page.

What belongs to a visitor lies in ``st.session_state``; only the network is shared.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from apps.web import inputs
from apps.web.link import Link
from apps.web.places import found_checkpoints, label_lists, name_of, sample_pictures
from apps.web.work import SharedPredictor, Work
from lseg_utils.errors import InputError
from modules.predictor import LSegPredictor, Segmentation

EVERYDAY = ["person", "cat", "grass", "tree", "sky", "other"]
SUFFIXES = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"]
QUICK, PUBLISHED = "quick", "published protocol (slow)"
MODES = {QUICK: "whole", PUBLISHED: "multi_scale"}
PALETTES = {"natural (grass is green)": "natural", "colour-blind safe": "colour_blind", "those of ADE20K": "ade20k"}
EXAMPLES = 4  # labels that are offered as words to look for
PRIVACY = "Pictures stay in the memory of this session and are deleted when it ends."
LOOK_HELP = (
    "The published protocol runs the network 36 times: six sizes, each mirrored too. On a CPU this takes minutes."
)
# Advice in messages that is for people who write Python.
FOR_PROGRAMMERS = re.compile(
    r"; encode_text\(.*?\) shortens it|\. Python code that trusts the image can raise max_pixels", re.DOTALL
)


@dataclass(frozen=True)
class Start:
    """What the app was started with.

    checkpoint: the one to begin with; None: the first of those found. backbone: what it was trained as, where its
    weights do not tell. checkpoint_dir, quickstart: where checkpoints are looked for, see ``places.found_checkpoints``.
    device: of the network.
    """

    checkpoint: Path | None
    backbone: str | None
    checkpoint_dir: Path
    quickstart: Path
    device: str

    def found(self) -> list[Path]:
        """All checkpoints, the one to begin with first."""
        found = found_checkpoints(self.checkpoint_dir, self.quickstart)
        if self.checkpoint is None:
            return found
        return [self.checkpoint] + [path for path in found if path.resolve() != self.checkpoint.resolve()]


@dataclass(frozen=True)
class Choice:
    """What is looked at.

    source: tells pictures, networks and modes apart. name: of the picture. note: what happened to the picture.
    sample: the file, unless it was uploaded. upload: tells uploads apart, also one that was refused; "" without one.
    """

    predictor: SharedPredictor
    checkpoint: Path
    mode: str
    source: tuple[Hashable, ...]
    name: str
    picture: np.ndarray
    note: str
    sample: Path | None
    upload: str


@st.cache_resource(max_entries=2, show_spinner="Loading the network ...")
def shared_predictor(checkpoint: str, modified: float, device: str, backbone: str | None) -> SharedPredictor:
    """One for all visitors; ``modified`` makes a file that was written anew another one.

    backbone: what the file was trained as, where its weights do not tell. ``InputError`` for a file of no use.
    """
    return SharedPredictor(LSegPredictor.from_checkpoint(checkpoint, device, backbone=backbone))


def settings(start: Start, link: Link) -> tuple[Path, SharedPredictor, str, str]:
    """The network's file, the network, how it looks at a picture, and the palette."""
    found = start.found()
    names = [name_of(path, start.checkpoint_dir) for path in found]
    name = st.selectbox("Checkpoint", names, link.position("network", names))
    network = found[names.index(name)]
    modified = network.stat().st_mtime if network.is_file() else 0.0
    backbone = start.backbone if network == start.checkpoint else None
    predictor = shared_predictor(str(network), modified, start.device, backbone)
    st.caption(f"`{predictor.backbone}`")
    look = st.radio("Protocol", list(MODES), link.position("look", list(MODES)), help=LOOK_HELP)
    palette = st.radio("Colours", list(PALETTES), link.position("colours", list(PALETTES)))
    link.keep("network", name, names[0])
    link.keep("look", look, QUICK)
    link.keep("colours", palette, next(iter(PALETTES)))
    return network, predictor, MODES[look], PALETTES[palette]


def choose(
    network: Path, predictor: SharedPredictor, mode: str, link: Link, upload_place: Any, sample_place: Any
) -> Choice | None:
    """The picture that a visitor uploaded, or the chosen sample if it cannot be used; None if there is neither."""
    upload = upload_place.file_uploader(
        "Your picture: upload, drop or paste it", SUFFIXES, max_upload_size=inputs.MAX_UPLOAD_MB, help=PRIVACY
    )
    modified = network.stat().st_mtime if network.is_file() else 0.0
    seen = network, modified, mode
    if upload is not None:
        try:
            picture = visitors_work().picture(
                upload.file_id, lambda: inputs.read_picture(upload.getvalue(), upload.name)
            )
            source = (*seen, upload.file_id)
            return Choice(predictor, network, mode, source, Path(upload.name).stem, *picture, None, upload.file_id)
        except InputError as error:  # the page stays as it is without the upload
            upload_place.error(plain(error))
    samples = {path.stem.replace("_", " "): path for path in sample_pictures(network)}
    if not samples:
        return None
    name = sample_place.selectbox("Or choose a sample", list(samples), link.position("sample", list(samples)))
    sample = samples[name]
    picture = visitors_work().picture(sample, lambda: inputs.read_sample(sample))
    link.keep("sample", name, next(iter(samples)))
    refused = upload.file_id if upload is not None else ""
    return Choice(predictor, network, mode, (*seen, sample), name, *picture, sample, refused)


def results_of(choice: Choice, lists: dict[str, list[str]], link: Link) -> list[Segmentation]:
    """The picture under the labels, and if asked for under a second list; none if the labels cannot be used."""
    mine = label_lists(choice.checkpoint, choice.sample)
    own = {"the network's own labels": list(choice.predictor.labels)} if choice.predictor.labels else {}
    offers = {**mine, **({} if mine else {"everyday things": EVERYDAY}), **own, **lists}
    results = []
    texts = [_labels("", offers, 0, choice, link)]
    if st.toggle("Compare with a second label list", value=bool(link.text("labels2"))):
        texts.append(_labels("2", offers, min(1, len(offers) - 1), choice, link))
    for number, text in enumerate(texts):
        try:
            labels = inputs.parse_labels(text)
            with st.spinner("Segmenting ...", show_time=True):
                results.append(
                    visitors_work().segment(
                        choice.predictor, choice.source, choice.picture, labels, choice.mode, number
                    )
                )
        except InputError as error:
            st.error(plain(error))
            return []
    return results


def _labels(which: str, offers: dict[str, list[str]], first: int, choice: Choice, link: Link) -> str:
    """A list to begin with, as text that a visitor changes. What was changed stays when the picture changes."""
    names = list(offers)
    position = link.position(f"list{which}", names) or first
    name = st.selectbox("Label list", names, position, key=f"list{which}")
    changed = st.session_state.setdefault(f"changed{which}", {names[position]: link.text(f"labels{which}")})
    offered = "\n".join(offers[name])
    text = st.text_area(
        "Labels" if not which else "Second list of labels",
        changed.get(name) or offered,
        height=180,
        key=f"labels{which} {name} {hash(choice.source)}",  # keys go to the browser: without this machine's paths
        help=f"One per line, or separated by commas; at most {inputs.MAX_LABELS}. Click outside the box to apply.",
    )
    st.session_state[f"changed{which}"] = {name: text if text != offered else ""}
    link.keep(f"list{which}", name, names[first])
    link.keep(f"labels{which}", text.strip() if text != offered else "")
    return text


def query_of(labels: list[str], link: Link) -> str:
    """The words that the heat map looks for: written, or clicked."""
    query = st.text_input("What to look for", link.text("query"), placeholder="any words", key="query")
    examples = [label for label in labels if label != query][:EXAMPLES]
    columns = st.columns(len(examples)) if examples else []
    for column, label in zip(columns, examples):
        column.button(label, on_click=_ask, args=(label,), width="stretch", key=f"ask {label}")
    query = inputs.parse_query(query)
    link.keep("query", query)
    return query


def _ask(label: str) -> None:
    st.session_state["query"] = label


def visitors_work() -> Work:
    return st.session_state.setdefault("work", Work())


def plain(error: InputError) -> str:
    """For visitors: as Markdown that shows the words as they are, one problem per line, without advice on Python."""
    special = str.maketrans({sign: "\\" + sign for sign in "\\`*_[]$:<>#~|"})
    return FOR_PROGRAMMERS.sub("", str(error)).translate(special).replace("\n", "  \n")
