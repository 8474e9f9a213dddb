"""Every kind of report in a real browser: nothing serious for axe-core, nothing wider than a phone, both modes.

Needs Chromium, playwright and axe-core; skipped without them. CONTRIBUTING.md has the commands.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import browser
from apps.predict.report import Report
from lseg_utils.html_page import write_page
from modules.testing.report_page import Confusion, write_report
from modules.training.display import ValidationPictures
from modules.training.report import TrainingReport
from openvocab.robustness import page_parts
from openvocab.table import COLUMNS, write_table
from paper.entries import entries
from paper.figures import make_figures
from paper.label_sets import FigureRow
from paper.report import report as ledger_report
from paper.running import Plan
from predicting import predictor

pytestmark = [pytest.mark.slow, browser.needs_chromium]
SHEET = Image.effect_noise((640, 400), 60)


def training(folder: Path) -> Path:
    pictures = ValidationPictures()
    pictures.newest = SHEET
    one = TrainingReport(folder / "run" / "version_0", {"network": "tiny"}, {"run": {"seed": 0}}, pictures)
    for epoch in range(6):
        row = {"epoch": epoch + 1, "train_loss": 3 / (epoch + 1), "lr_encoder": 0.1, "lr_decoder": 1.0, "seconds": 60.0}
        one.epochs.append(row | {"val_loss": 1.0, "val_miou_epoch": epoch / 10, "val_acc_epoch": epoch / 8})
    one.on_train_end(SimpleNamespace(is_global_zero=True), None)
    return one.folder / "report.html"


def label_test(folder: Path) -> Path:
    ious, confusions = [(f"label {n}", 3.0 * n) for n in range(30)], [Confusion("label 1", 0.03, [("label 2", 0.9)])]
    facts = {"weights": "/a/long/path/" + "x" * 90, "protocol": "single"}
    write_report(folder / "t.html", "LSeg on a dataset", {"mIoU": 45.0}, facts, ious, confusions, [("Best", SHEET)])
    return folder / "t.html"


def robustness(folder: Path) -> Path:
    names = ("change", "labels", "renamed", "miou", "canonical_miou", "open_miou", "changed_pixels")
    rows = [dict(zip(names, (change, 40, 4, 50.0, 50.0, 60.0, 0.0))) for change in ("canonical", "order permuted")]
    write_page(folder / "r.html", "What labels do to " + "x" * 90, page_parts(rows, {"model": "tiny"}, SHEET))
    return folder / "r.html"


def suite(folder: Path) -> Path:
    scores = dict.fromkeys(COLUMNS, 40.0)
    result = {"benchmark": "A-150", "pictures": 3, "labels": ["cat"], "scores": scores, "quoted_score": "macc"}
    write_table(folder / "suite", [result], ["PC-59: the folder is missing"])
    return folder / "suite" / "report.html"


def prediction(folder: Path) -> Path:
    (folder / "overlays").mkdir()
    SHEET.convert("RGB").save(folder / "overlays" / "cat.jpg")
    one = Report(done=1, failures=[("dog.jpg", "dog.jpg is empty")])
    one.count({"source": "cat.jpg", "areas": {"0": 30, "1": 10}})
    one.show(["cat", "grass"], folder, {"mode": "whole"})
    return folder / "report.html"


def ledger(folder: Path) -> Path:
    entry = next(entry for entry in entries() if entry.rows)
    ledger_report(entry, Plan(folder, warning="a dry run"))
    return folder / entry.name / "report.html"


def sheets(folder: Path) -> Path:
    row = FigureRow("Synonyms", (("cat", "grass"), ("kitten", "lawn", "sky")))
    image = np.asarray(SHEET.convert("RGB"))
    return make_figures(folder, {"cat": image}, [row], predictor().segment, {"network": "tiny"})[-1]


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as shown:
        yield shown


@pytest.mark.parametrize("make", [training, label_test, robustness, suite, prediction, ledger, sheets])
def test_a_report_suits_every_reader(make, tmp_path, chromium):
    path = make(tmp_path)
    for width, dark in ((390, False), (390, True), (1280, False), (1280, True)):
        page = browser.new_page(chromium, width, 900, dark)
        page.goto(path.as_uri())
        browser.shoot(page, f"report_{make.__name__}_{width}_{'dark' if dark else 'light'}")
        found, wide = browser.findings(page), page.evaluate("document.documentElement.scrollWidth")
        page.context.close()
        assert not found and wide <= width, (width, dark, wide, found)
