"""test_lseg.py on files in the official format: as a user runs it, in this process, and in two processes."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint

import test_lseg as script
from ade_tree import make_tree, mask_path
from data import get_labels
from data.choice import DataChoice
from lseg_utils.errors import InputError
from modules.checkpoint_metadata import METADATA_KEY, metadata_of
from modules.checkpoints import load_lseg, to_official
from modules.models import build_lseg
from scripts import run, run_light, torchrun

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


@pytest.fixture
def measured(root: Path, official: Path, capsys: pytest.CaptureFixture) -> Callable[..., dict]:
    """Test in this process at scale 1, with these further options; gives results.json and what was printed."""

    def measure(*more: object, weights: Path = official) -> dict:
        script.main([str(each) for each in arguments(root, weights, "--eval", "--scales", 1, *more)])
        return {**results(root), "printed": capsys.readouterr().out}

    return measure


def refused(*options: object) -> str:
    """The message with which the script ends in this process."""
    with pytest.raises(InputError) as caught:
        script.main([str(option) for option in options])
    return str(caught.value)


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
    assert len(rows) == 151 and rows[8][:2] == ["7", get_labels("ade20k")[7]]
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


def test_acc_bn_changes_the_statistics_and_so_the_result_and_the_export(measured, root, official, tmp_path):
    before, plain = measured()["confusion"], tmp_path / "plain.pth"
    estimate = ("--acc-bn", "--batch-size", 2)
    assert measured(*estimate)["confusion"] != before
    script.main([str(each) for each in arguments(root, official, *estimate, "--export", plain)])
    old, new = (dict(load_lseg(path).state_dict()) for path in (official, plain))
    changed = {name for name, tensor in old.items() if not torch.equal(tensor, new[name])}
    assert changed and all(name.rsplit(".", 1)[1] in ("running_mean", "running_var") for name in changed)
    other = measured(*estimate, "--train-split", "val")["confusion"]
    assert other not in (before, measured(*estimate)["confusion"])
    message = refused("--weights", official, "--acc-bn", "--export", plain, "--data-path", tmp_path / "nowhere")
    assert "nowhere" in message


def test_shuffled_labels_permute_the_prediction(measured):
    predicted = torch.tensor(measured()["confusion"]).sum(0)
    shuffled = torch.tensor(measured("--shuffle_labels", 1)["confusion"]).sum(0)
    assert not torch.equal(predicted, shuffled) and torch.equal(predicted.sort()[0], shuffled.sort()[0])


def test_label_file_is_used_and_its_length_checked(measured, root, official, tmp_path):
    lines = [f"thing {i}" for i in range(150)]
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    mine = measured("--label_src", tmp_path / "mine.txt")
    assert list(mine["per_class_iou"]) == lines
    assert mine["labels_sha256"] == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    options = arguments(root, official, "--eval", "--label_src")
    (tmp_path / "short.txt").write_text("a\nb\n")
    assert "short.txt" in refused(*options, tmp_path / "short.txt")
    (tmp_path / "long.txt").write_text("\n".join([*lines[:149], "very " * 50 + "long thing"]))
    message = refused(*options, tmp_path / "long.txt")
    assert "very very" in message and "16 tokens" in message


def test_a_checkpoint_of_another_dataset_is_tested_under_this_ones_labels(measured, tmp_path):
    net = build_lseg("tiny_vit", [f"foreign {i}" for i in range(150)], features=16)
    for dataset, own in (("elsewhere", False), ("ade20k", True)):
        path = tmp_path / f"{dataset}.ckpt"
        content = {"state_dict": to_official(net.state_dict()), METADATA_KEY: metadata_of(net, dataset=dataset)}
        torch.save(content, path)
        found = measured(weights=path)
        assert ("foreign 0" in found["per_class_iou"]) == own
        assert ("was trained on elsewhere" in found["printed"]) != own


def test_a_network_is_tested_at_the_sizes_it_was_trained_at_on_this_dataset(root, tmp_path):
    net, path = build_lseg("tiny_vit", get_labels("ade20k"), features=16), tmp_path / "sizes.ckpt"
    net.base_size, net.crop_size = 96, 64
    torch.save({"state_dict": to_official(net.state_dict()), METADATA_KEY: metadata_of(net, dataset="ade20k")}, path)
    places = ("--data-path", root, "--output_dir", tmp_path / "out", "--log_dir", tmp_path / "logs")
    options = ("--weights", path, *places, "--workers", 0, "--device", "cpu", "--eval", "--protocol", "single")
    script.main([str(each) for each in options])
    protocol = json.loads((tmp_path / "out" / "results.json").read_text())["protocol"]
    assert protocol == "single (scale 1, no flip), windows of 64, base 96"
    net.metadata = {"dataset": "ade20k", "sizes": {"base": 96, "crop": 64}}
    asked, other = DataChoice("ade20k", crop_size=32), DataChoice("miniature")
    assert script.with_trained_sizes(asked, net) == DataChoice("ade20k", base_size=96, crop_size=32)
    assert script.with_trained_sizes(other, net) == other


BAD_INPUT = {
    "another backbone": (["--backbone", "clip_vitb32_384"], "is a tiny_vit"),
    "no such checkpoint": (["--weights", "no.ckpt"], "python -m modules.zoo"),
    "crashing official flag": (["--aux"], "--aux"),
    "no such dataset": (["--dataset", "citys"], "citys"),
    "no such folder of data": (["--data-path", "nowhere"], "nowhere"),
    "no such device": (["--device", "warp"], "warp"),
    "a crop that the network cannot take": (["--crop_size", 100], "such as 128"),
    "a window batch of nothing": (["--window_batch", 0], "--window_batch is 0"),
    "a scale of nothing": (["--scales", "1", "0"], "--scales"),
    "a negative seed": (["--shuffle_labels", "-1"], "--shuffle_labels is -1"),
    "no test split": (["--split", "test"], "release_test"),
    "a test split to measure": (["--eval", "--split", "test"], "--split val"),
    "a folder that cannot be made": (["--output_dir", "FILE/out"], "--output_dir"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_named(root, official, name):
    options, fact = BAD_INPUT[name]
    options = [str(option).replace("FILE", str(official)) for option in options]
    what = [] if "--split" in options else ["--eval"]
    assert fact in refused(*arguments(root, official, *what, *options))


def test_all_that_is_wrong_is_named_at_once(root, official):
    message = refused(*arguments(root, official, "--weights", "no.ckpt", "--crop_size", 100, "--scales", "-1", "--aux"))
    assert all(fact in message for fact in ("no.ckpt", "--crop_size is 100", "--scales", "--aux"))


@pytest.mark.parametrize(
    ("options", "code", "fact"),
    [
        (["--help"], 0, "--shuffle_labels"),
        (["--weihgts", "x"], 2, "--weights"),
        (["--weights", "no.ckpt"], 2, "no.ckpt"),
        (["--weights", "OFFICIAL", "--eval", "--data-path", "nowhere"], 2, "nowhere"),
    ],
    ids=["help", "a misspelt option", "no checkpoint", "no data"],
)
def test_quick_answers_come_before_torch_is_imported(official, tmp_path, options, code, fact):
    options = [option.replace("OFFICIAL", str(official)) for option in options]
    assert fact in run_light("test_lseg.py", *options, cwd=tmp_path, code=code)


def test_a_damaged_mask_ends_the_test_with_its_name(root, official):
    path = mask_path(root, "val", "a3")
    Image.fromarray(np.full((30, 40), 200, dtype=np.uint8)).save(path)
    message = refused(*arguments(root, official, "--eval", "--scales", 1))
    assert str(path) in message and "200" in message
