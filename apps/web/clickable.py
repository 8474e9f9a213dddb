"""The two parts of the page that Streamlit lacks: a picture that answers to the pointer, and downloads in order.

Both are components of a few lines of JavaScript. What a browser sends is checked: it may send anything.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import streamlit as st
from PIL import Image

from apps.web.drawing import data_uri, png

_PICTURE_HTML = """
<div class="frame" tabindex="0" role="application" aria-roledescription="picture">
  <img draggable="false" alt=""><div class="mark"></div><div class="tip" aria-hidden="true"></div>
</div>
"""

_PICTURE_CSS = """
.frame { position: relative; width: fit-content; margin: 0 auto; line-height: 0; cursor: crosshair;
         border-radius: .4rem; }
.frame:focus-visible { outline: 3px solid var(--st-primary-color, #2171a1); outline-offset: 2px; }
img { max-width: 100%; max-height: 56vh; border-radius: .4rem; user-select: none; }
.mark { position: absolute; display: none; width: 18px; height: 18px; margin: -9px 0 0 -9px; border-radius: 50%;
        border: 2px solid white; box-shadow: 0 0 0 2px black, inset 0 0 0 1px black; pointer-events: none; }
.tip { position: absolute; display: none; padding: .3rem .55rem; border-radius: .3rem; background: #16181c;
       color: white; font: .85rem/1.2 sans-serif; pointer-events: none; white-space: nowrap; z-index: 2; }
"""

# Runs when the component appears and whenever its data change. The mark moves at once, not when the answer comes.
# Arrow keys move it too; a pixel is sent when the keys have been still for a moment.
_PICTURE_JS = """
export default function({ parentElement, data, setStateValue }) {
    const frame = parentElement.querySelector(".frame"), image = frame.querySelector("img");
    const mark = frame.querySelector(".mark"), tip = frame.querySelector(".tip");
    const move = (pixel) => {
        mark.style.display = pixel ? "block" : "none";
        if (pixel) { mark.style.left = pixel[0] * 100 + "%"; mark.style.top = pixel[1] * 100 + "%"; }
    };
    if (image.src !== data.image) image.src = data.image;
    image.alt = data.alt;
    const hint = " Use the arrow keys to move a mark; its nearest labels are listed below.";
    frame.setAttribute("aria-label", data.alt + hint);
    let pixel = data.pixel;
    move(pixel);

    const numbers = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    if (data.map) {
        const map = new Image();
        map.onload = () => {
            numbers.canvas.width = map.width; numbers.canvas.height = map.height;
            numbers.drawImage(map, 0, 0);
        };
        map.src = data.map;
    }
    const at = (event) => {
        const box = image.getBoundingClientRect();
        return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    image.onmousemove = (event) => {
        const [x, y] = at(event), { width, height } = numbers.canvas;
        const number = data.map && x >= 0 && y >= 0 && x < 1 && y < 1
            ? numbers.getImageData(Math.floor(x * width), Math.floor(y * height), 1, 1).data[0] : -1;
        tip.style.display = number in data.labels ? "block" : "none";
        tip.textContent = data.labels[number] || "";
        tip.style.left = x > .6 ? "auto" : `calc(${x * 100}% + 14px)`;
        tip.style.right = x > .6 ? `calc(${(1 - x) * 100}% + 14px)` : "auto";
        tip.style.top = `calc(${y * 100}% + 14px)`;
    };
    image.onmouseleave = () => { tip.style.display = "none"; };
    image.onclick = (event) => { pixel = at(event); move(pixel); setStateValue("pixel", pixel); };
    let still;
    frame.onkeydown = (event) => {
        const step = event.shiftKey ? .1 : .02, old = pixel || [.5, .5];
        const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step],
                     Enter: [0, 0], " ": [0, 0] }[event.key];
        if (!by) return;
        event.preventDefault();
        pixel = old.map((share, axis) => Math.min(Math.max(share + by[axis], 0), 1));
        move(pixel);
        clearTimeout(still);
        still = setTimeout(() => setStateValue("pixel", pixel), 250);
    };
}
"""

_FILES_HTML = '<div class="row"></div><div class="note" role="status" aria-live="polite"></div>'

_FILES_CSS = """
.row { display: flex; flex-wrap: wrap; gap: .6rem; }
button { flex: 1 1 9rem; padding: .55rem 1rem; border-radius: .5rem; font: inherit; cursor: pointer;
         color: var(--st-text-color, #22252a); background: var(--st-background-color, #fff);
         border: 1px solid var(--st-border-color, rgba(128, 128, 128, .5)); }
button:hover, button:focus-visible { border-color: var(--st-primary-color, #2171a1); }
button:disabled { opacity: .55; cursor: progress; }
.note { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
"""

# A click is a message to the server, which answers it after every change that came before it: the file that arrives
# belongs to the page as it was when the button was pressed, however fast. An upload takes another way to the server, so
# the buttons are off from the moment a file is chosen until its picture is there (or has been refused).
_FILES_JS = """
export default function({ parentElement, data, setTriggerValue }) {
    const row = parentElement.querySelector(".row"), note = parentElement.querySelector(".note");
    row.replaceChildren();
    const off = () => { for (const one of row.children) one.disabled = true; };
    window.lsegPicture = data.picture;
    if (!window.lsegUploads) {
        window.lsegUploads = { from: null };
        const begins = (event) => {
            if (!event.target.closest?.('[data-testid="stFileUploader"]')) return;
            window.lsegUploads = { from: window.lsegPicture, until: Date.now() + 20000 };
            window.lsegFilesOff();
        };
        document.addEventListener("change", begins, true);
        document.addEventListener("drop", begins, true);
    }
    window.lsegFilesOff = off;
    for (const [kind, title, hint] of data.kinds) {
        const button = document.createElement("button");
        button.textContent = title;
        button.title = hint;
        button.onclick = () => {
            off();
            button.textContent = title + " …";
            setTriggerValue("wanted", kind);
        };
        row.append(button);
    }
    const { from, until } = window.lsegUploads;
    if (from === data.picture && Date.now() < until) {
        off();
        setTimeout(() => { for (const one of row.children) one.disabled = false; }, until - Date.now());
    }
    if (data.file && parentElement.lsegDelivered !== data.file.number) {
        parentElement.lsegDelivered = data.file.number;
        const link = document.createElement("a");
        link.href = "data:image/png;base64," + data.file.content;
        link.download = data.file.name;
        link.click();
        note.textContent = data.file.name + " was downloaded";
    }
}
"""

# A picture that is pasted anywhere in the page goes the way of an uploaded one.
_PASTE_JS = """
export default function() {
    if (window.lsegPaste) return;
    window.lsegPaste = true;
    document.addEventListener("paste", (event) => {
        const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
        const input = document.querySelector('[data-testid="stFileUploader"] input[type="file"]');
        if (!file || !input) return;
        const files = new DataTransfer();
        files.items.add(file);
        input.files = files.files;
        input.dispatchEvent(new Event("change", { bubbles: true }));
    });
}
"""


@dataclass(frozen=True)
class Download:
    """A file that the page offers. kind: what the server is asked for; title, hint: what the button shows."""

    kind: str
    title: str
    hint: str


def clickable_picture(
    picture: Image.Image, key: str, alt: str, labels: list[str], numbers: np.ndarray | None = None
) -> tuple[float, float] | None:
    """Show a picture; where it was last clicked, as shares (y, x) of its height and width, 0..1. None: not yet.

    Args:
        key: another one forgets the click.
        alt: what the picture shows, for people who do not see it.
        labels, numbers: the label of a pixel is shown under the pointer; numbers (h, w): 0..254, on any grid.
    """
    # Registered at every run: at import it would belong to whichever runtime happened to be there, in tests to none.
    component = st.components.v2.component("lseg_clickable", html=_PICTURE_HTML, css=_PICTURE_CSS, js=_PICTURE_JS)
    before = (st.session_state.get(key) or {}).get("pixel")
    label_map = None
    if numbers is not None:
        label_map = "data:image/png;base64," + base64.b64encode(png(Image.fromarray(numbers.astype(np.uint8)))).decode()
    data = {"image": data_uri(picture), "pixel": before, "alt": alt, "labels": labels, "map": label_map}
    state = component(key=key, data=data, on_pixel_change=lambda: None)
    return _checked(state.get("pixel"))


def wanted_download(key: str) -> str | None:
    """The kind of file for whose button the browser asked in this run of the page, or None."""
    wanted = (st.session_state.get(key) or {}).get("wanted")
    return wanted if isinstance(wanted, str) else None


def download_buttons(offers: list[Download], key: str, name: str, content: bytes | None, picture: str) -> None:
    """A button for each file; ``content`` is the PNG that was asked for in this run, which is delivered as ``name``.

    picture: tells the pictures of a session apart, and uploads that were refused.
    """
    component = st.components.v2.component("lseg_files", html=_FILES_HTML, css=_FILES_CSS, js=_FILES_JS)
    file = None
    if content is not None:
        number = st.session_state["files_delivered"] = st.session_state.get("files_delivered", 0) + 1
        file = {"name": name, "content": base64.b64encode(content).decode(), "number": number}
    kinds = [(offer.kind, offer.title, offer.hint) for offer in offers]
    component(key=key, data={"kinds": kinds, "file": file, "picture": picture}, on_wanted_change=lambda: None)


def accept_pasted_pictures() -> None:
    """Pass pictures from the clipboard to the page's file uploader."""
    st.components.v2.component("lseg_paste", html="<span></span>", js=_PASTE_JS)(key="paste")


def _checked(pixel: object) -> tuple[float, float] | None:
    if isinstance(pixel, list) and len(pixel) == 2 and all(isinstance(share, int | float) for share in pixel):
        x, y = pixel
        return min(max(float(y), 0.0), 1.0), min(max(float(x), 0.0), 1.0)
    return None
