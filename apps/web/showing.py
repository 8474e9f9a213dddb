"""What a visitor gets: the picture in the chosen view, what its colours mean, the labels of a pixel, the files."""

from __future__ import annotations

import streamlit as st

from apps.web import drawing
from apps.web.choosing import Choice, visitors_work
from apps.web.clickable import Download, clickable_picture, download_buttons, wanted_download
from apps.web.places import is_miniature
from apps.web.work import pixel_at
from modules.predictor import Segmentation

LABELS, HEAT, PHOTO = "Labels", "Heat map", "Picture"
TOY_NETWORK = (
    "This small network has only seen coloured shapes on four textures. For photographs, use a published checkpoint."
)


def show_pictures(choice: Choice, results: list[Segmentation], view: str, query: str, opacity: float) -> None:
    """The picture in the chosen view, what its colours mean, the labels of a clicked pixel, and the files."""
    if view == HEAT and query:
        with st.spinner("Comparing every pixel with the text ...", show_time=True):
            cosines = visitors_work().heatmap(choice.predictor, query)
        alt = f"Heat map of {query} in {choice.name}: cosines from {cosines.min():.2f} to {cosines.max():.2f}."
        picture = drawing.shown_heat(results[0].image, cosines, opacity)
        point = clickable_picture(picture, f"picture {hash(choice.source)}", alt, [])
        st.html(drawing.heat_scale_html(cosines))
        here = f" At the marked pixel: {cosines[pixel_at(*point, *cosines.shape)]:.3f}." if point else ""
        st.caption(
            f"Cosine similarity of each pixel and the text, from the lowest in this picture to the highest.{here}"
        )
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
        "mask": (
            "Download mask",
            "PNG with a palette; a pixel's value is its label's position in the list, counted from 1.",
        ),
        "overlay": ("Download overlay", "The picture in the labels' colours, with a legend."),
    }
    wanted = wanted_download("files")
    content = None
    if wanted in files:
        content = drawing.png(results[0].mask_picture() if wanted == "mask" else results[0].picture(opacity))
    offers = [Download(kind, title, hint) for kind, (title, hint) in files.items()]
    download_buttons(
        offers,
        "files",
        drawing.file_name(choice.name, results[0].labels, wanted or ""),
        content,
        f"{hash(choice.source)} {choice.upload}",
    )


def _nearest(choice: Choice, result: Segmentation, point: tuple[float, float] | None, place: int) -> None:
    """The labels nearest to the clicked pixel."""
    if point is None:
        st.caption("Click a pixel of the picture to see its nearest labels.")
        return
    row, column = pixel_at(*point, *result.mask.shape)
    st.markdown(
        f"**Pixel {column}, {row}**", help="Probability among these labels, and score: cosine similarity / 0.07."
    )
    with st.spinner("Finding the nearest labels ..."):
        near = visitors_work().nearest(choice.predictor, *point, place)
    st.html(drawing.nearest_html(near, result.colours))
