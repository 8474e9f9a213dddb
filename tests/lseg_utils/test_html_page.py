"""The pages of all reports: nothing beside them, every text escaped, charts with round numbers."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from lseg_utils import html_page
from lseg_utils.html_page import Line, Link


def test_a_page_contains_everything_and_names_its_language_and_title(tmp_path):
    parts = [html_page.heading("A & B"), html_page.picture("a <cat>", Image.new("RGB", (4, 4)), "PNG")]
    html_page.write_page(tmp_path / "page.html", "1 < 2", parts)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'lang="en"' in page and "<title>1 &lt; 2</title>" in page and "<h1>1 &lt; 2</h1>" in page
    assert 'alt="a &lt;cat&gt;"' in page and "data:image/png;base64," in page and "A &amp; B" in page
    assert "http" not in page and "<script" not in page and [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "part",
    [
        html_page.paragraph("<i>"),
        html_page.headlines({"<i>": "<i>"}),
        html_page.fact_list({"<i>": ["<i>"]}),
        html_page.table(["<i>"], [["<i>"], [Link("<i>", '"><i>')]], "<i>"),
        html_page.bars([("<i>", 3.0)]),
        html_page.chart("<i>", [Line("<i>", [(1, 2.0)])]),
    ],
)
def test_every_text_is_escaped(part):
    assert "<i>" not in part and "&lt;i&gt;" in part


def test_a_table_aligns_numbers_and_leaves_missing_ones_empty():
    made = html_page.table(["name", "count", "share"], [["a", 3, 0.25], ["b", None, 1.0]], "Counts", digits=2)
    rows = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", made)
    assert rows == ["name", "count", "share", "a", "3", "0.25", "b", "", "1.00"]
    assert made.count("number") == 6 and made.count("scope=row") == 2 and "<caption>Counts" in made


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (12, 48, [10, 20, 30, 40, 50]), (3, 3, [3, 4]), (0, 0, [0, 0.2])],
)
def test_ticks_are_round_and_enclose_the_values(low, high, expected):
    found = html_page.ticks(low, high)
    assert found[0] <= low and found[-1] >= high and found[0] < found[-1]
    assert found[: len(expected)] == pytest.approx(expected)


@pytest.mark.parametrize(("last", "expected"), [(1, [1]), (5, [1, 2, 3, 4, 5]), (240, [50, 100, 150, 200])])
def test_ticks_of_epochs_are_whole_numbers(last, expected):
    assert html_page.ticks(1, last, whole=True) == expected


def test_facts_are_written_without_the_brackets_of_python():
    made = html_page.fact_list({"versions": {"torch": "2.6", "numpy": "2.0"}, "sizes": [1, 2], "none": ""})
    values = re.findall("<dd>(.*?)</dd>", made)
    assert values == ["torch 2.6, numpy 2.0", "1, 2", ""]


def test_a_chart_draws_each_line_from_its_first_to_its_last_point():
    made = html_page.chart("Loss", [Line("training", [(1, 4.0), (2, 2.0)]), Line("nothing", [])])
    (points,) = re.findall(r'<polyline[^>]*points="([^"]*)"', made)
    (x1, y1), (x2, y2) = ((float(n) for n in point.split(",")) for point in points.split())
    assert x1 == html_page.LEFT and x2 == html_page.WIDTH - html_page.RIGHT and y1 < y2
    assert "training from 4 to 2" in made and "nothing" not in made
