"""miniature.report on a tiny world, a random network and results as test_lseg.py writes them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from miniature.names import COLOURS, LABELS, SEEN, SHAPES, UNSEEN, with_synonyms
from miniature.pictures import WELL_VISIBLE, choose_images, choose_rich_image, label_colours, starred
from miniature.report import main
from miniature.results import composition_ious
from miniature.world import make_world
from modules.checkpoints import metadata_of, save_file, to_official
from modules.models import build_lseg
from scripts import run

PICTURES = {"sheet.png", "relabel.png", "iou_map.png", "cosine.png"}


def result(seen: float, unseen: float, names: list[str]) -> dict:
    """What test_lseg.py would write, had every class of a group the same IoU."""
    ious = [seen] * len(SEEN) + [unseen] * len(UNSEEN)
    return {
        "miou": float(np.mean(ious)),
        "groups": {"seen": seen, "unseen": unseen},
        "per_class_iou": dict(zip(names, ious, strict=True)),
        "confusion": np.eye(len(names), dtype=int).tolist(),
    }


def write_result(folder: Path, test: str, seen: float, unseen: float) -> Path:
    path = folder / "results" / "seed3_short" / test / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(map(with_synonyms, LABELS)) if "synonyms" in test else list(LABELS)
    path.write_text(json.dumps(result(seen, unseen, names)))
    return path


def checkpoint(folder: Path) -> Path:
    return folder / "runs_short" / "trained_seed3" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short quickstart of seed 3, before its report."""
    folder = tmp_path_factory.mktemp("quickstart")
    make_world(folder / "datasets_seed3_short", seed=3, training=4, validation=8)
    torch.manual_seed(0)
    net = build_lseg("tiny_resnet", SEEN, features=16)
    save_file({"state_dict": to_official(net.state_dict()), "lseg": metadata_of(net)}, checkpoint(folder))
    write_result(folder, "labels", 80.04, 70.0)
    write_result(folder, "synonyms", 75.0, 65.0)
    return folder


def report(folder: Path) -> Path:
    main(["--folder", str(folder), "--seed", "3", "--short"])
    return folder / "report_seed3_short"


def test_the_report_is_written_and_ends_with_what_to_try_next(made, capsys):
    folder = report(made)
    printed = capsys.readouterr().out
    table = (folder / "table.txt").read_text()
    assert table in printed and f"sheet.png, relabel.png, iou_map.png, cosine.png in {folder}" in printed
    (line,) = [line for line in printed.splitlines() if "python predict_lseg.py" in line]
    assert Path(shlex.split(line)[shlex.split(line).index("--weights") + 1]).is_file()
    header, _, labels, synonyms = table.splitlines()[:4]
    assert header.split()[-2:] == ["mIoU", "%"] and labels.split()[-3:] == ["80.0", "70.0", "78.5"]
    assert synonyms.split()[-3:] == ["75.0", "65.0", "73.5"]
    assert {path.name for path in folder.iterdir()} == PICTURES | {"table.txt", "results.json"}
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 400 and len(picture.convert("RGB").getcolors(1 << 24)) > 20, name


def test_it_ends_with_what_other_label_lists_do_where_that_was_measured(made, capsys):
    table = made / "results" / "seed3_short" / "robustness" / "table.txt"
    table.parent.mkdir()
    table.write_text("synonyms 12.3\n")
    folder = report(made)
    assert "synonyms 12.3" in capsys.readouterr().out and "synonyms 12.3" in (folder / "table.txt").read_text()
    table.unlink()


def test_the_rows_are_kept_as_json_and_the_same_input_gives_the_same_pictures(made):
    first = {path.name: path.read_bytes() for path in report(made).iterdir()}
    content = json.loads(first["results.json"])
    assert (content["seed"], content["unit"]) == (3, "percent")
    labels = content["rows"][0]
    assert (labels["test"], labels["seen"], labels["unseen"]) == ("labels", 80.04, 70.0)
    assert labels["all"] == pytest.approx((34 * 80.04 + 6 * 70) / 40)
    torch.rand(3)
    assert {path.name: path.read_bytes() for path in report(made).iterdir()} == first


def test_controls_get_rows_where_they_were_run(made):
    paths = [write_result(made, test, 1.0, 0.5) for test in ("shuffled", "untrained_labels", "untrained_synonyms")]
    try:
        lines = (report(made) / "table.txt").read_text().splitlines()
    finally:
        for path in paths:
            path.unlink()
    assert [line.split(":")[0] for line in lines[4:7]] == ["control"] * 3


def test_all_that_is_missing_is_named_with_the_command_that_makes_it(tmp_path):
    output = run("miniature.report", "--folder", tmp_path, "--seed", 3, "--short", cwd=tmp_path, code=2)
    for path in ("labels/results.json", "synonyms/results.json", "last.ckpt", "datasets_seed3_short"):
        assert path in output
    assert f"bash quickstart.sh --seed 3 --short --folder {tmp_path}" in output and "Traceback" not in output


@pytest.mark.parametrize("content", ["{", "[]", '{"miou": 1}'])
def test_a_damaged_result_is_named(made, capsys, content):
    path = write_result(made, "shuffled", 1.0, 0.5)
    path.write_text(content)
    try:
        with pytest.raises(ValueError, match="shuffled.*delete it"):
            report(made)
    finally:
        path.unlink()


def test_composition_ious_are_sorted_by_colour_and_shape():
    content = result(1.0, 2.0, list(LABELS))
    content["per_class_iou"]["blue ring"] = 50.0
    absent = LABELS.index("white circle")
    content["confusion"][absent][absent] = 0
    grid = composition_ious(content)
    assert grid[COLOURS.index("blue"), SHAPES.index("ring")] == 50.0
    assert np.isnan(grid[COLOURS.index("white"), SHAPES.index("circle")]) and np.isnan(grid).sum() == 1
    assert grid.diagonal().tolist() == [2.0] * 6 and (grid == 2.0).sum() == 6


def test_images_are_chosen_for_each_unseen_composition_in_turn():
    areas = np.zeros((9, len(LABELS)), int)
    unseen = [LABELS.index(label) for label in UNSEEN]
    for image, label in ((8, 0), (3, 1), (2, 1), (5, 2), (2, 3)):
        areas[image, unseen[label]] = WELL_VISIBLE
    areas[0, unseen[0]] = WELL_VISIBLE - 1  # hidden, for the most part
    # The only image with label 3 is taken, so the first left with any unseen one; then the first left.
    assert choose_images(areas) == [8, 2, 5, 3, 0, 1]
    assert choose_images(areas[:2]) == [0, 1]


def test_the_rich_image_has_most_labels_among_those_with_an_unseen_one():
    areas = np.zeros((4, len(LABELS)), int)
    areas[0, :5] = areas[1, [0, 39]] = areas[2, [0, 1, 39]] = areas[3, [0, 2, 38]] = WELL_VISIBLE
    assert choose_rich_image(areas) == 2
    assert choose_rich_image(areas[:1]) == 0


def test_stars_and_colours_go_by_meaning_not_by_word():
    assert starred(["red circle", "red square", "crimson disc"]) == ["red circle*", "red square", "crimson disc*"]
    colours = label_colours(LABELS)
    assert np.array_equal(colours, label_colours(list(map(with_synonyms, LABELS))))
    assert len(np.unique(colours, axis=0)) == len(LABELS)
