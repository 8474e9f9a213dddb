"""test_lseg.py as a user runs it, on files in the official format, in one process and in two."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint

from ade_tree import make_tree, mask_path
from data import get_labels
from modules.checkpoints import METADATA_KEY, load_lseg, metadata_of, to_official
from modules.models import build_lseg
from scripts import run, torchrun

COMMON = ("--crop_size", 64, "--base_size", 64, "--workers", 0, "--device", "cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "datasets", train=4, val=5)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A checkpoint as Lightning 1.4 wrote it: CLIP in half precision, callbacks keyed by a class, no options."""
    torch.manual_seed(0)
    net = build_lseg("tiny_vit", None, features=16)
    state = {k: v.half() if "clip_pretrained" in k else v for k, v in to_official(net.state_dict()).items()}
    state["net.clip_pretrained.visual.conv1.weight"] = torch.randn(8, 3, 3, 3).half()
    path = tmp_path / "official.ckpt"
    torch.save(
        {
            "state_dict": state,
            "epoch": 239,
            "global_step": 1,
            "pytorch-lightning_version": "1.4.9",
            "callbacks": {ModelCheckpoint: {"best_model_path": "x", "best_model_score": torch.tensor(0.8)}},
            "optimizer_states": [{"state": {}, "param_groups": []}],
            "lr_schedulers": [],
        },
        path,
    )
    return path


def arguments(root: Path, official: Path, *more: object) -> list[object]:
    folder = root.parent
    places = ("--data-path", root, "--output_dir", folder / "out", "--log_dir", folder / "logs")
    return ["--dataset", "ade20k", "--weights", official, *places, *COMMON, *more]


def results(root: Path) -> dict:
    return json.loads((root.parent / "out" / "results.json").read_text())


def test_eval_writes_table_json_csv_and_log(root, official, tmp_path):
    output = run("test_lseg.py", *arguments(root, official, "--eval", "--widehead", "--no-scaleinv"), cwd=tmp_path)
    assert "pixel accuracy" in output and "flag" in output
    found = results(root)
    assert found["images"] == 5 and found["protocol"].startswith("official")
    confusion = torch.tensor(found["confusion"])
    assert confusion.sum() == 5 * 30 * 20  # the labelled half of 40 x 30 pixels
    assert found["pixel_accuracy"] == pytest.approx(100 * confusion.trace().item() / confusion.sum().item())
    assert len(found["per_class_iou"]) == 150  # 'screen' twice, both kept
    rows = list(csv.reader((root.parent / "out" / "per_class_iou.csv").open()))
    assert len(rows) == 151 and rows[8][1] == get_labels("ade20k")[7]
    (log,) = (root.parent / "logs").iterdir()
    assert " float32 pixAcc " in log.read_text() and "mIoU" in log.read_text()
    page = (root.parent / "out" / "report.html").read_text(encoding="utf-8")
    assert f"{found['miou']:.2f} %" in page and page.count("data:image/jpeg") == 2 and "The 5 worst images" in page


@pytest.mark.slow
def test_two_processes_count_the_same_pixels_and_picture_the_same_images(root, official, tmp_path):
    options = arguments(root, official, "--eval", "--scales", 1)
    run("test_lseg.py", *options, cwd=tmp_path)
    alone, page = results(root), (root.parent / "out" / "report.html").read_text()
    torchrun(2, "test_lseg.py", *options, cwd=tmp_path)
    assert results(root)["confusion"] == alone["confusion"] and alone["images"] == 5
    assert (root.parent / "out" / "report.html").read_text() == page


def test_without_eval_masks_and_overlays_are_written(root, official, tmp_path):
    output = run("test_lseg.py", *arguments(root, official, "--scales", 1, "--no_flip"), cwd=tmp_path)
    assert "no test split" in output
    masks = sorted((root.parent / "out" / "masks").iterdir())
    assert [path.name for path in masks] == [f"a{i}.png" for i in range(5)]
    with Image.open(masks[0]) as picture:
        assert picture.mode == "P" and picture.size == (40, 30)
        values = np.asarray(picture)
    assert values.min() >= 1 and values.max() <= 150
    assert len(list((root.parent / "out" / "overlays").glob("*.jpg"))) == 5


