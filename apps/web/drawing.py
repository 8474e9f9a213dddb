"""Pictures and small pieces of HTML that the page shows, and the files it offers.

Labels come from visitors: every text is escaped before it becomes HTML.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from apps.web.work import Near
from lseg_utils import pictures
from lseg_utils.heatmaps import DIVERGING, HeatScale, heat_colours
from lseg_utils.named_maps import write_names
from modules.predictor import Segmentation

MIN_SHOWN = 640  # pixels of the long side; smaller pictures are enlarged by a whole factor
MIN_SPREAD = 1e-6  # between the highest and lowest cosine


def shown_photo(photo: np.ndarray) -> Image.Image:
    """The picture itself, enlarged smoothly if it is small."""
    factor = _factor(photo)
    return Image.fromarray(photo).resize((photo.shape[1] * factor, photo.shape[0] * factor), Image.Resampling.BICUBIC)


def shown_labels(result: Segmentation, opacity: float, shrunk: int = 1) -> Image.Image:
    """The picture under its labels' colours, with their names, enlarged if it is small.

    shrunk: how many such pictures share the page's width; letters are larger by this factor.
    """
    factor = _factor(result.mask)
    labels = result.mask.repeat(factor, axis=0).repeat(factor, axis=1)
    picture = pictures.overlay(shown_photo(result.image), labels, result.colours, opacity)
    return (
        write_names(picture, result.mask, result.labels, shrunk * pictures.letter_size(picture.width))
        if opacity
        else picture
    )


def shown_heat(photo: np.ndarray, cosines: np.ndarray, opacity: float) -> Image.Image:
    """The picture in grey under colours from blue (its lowest cosine) to red (its highest)."""
    low, high = float(cosines.min()), float(cosines.max())
    scale = HeatScale(low, max(high, low + MIN_SPREAD), DIVERGING)
    top = shown_photo(photo).convert("L").convert("RGB")
    heat = Image.fromarray(heat_colours(cosines, scale)).resize(top.size, Image.Resampling.BICUBIC)
    return Image.blend(top, heat, opacity)


def label_grid(result: Segmentation) -> np.ndarray:
    """The mask on a grid of at most ``MIN_SHOWN`` rows and columns, which is fine enough to point at."""
    step = math.ceil(max(result.mask.shape) / MIN_SHOWN)
    return result.mask[::step, ::step]


def described(result: Segmentation, name: str) -> str:
    """The picture in words, for people who do not see it: the labels that occur, with their share."""
    areas = [(label, share) for label, share in result.areas().items() if share]
    return f"{name}: " + ", ".join(f"{label} {_percent(share)}" for label, share in areas[:8]) + "."


def _factor(picture: np.ndarray) -> int:
    return math.ceil(MIN_SHOWN / max(picture.shape[:2]))


# ------------------------------------------------------------------------------------------------------------ files


def data_uri(picture: Image.Image) -> str:
    """The picture as text that a browser shows."""
    with io.BytesIO() as file:
        picture.save(file, "JPEG", quality=92, subsampling=0)  # full colour: borders are one pixel wide
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def png(picture: Image.Image) -> bytes:
    """The content of a PNG file."""
    with io.BytesIO() as file:
        picture.save(file, "PNG")
        return file.getvalue()


def file_name(picture: str, labels: Sequence[str], kind: str) -> str:
    """A name for a download that names the picture and its labels: "cat_grass-cat-other_mask.png"."""
    picture, kind, *words = (re.sub(r"[^\w-]+", "_", text).strip("_") for text in (picture, kind, *labels[:4]))
    more = [f"and-{len(labels) - 4}-more"] if len(labels) > 4 else []
    return "_".join(part for part in (picture[:60], "-".join(words)[:60], *more, kind) if part) + ".png"


# ------------------------------------------------------------------------------------------------------------- HTML


def legend_html(result: Segmentation) -> str:
    """A chip for every label in its colour: first those that occur, with their share, then pale ones for the rest."""
    shares = np.bincount(result.mask.ravel(), minlength=len(result.labels)) / result.mask.size
    chips = [
        f'<span style="display:inline-flex;align-items:center;gap:.4rem;padding:.15rem .6rem;border-radius:1rem;'
        f'border:1px solid rgba(128,128,128,.35);font-size:.85rem;opacity:{1 if shares[number] else 0.8}">'
        f"{_dot(result.colours[number])}{html.escape(result.labels[number])}"
        f"{f' <b>{_percent(shares[number])}</b>' if shares[number] else ''}</span>"
        for number in np.argsort(-shares, kind="stable")
    ]
    box = "display:flex;flex-wrap:wrap;gap:.35rem;max-height:14rem;overflow-y:auto"
    return f'<div style="{box}">{"".join(chips)}</div>'


def nearest_html(near: Sequence[Near], colours: np.ndarray) -> str:
    """A row for each label: colour, name, a bar as long as its probability, score."""
    rows = [
        f'<div style="display:grid;grid-template-columns:minmax(0,1fr) 30% 5.8rem;gap:.5rem;align-items:center;'
        f'margin:.3rem 0;font-size:.9rem">'
        f'<span style="display:flex;align-items:center;gap:.5rem;overflow-wrap:anywhere">{_dot(colours[one.number])}'
        f"{html.escape(one.label)}</span>"
        f'<span style="background:rgba(128,128,128,.18);border-radius:.3rem">'
        f'<span style="display:block;height:.6rem;border-radius:.3rem;width:{max(one.probability, 0.01):.1%};'
        f'background:{_css(colours[one.number])}"></span></span>'
        f'<span style="font-variant-numeric:tabular-nums;text-align:right">'
        f"{_percent(one.probability)} · {one.score:.2f}</span></div>"
        for one in near
    ]
    return "".join(rows)


def heat_scale_html(cosines: np.ndarray) -> str:
    """The colours of ``shown_heat`` from the lowest to the highest cosine."""
    colours = ",".join(_css(np.array(colour)) for colour in DIVERGING)
    return (
        f'<div style="display:flex;align-items:center;gap:.6rem;font-size:.85rem"><span>{cosines.min():.3f}</span>'
        f'<span style="flex:1;height:.7rem;border-radius:.35rem;background:linear-gradient(90deg,{colours})"></span>'
        f"<span>{cosines.max():.3f}</span></div>"
    )


def _dot(colour: np.ndarray) -> str:
    return (
        f'<span style="flex:none;width:.85rem;height:.85rem;border-radius:.25rem;background:{_css(colour)};'
        'border:1px solid rgba(128,128,128,.5)"></span>'
    )


def _css(colour: np.ndarray) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def _percent(share: float) -> str:
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
