"""Every description reads its dataset's own folders, names and file formats: tiny stand-ins through all commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import data
import train_lseg
from data.__main__ import main
from data.description import Description, known_datasets, read_description
from stand_ins import make_stand_in

# One of each kind of layout or file format that can be trained on.
TRAINABLE = (
    "ade20k",  # masks in folders of their own
    "ade847",  # RGB-coded, next to the pictures, in folders of scenes
    "cityscapes",  # labelIds
    "coco_panoptic133",  # panoptic PNG
    "coco_stuff27",  # groups of values, a list
    "idd26",  # JSON polygons
    "mapillary_vistas65",  # palette pictures
    "scannet20",  # globs, a list of folders
    "sunrgbd37",  # names with prefixes
    "voc2012",  # palette pictures, a list
)
TINY = (
    "--backbone tiny_vit --backbone_weights random --num_features 16 --clip_weights random --base_size 64 "
    "--crop_size 64 --workers 0 --batch_size 2 --logger none --accelerator cpu --dry-run"
)


def stand_in(name: str, root: Path) -> Description:
    description = read_description(name)
    if description.masks.coding == "mat":
        pytest.importorskip("scipy.io")
    make_stand_in(description, root)
    return description


@pytest.mark.parametrize("name", known_datasets())
def test_a_stand_in_is_checked_and_read(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    description = stand_in(name, tmp_path)
    assert main(["check", name, "--data_path", str(tmp_path)]) == 0, capsys.readouterr().out
    for split, parts in description.splits.items():
        if not any(part.masks for part in parts):
            continue
        image, mask = data.get_dataset(name, tmp_path, split, "testval")[0]
        assert image.shape[1:] == mask.shape == (24, 32)
        ignored = -1 in description.masks.table.values() or description.masks.others == -1
        assert mask[0, [0, 15, -1]].tolist() == [0, len(description.labels) - 1, -1 if ignored else 0]


QUICK = ("ade20k", "coco_panoptic133", "pascal_context459")


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in (*TRAINABLE, "pascal_context459")
    ],
)
def test_a_stand_in_is_drawn_and_converted(name: str, tmp_path: Path) -> None:
    stand_in(name, tmp_path)
    assert main(["show", name, "--data_path", str(tmp_path), "--out", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 700
    assert main(["prepare", name, "--data_path", str(tmp_path), "--split", "val"]) == 0
    converted = data.get_dataset(str(tmp_path / "prepared" / name / f"{name}.yaml"), split="val", mode="testval")
    original = data.get_dataset(name, tmp_path, "val", "testval")
    assert converted.labels == original.labels and (converted[1][1] == original[1][1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAINABLE if name != "ade847"])  # too long for the tiny text tower
def test_a_stand_in_is_trained_on_in_a_dry_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(name, tmp_path)
    places = ["--data_path", str(tmp_path), "--checkpoint_dir", str(tmp_path / "runs"), "--exp_name", "tiny"]
    train_lseg.main(["--dataset", name, *places, *TINY.split()])
    assert str(len(read_description(name).labels)) in capsys.readouterr().out
