"""A real browser for tests: Chromium driven by playwright, axe-core for accessibility, and the app to look at.

Tests that use this are skipped where one of them is missing; CONTRIBUTING.md says how to install them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts import REPOSITORY

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
AXE = Path(os.environ.get("LSEG_AXE") or REPOSITORY / "node_modules" / "axe-core" / "axe.min.js")
TRIES = int(os.environ.get("LSEG_TRIES", "3"))  # of every download; 20 for a release
SHOTS = os.environ.get("LSEG_SCREENSHOTS")  # a folder for screenshots, to look at
WIDTHS = {"phone": 390, "tablet": 820, "laptop": 1280, "desktop": 1920}
SERIOUS = ("serious", "critical")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@contextmanager
def chromium() -> Iterator:
    """A headless browser; the test is skipped without playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def running_app(folder: Path, *options: object) -> Iterator[tuple[str, subprocess.Popen]]:
    """The app on a free port, with ``folder`` as its current one: (its address, its process)."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(REPOSITORY / "lseg_app.py"), "--server.port", str(port)]
    settings = ["--server.headless", "true", "--", "--device", "cpu", *map(str, options)]
    # Streamlit looks for its settings in the current folder, where a user has the repository's.
    shutil.copytree(REPOSITORY / ".streamlit", folder / ".streamlit", dirs_exist_ok=True)
    server = subprocess.Popen([*command, *settings], cwd=folder)
    try:
        for _ in range(240):
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.25)
        yield f"http://localhost:{port}", server
    finally:
        server.terminate()
        server.wait()


def new_page(browser, width: int = 1280, height: int = 1500, dark: bool = False):
    """A page of a new visitor, without cookies or session of any other."""
    scheme = "dark" if dark else "light"
    return browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
    ).new_page()


def findings(page) -> list[str]:
    """Serious and critical findings of axe-core on a page; the test is skipped without axe-core."""
    if not AXE.is_file():
        pytest.skip("needs axe-core: npm install --no-save axe-core")
    # While the app computes, what it showed before is dimmed.
    page.wait_for_function("!document.querySelector('[data-stale=true]')")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((results) => results.violations)")
    return [
        f"{one['impact']} {one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']][:4]}"
        for one in found
        if one["impact"] in SERIOUS
    ]


def shoot(page, name: str) -> None:
    """A screenshot of the whole page, if screenshots are asked for."""
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)