def test_export_is_a_plain_state_dict_that_loads_again(root, official, tmp_path):
    run("test_lseg.py", "--weights", official, "--export", tmp_path / "plain.v1", cwd=tmp_path)
    plain = torch.load(tmp_path / "plain.v1.pth", weights_only=True)
    assert "scratch.head1.weight" in plain and not any(name.startswith("net.") for name in plain)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, found = (load_lseg(path)(image, ["a", "b"]) for path in (official, tmp_path / "plain.v1.pth"))
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_acc_bn_changes_the_statistics_and_so_the_result(root, official, tmp_path):
    options = arguments(root, official, "--eval", "--scales", 1)
    run("test_lseg.py", *options, cwd=tmp_path)
    before = results(root)["confusion"]
    run("test_lseg.py", *options, "--acc-bn", "--batch_size", 2, cwd=tmp_path)
    assert results(root)["confusion"] != before


@pytest.mark.slow
def test_shuffled_labels_permute_the_prediction(root, official, tmp_path):
    options = arguments(root, official, "--eval", "--scales", 1)
    run("test_lseg.py", *options, cwd=tmp_path)
    predicted = torch.tensor(results(root)["confusion"]).sum(0)
    run("test_lseg.py", *options, "--shuffle_labels", 1, cwd=tmp_path)
    shuffled = torch.tensor(results(root)["confusion"]).sum(0)
    assert not torch.equal(predicted, shuffled) and torch.equal(predicted.sort()[0], shuffled.sort()[0])


def test_label_file_is_used_and_its_length_checked(root, official, tmp_path):
    lines = [f"thing {i}" for i in range(150)]
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    options = arguments(root, official, "--eval", "--scales", 1, "--label_src")
    run("test_lseg.py", *options, tmp_path / "mine.txt", cwd=tmp_path)
    assert list(results(root)["per_class_iou"]) == lines
    (tmp_path / "short.txt").write_text("a\nb\n")
    assert "short.txt" in run("test_lseg.py", *options, tmp_path / "short.txt", cwd=tmp_path, code=2)
    (tmp_path / "long.txt").write_text("\n".join([*lines[:149], "very " * 50 + "long thing"]))
    output = run("test_lseg.py", *options, tmp_path / "long.txt", cwd=tmp_path, code=2)
    assert "very very" in output and "16 tokens" in output and "Traceback" not in output


@pytest.mark.slow
def test_a_checkpoint_of_another_dataset_is_tested_under_this_ones_labels(root, tmp_path):
    net = build_lseg("tiny_vit", [f"foreign {i}" for i in range(150)], features=16)
    for dataset, own in (("elsewhere", False), ("ade20k", True)):
        path = tmp_path / f"{dataset}.ckpt"
        content = {"state_dict": to_official(net.state_dict()), METADATA_KEY: metadata_of(net, dataset=dataset)}
        torch.save(content, path)
        output = run("test_lseg.py", *arguments(root, path, "--eval", "--scales", 1), cwd=tmp_path)
        assert ("foreign 0" in results(root)["per_class_iou"]) == own
        assert ("was trained on elsewhere" in output) != own


def test_bad_input_is_named_without_a_traceback(root, official, tmp_path):
    cases = {
        "another backbone": (["--backbone", "clip_vitb32_384"], "is a tiny_vit"),
        "no such checkpoint": (["--weights", tmp_path / "no.ckpt"], "there is no file"),
        "crashing official flag": (["--aux"], "--aux"),
        "no such dataset": (["--dataset", "citys"], "citys"),
        "no such device": (["--device", "warp"], "warp"),
        "a crop that the network cannot take": (["--crop_size", 100], "such as 128"),
        "no test split": (["--split", "test"], "release_test"),
        "a folder that cannot be made": (["--output_dir", official / "out"], "--output_dir"),
    }
    for name, (options, expected) in cases.items():
        what = [] if "--split" in options else ["--eval"]
        output = run("test_lseg.py", *arguments(root, official, *what, *options), cwd=tmp_path, code=2)
        assert expected in output and "Traceback" not in output, name


def test_a_damaged_mask_ends_the_test_with_its_name(root, official, tmp_path):
    path = mask_path(root, "val", "a3")
    Image.fromarray(np.full((30, 40), 200, dtype=np.uint8)).save(path)
    output = run("test_lseg.py", *arguments(root, official, "--eval", "--scales", 1), cwd=tmp_path, code=2)
    assert str(path) in output and "200" in output and "Traceback" not in output
