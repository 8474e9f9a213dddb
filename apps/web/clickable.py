"""A picture that tells where it was clicked. Streamlit has none, but takes a few lines of JavaScript as a component."""

from __future__ import annotations

import streamlit as st
from PIL import Image

from apps.web.drawing import data_uri

_HTML = '<div class="frame"><img alt="the picture; click a pixel" draggable="false"><div class="mark"></div></div>'

_CSS = """
.frame { position: relative; width: fit-content; margin: 0 auto; line-height: 0; cursor: crosshair; }
img { max-width: 100%; max-height: 72vh; border-radius: .4rem; user-select: none; }
.mark { position: absolute; display: none; width: 18px; height: 18px; margin: -9px 0 0 -9px; border-radius: 50%;
        border: 2px solid white; box-shadow: 0 0 0 2px black, inset 0 0 0 1px black; pointer-events: none; }
"""

# Runs when the component appears and whenever its data change. The mark moves at once, not when the answer comes.
_JS = """
export default function({ parentElement, data, setStateValue }) {
    const image = parentElement.querySelector("img"), mark = parentElement.querySelector(".mark");
    const move = (pixel) => {
        mark.style.display = pixel ? "block" : "none";
        if (pixel) { mark.style.left = pixel[0] * 100 + "%"; mark.style.top = pixel[1] * 100 + "%"; }
    };
    image.src = data.image;
    move(data.pixel);
    image.onclick = (event) => {
        const box = image.getBoundingClientRect();
        const pixel = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
        move(pixel);
        setStateValue("pixel", pixel);
    };
}
"""


def clickable_picture(picture: Image.Image, key: str) -> tuple[float, float] | None:
    """Show a picture; where it was last clicked, as shares (y, x) of its height and width, 0..1. None: not yet.

    ``key``: another one forgets the click.
    """
    # Registered at every run: at import it would belong to whichever runtime happened to be there, in tests to none.
    component = st.components.v2.component("lseg_clickable", html=_HTML, css=_CSS, js=_JS)
    before = (st.session_state.get(key) or {}).get("pixel")
    state = component(key=key, data={"image": data_uri(picture), "pixel": before}, on_pixel_change=lambda: None)
    return _checked(state.get("pixel"))


def _checked(pixel: object) -> tuple[float, float] | None:
    """A browser may send anything."""
    if isinstance(pixel, list) and len(pixel) == 2 and all(isinstance(share, int | float) for share in pixel):
        x, y = pixel
        return min(max(float(y), 0.0), 1.0), min(max(float(x), 0.0), 1.0)
    return None
