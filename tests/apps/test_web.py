"""What the app is made of, without a browser: limits, the shared network, remembered work, places, files."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from apps.web import drawing, work
from apps.web.inputs import parse_labels
from apps.web.places import default_checkpoint, found_checkpoints, label_lists, miniature_folder, name_of
from apps.web.work import SharedPredictor, Work, pixel_at
from lseg_utils.errors import InputError
from predicting import picture, predictor


@pytest.fixture(scope="module")
def shared():
    return SharedPredictor(predictor())


def test_labels_come_by_line_or_comma_and_every_fault_is_named_at_once():
    assert parse_labels(" a cat,dog\n\n the   sky ,") == ["a cat", "dog", "the sky"]
    with pytest.raises(InputError) as error:
        parse_labels("cat, cat, " + "x" * 300 + "\n" + "\n".join(map(str, range(300))))
    assert all(part in str(error.value) for part in ("303 labels", "Duplicate labels: cat", "Longer than"))


def test_only_one_thread_at_a_time_reaches_the_network():
    inside, most = [], []

    def segment(picture, labels, mode):
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.01)
        inside.pop()
        return SimpleNamespace()

    net = SimpleNamespace(labels=None, architecture={"backbone": "tiny"})
    shared = SharedPredictor(SimpleNamespace(net=net, segment=segment))
    threads = [threading.Thread(target=shared.segment, args=(None, ["cat"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_texts_are_forgotten_when_they_become_many(shared, monkeypatch):
    monkeypatch.setattr(work, "MAX_TEXTS", 3)
    encoder, forgotten = shared._predictor.net.text_encoder, []
    monkeypatch.setattr(encoder, "clear_cache", lambda: forgotten.append(1))
    for labels, times in ((["a", "b"], 0), (["a", "c"], 0), (["d", "e"], 1), (["d", "f"], 1)):
        shared.segment(picture(32, 32), labels)
        assert len(forgotten) == times


def test_work_is_redone_only_where_it_changed(shared, monkeypatch):
    calls = []
    for name in ("segment", "heatmap", "nearest"):
        original = getattr(shared, name)
        monkeypatch.setattr(
            shared, name, lambda *a, name=name, original=original: calls.append(name) or original(*a), raising=False
        )
    mine, photo = Work(), picture(40, 50)
    reads = []
    for source in ("one", "one", "two", "one"):
        assert mine.picture(source, lambda source=source: reads.append(source) or photo) is photo
    assert reads == ["one", "two", "one"]
    first = mine.segment(shared, "one", photo, ["cat", "dog"])
    assert mine.segment(shared, "one", photo, ["cat", "dog"]) is first
    for _ in range(2):
        mine.nearest(shared, 0.3, 0.4)
        mine.heatmap(shared, "sky")
    assert calls == ["segment", "nearest", "heatmap"]
    again = mine.segment(shared, "one", photo, ["dog"])
    assert again.encoded is first.encoded and mine.nearest(shared, 0, 0)[0].probability == pytest.approx(1)
    other = mine.segment(shared, "two", picture(30, 30), ["dog"])
    assert other.mask.shape == (30, 30) and mine.heatmap(shared, "sky").shape == (30, 30)


def test_pixels_under_points():
    assert pixel_at(0, 0, 10, 20) == (0, 0)
    assert pixel_at(0.26, 0.5, 10, 20) == (2, 10)
    assert pixel_at(1, 1.2, 10, 20) == (9, 19) and pixel_at(-0.1, 0, 10, 20) == (0, 0)


def test_nearest_labels_are_the_scores_of_the_result_on_a_coarser_grid_for_large_pictures(shared, monkeypatch):
    labels, photo = ["cat", "dog", "sky", "a red car", "grass", "water"], picture(90, 120)
    mine = Work()
    result = mine.segment(shared, "one", photo, labels)
    numbers, scores = result.scores(5)
    near = mine.nearest(shared, 0.5, 0.25)
    assert [one.number for one in near] == numbers[:, 45, 30].tolist()
    assert [one.label for one in near] == [labels[number] for number in numbers[:, 45, 30]]
    assert [one.score for one in near] == pytest.approx(scores[:, 45, 30].tolist())
    assert near[0].probability == pytest.approx(float(result.confidence[45, 30]))

    monkeypatch.setattr(work, "MAX_SCORED", 60)
    coarse = shared.nearest(result)
    assert coarse.numbers.shape == (5, 45, 60) and result.mask.shape == (90, 120)
    # Rows 0, 44 of the coarse grid lie on rows 0, 89 of the fine one, likewise its columns.
    assert coarse.scores[:, -1, -1] == pytest.approx(scores[:, -1, -1], abs=1e-4)
    assert coarse.at(0.999, 0.999)[0].number == numbers[0, -1, -1]


def test_files_hold_the_mask_and_the_overlay(shared):
    result = shared.segment(picture(40, 50), ["cat", "dog"])
    result.mask[:20], result.mask[20:] = 0, 1
    mask = Image.open(io.BytesIO(drawing.png(result.mask_picture())))
    assert mask.size == (50, 40) and (np.asarray(mask)[[0, 39], 0] == [1, 2]).all()
    colours = result.colours
    assert (np.asarray(mask.convert("RGB"))[39, 0] == colours[1]).all()
    page = np.asarray(drawing.shown_labels(result, 1.0))
    assert page.shape == (13 * 40, 13 * 50, 3) and (page[0, 0] == colours[0]).all()
    flat, rising = np.zeros((40, 50), np.float32), np.linspace(0, 1, 2000, dtype=np.float32).reshape(40, 50)
    grey = np.asarray(drawing.shown_heat(result.image, flat, 0.0))
    assert (grey == grey[..., :1]).all() and grey.shape == page.shape
    heat = np.asarray(drawing.shown_heat(result.image, rising, 1.0)).astype(int)
    assert heat[0, 0, 2] > heat[0, 0, 0] and heat[-1, -1, 0] > heat[-1, -1, 2]  # from blue to red
    assert Image.open(io.BytesIO(drawing.png(result.picture(0.5)))).height > 40


def test_checkpoints_and_what_belongs_to_them(tmp_path):
    checkpoints, quickstart = tmp_path / "checkpoints", tmp_path / "quickstart"
    with pytest.raises(InputError, match="bash quickstart"):
        default_checkpoint(checkpoints, quickstart)
    files = ["demo.ckpt", "run/version_1/checkpoints/last.ckpt", "old.pth", "notes.txt"]
    runs = ["runs/trained_seed3/version_0", "runs_short/trained_seed0/version_2"]
    trained = [f"{run}/checkpoints/last.ckpt" for run in runs]
    for path in [checkpoints / name for name in files] + [quickstart / name for name in trained]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = found_checkpoints(checkpoints, quickstart)
    assert [name_of(path, checkpoints) for path in found] == [
        "demo.ckpt",
        "old.pth",
        "run/version_1/last.ckpt",
        "miniature, seed3, version_0",
        "miniature, short, seed0, version_2",
    ]
    assert default_checkpoint(checkpoints, quickstart) == found[3]
    world = quickstart / "datasets_seed0_short" / "miniature"
    world.mkdir(parents=True)
    (world / "labels.txt").write_text("red ring\ngrass\n")
    assert miniature_folder(found[4]) == world and miniature_folder(found[3]) is None
    few, everything = label_lists(found[4]).values()
    assert set(few) == set(everything) and everything == ["red ring", "grass"]
    sample = world / "images" / "validation" / "one.jpg"
    mask = world / "annotations" / "validation" / "one.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(np.array([[0, 1, 1]], np.uint8)).save(mask)
    (world / "labels.txt").write_text("red ring\ngrass\n" + "\n".join(f"thing {number}" for number in range(20)))
    few, everything = label_lists(found[4], sample).values()
    assert few[0] == "red ring" and len(few) == len(set(few)) == 6 and len(everything) == 22
    assert label_lists(found[0]) == {} and name_of(Path("/elsewhere/a.ckpt"), checkpoints) == "a.ckpt"
