"""The app in a real browser: downloads at any moment, two visitors, four widths, dark mode, keyboard, screen readers.

Needs Chromium, playwright and axe-core; skipped without them. CONTRIBUTING.md has the commands.
"""

from __future__ import annotations

import io
import random
import time

import pytest
from PIL import Image

import browser
from checkpoint_files import own_file
from tiny import tiny_net

pytestmark = [pytest.mark.slow, browser.needs_chromium]
WORDS = ["cat", "dog", "grass", "sky", "road", "car", "tree", "house"]
DELAYS = [0, 0.1, 0.3, 1]
PATIENCE = 120_000  # milliseconds; nothing here is about speed, and the machine may be busy


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as shown:
        yield shown


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    own_file(tiny_net(labels=["red square", "grass"]), folder / "checkpoints" / "tiny.ckpt")
    with browser.running_app(folder, "--checkpoint_dir", "checkpoints", "--quickstart", "q") as (url, _):
        yield url


def visit(chromium, address: str, **how):
    """A new visitor's page with a first picture."""
    page = browser.new_page(chromium, **how)
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_selector("text=Your picture", timeout=5 * PATIENCE)  # the first visitor waits for PyTorch
    upload(page, "first", 120)
    page.wait_for_selector("text=Click a pixel")
    return page


@pytest.fixture(scope="module")
def visitors(chromium, address):
    """Two visitors, at the same time."""
    return [visit(chromium, address), visit(chromium, address)]


def upload(page, name: str, side: int) -> None:
    """Choose a picture of this width for the page's uploader."""
    with io.BytesIO() as file:
        Image.effect_noise((side, side // 2), 80).convert("RGB").save(file, "JPEG")
        picture = {"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": file.getvalue()}
    page.set_input_files('[data-testid="stFileUploader"] input[type=file]', picture)


def press(page, kind: str):
    """Press the button of a kind of file; the download that comes."""
    with page.expect_download() as download:
        page.get_by_role("button", name=kind).click()
    return download.value.suggested_filename, Image.open(download.value.path())


def write_labels(page, labels: list[str]) -> None:
    field = page.get_by_label("Labels", exact=True)
    field.fill("\n".join(labels))
    field.blur()


@pytest.mark.parametrize("seconds", DELAYS)
def test_a_download_after_new_labels_has_the_new_labels(visitors, seconds):
    rng = random.Random(round(10 * seconds))
    for _ in range(browser.TRIES):
        chosen = [rng.sample(WORDS, 3) for _ in visitors]
        for page, labels in zip(visitors, chosen):
            write_labels(page, labels)
        time.sleep(seconds)
        for page, labels in zip(visitors, chosen):
            kind = rng.choice(["mask", "overlay"])
            name, _ = press(page, kind)
            assert "-".join(labels) in name and kind in name


@pytest.mark.parametrize("seconds", DELAYS)
def test_a_download_after_an_upload_is_that_of_the_upload(visitors, seconds):
    for number in range(browser.TRIES):
        sides = (200 + number, 2500 - number)
        for page, side in zip(visitors, sides):
            upload(page, f"new{side}_{round(10 * seconds)}", side)
        time.sleep(seconds)
        for page, side in zip(visitors, sides):
            name, mask = press(page, "mask")
            assert name.startswith(f"new{side}_{round(10 * seconds)}") and mask.width == min(side, 1280)


@pytest.mark.parametrize("seconds", DELAYS)
def test_a_download_after_a_click_or_another_view_is_not_lost(visitors, seconds):
    for number in range(browser.TRIES):
        for page in visitors:
            if number % 2:
                page.locator(".frame img").first.click(position={"x": 5 + number, "y": 9})
            else:
                view = ["Heat map", "Labels"][number // 2 % 2]
                page.get_by_test_id("stButtonGroup").get_by_text(view, exact=True).click()
        time.sleep(seconds)
        for page in visitors:
            name, overlay = press(page, "overlay")
            assert "overlay" in name and overlay.width > 100


def test_the_keyboard_reaches_the_picture_and_the_downloads(visitors):
    page = visitors[0]
    page.locator(".frame").first.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("text=/Pixel \\d+, \\d+/")
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.shadowRoot?.activeElement?.textContent")
        if (focused or "").startswith("Download"):  # None: an element of Streamlit, which has no shadow root
            break
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".png")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("device", browser.WIDTHS)
def test_every_screen_shows_everything_and_has_no_serious_finding(chromium, address, device, dark):
    page = visit(chromium, address, width=browser.WIDTHS[device], height=1000, dark=dark)
    try:
        page.locator(".frame img").first.click(position={"x": 9, "y": 9})
        page.wait_for_selector("text=/Pixel \\d+, \\d+/")
        browser.shoot(page, f"app_{device}_{'dark' if dark else 'light'}")
        assert page.evaluate("document.documentElement.scrollWidth") <= browser.WIDTHS[device]
        for kind in ("mask", "overlay"):
            button = page.get_by_role("button", name=kind)
            assert button.evaluate("one => one.scrollWidth <= one.clientWidth + 1"), f"{kind} is cut off"
        assert not browser.findings(page)
    finally:
        page.context.close()


def test_the_heat_map_and_the_comparison_have_no_serious_finding(chromium, address):
    page = visit(chromium, address)
    page.get_by_test_id("stButtonGroup").get_by_text("Heat map", exact=True).click()
    page.get_by_label("What to look for").fill("a cat")
    page.get_by_label("What to look for").press("Enter")
    page.wait_for_selector("text=Cosine similarity")
    page.get_by_text("Compare with a second label list").click()
    page.wait_for_selector("text=Second list of labels")
    page.get_by_text("Network and display").click()
    found = browser.findings(page)
    page.context.close()
    assert not found
