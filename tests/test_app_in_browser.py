"""The app in a real browser, where one is installed: downloads pressed at any moment are never stale and never lost.

Needs Chromium and ``pip install playwright``; skipped without them.
"""

from __future__ import annotations

import io
import random
import shutil
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

from checkpoint_files import own_file
from scripts import REPOSITORY
from tiny import tiny_net

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
WORDS = ["cat", "dog", "grass", "sky", "road", "car", "tree", "house"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A visitor's page, shown."""
    playwright = pytest.importorskip("playwright.sync_api")
    folder = tmp_path_factory.mktemp("app")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    own_file(tiny_net(labels=["red square", "grass"]), folder / "checkpoints" / "tiny.ckpt")
    command = [sys.executable, "-m", "streamlit", "run", str(REPOSITORY / "lseg_app.py"), "--server.port", str(port)]
    options = ["--checkpoint_dir", str(folder / "checkpoints"), "--quickstart", str(folder / "q"), "--device", "cpu"]
    server = subprocess.Popen([*command, "--server.headless", "true", "--", *options], cwd=folder)
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            shown = browser.new_context(viewport={"width": 1280, "height": 1500}, accept_downloads=True).new_page()
            for _ in range(60):
                try:
                    shown.goto(f"http://localhost:{port}")
                    break
                except playwright.Error:
                    time.sleep(0.5)
            shown.wait_for_selector("text=Upload a photograph", timeout=90_000)
            upload(shown, "first.jpg", 120)
            shown.wait_for_selector("text=Click a pixel", timeout=90_000)
            yield shown
            browser.close()
    finally:
        server.terminate()
        server.wait()


def upload(page, name: str, side: int) -> None:
    with io.BytesIO() as file:
        Image.effect_noise((side, side // 2), 80).convert("RGB").save(file, "JPEG")
        picture = {"name": name, "mimeType": "image/jpeg", "buffer": file.getvalue()}
    page.set_input_files('[data-testid="stFileUploader"] input[type=file]', picture)


def downloaded(page, kind: str) -> tuple[str, Image.Image]:
    with page.expect_download(timeout=30_000) as download:
        page.get_by_role("button", name=kind).click(timeout=30_000)
    return download.value.suggested_filename, Image.open(download.value.path())


@pytest.mark.parametrize("seconds", [0, 0.1, 0.3, 1])
def test_a_download_after_new_labels_has_the_new_labels(page, seconds):
    rng = random.Random(round(10 * seconds))
    for _ in range(5):
        labels, kind = rng.sample(WORDS, 3), rng.choice(["Mask", "Overlay"])
        field = page.get_by_label("Labels", exact=True)
        field.fill("\n".join(labels))
        field.blur()
        time.sleep(seconds)
        name, _ = downloaded(page, kind)
        assert "-".join(labels) in name and kind.lower() in name


@pytest.mark.parametrize("seconds", [0, 0.1, 0.3, 1])
def test_a_download_after_an_upload_is_that_of_the_upload(page, seconds):
    for side in (200, 2500):
        name = f"new{side}_{round(10 * seconds)}"
        upload(page, f"{name}.jpg", side)
        time.sleep(seconds)
        file, mask = downloaded(page, "Mask")
        assert file.startswith(name) and mask.width == min(side, 1280)


def test_the_keyboard_reaches_the_picture(page):
    page.locator(".frame").first.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("text=/Pixel \\d+, \\d+/", timeout=10_000)


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_is_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 1500})
    time.sleep(0.5)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
