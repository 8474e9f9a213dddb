"""The report of a test: extremes, confusions, pictures, and a page that needs nothing beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modules.testing.comparison import Extremes, comparison, extremes_sheets
from modules.testing.report_page import worst_confusions, write_report

COLOURS = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)


def test_extremes_keep_the_best_and_the_worst_and_make_nothing_else() -> None:
    made, extremes = [], Extremes(2)
    for number in (5, 3, 9, 1, 7, 4, 6):
        extremes.add(number / 10, str(number), lambda number=number: made.append(number) or number)
    assert [scored.thing for scored in extremes.best] == [9, 7]
    assert [scored.thing for scored in extremes.worst] == [1, 3]
    assert 4 not in made and 6 not in made
    assert [scored.thing for scored in extremes.map(lambda number: -number).worst] == [-1, -3]


def test_of_few_things_each_is_both_best_and_worst() -> None:
    extremes = Extremes(3)
    for name, score in (("a", 0.5), ("b", 0.5)):
        extremes.add(score, name, lambda name=name: name)
    assert [scored.name for scored in extremes.best] == [scored.name for scored in extremes.worst] == ["a", "b"]


def test_worst_confusions_counted_by_hand() -> None:
    #                     predicted: a  b  c
    confusion = np.array([[8, 2, 0], [6, 2, 2], [0, 0, 0]])  # c never occurs in the truth
    worst = worst_confusions(confusion, ["a", "b", "c"], count=2, parts=2)
    assert [one.label for one in worst] == ["b", "a"]
    assert worst[0].iou == pytest.approx(2 / 12) and worst[1].iou == pytest.approx(8 / 16)
    assert worst[0].went_to == [("a", 0.6), ("b", 0.2)] and worst[1].went_to == [("a", 0.8), ("b", 0.2)]


@pytest.mark.parametrize("size", [(30, 40), (700, 500)])
def test_a_comparison_has_the_truth_and_the_prediction_in_their_colours(size: tuple[int, int]) -> None:
    truth = np.zeros(size, np.int64)
    image, truth[:3] = torch.zeros(3, *size), -1

    def to_pixels(picture: torch.Tensor) -> np.ndarray:
        return np.full((*picture.shape[1:], 3), 200, np.uint8)

    pictures = comparison(image, truth, np.ones(size, np.int64), COLOURS, ["", ""], to_pixels)
    photo, true, predicted = (np.asarray(picture) for picture in pictures)
    assert photo.shape == true.shape == predicted.shape and 280 <= max(photo.shape) <= 330
    assert (photo == 200).all() and (predicted == [0, 0, 255]).all()
    assert (true[-1] == [255, 0, 0]).all() and (true[0] == 0).all()


def test_the_page_holds_everything_itself_and_escapes_names(tmp_path: Path) -> None:
    extremes = Extremes(1)
    extremes.add(0.25, "x.jpg", lambda: [Image.new("RGB", (8, 8))] * 3)
    per_class = [("<b>wall</b>", 12.5), ("sky", 90.0)]
    confusions = worst_confusions(np.array([[1, 3], [0, 4]]), [label for label, _ in per_class])
    sheets = extremes_sheets(extremes, "images")
    write_report(tmp_path / "report.html", "A & B", {"mIoU": 51.25}, {"file": "c<d"}, per_class, confusions, sheets)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in page and "<b>wall" not in page and "c&lt;d" in page
    assert "51.25 %" in page and "&lt;b&gt;wall&lt;/b&gt; 25%" in page
    assert page.index("sky") < page.index("wall")
    assert page.count("data:image/jpeg;base64,") == 2
    assert "http" not in page and "src=" in page
