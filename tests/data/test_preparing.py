"""Masks of any coding become PNG files of label numbers, and the new description reads the same numbers from them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import data
from data import preparing
from data.__main__ import main
from lseg_utils.errors import InputError


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Three pictures in subfolders whose masks are coloured; the list of val leaves one out."""
    colours = np.array([(9, 9, 9), (128, 64, 128), (0, 0, 142)], np.uint8)
    rng = np.random.default_rng(0)
    for number in range(3):
        for kind, folder in (("images", "a_rgb.jpg"), ("masks", "a_col.png")):
            path = tmp_path / kind / str(number) / folder
            path.parent.mkdir(parents=True)
            Image.fromarray(colours[rng.integers(0, 3, (8, 12))]).save(path)
    (tmp_path / "val.txt").write_text("2/a\n0/a\n")
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\n"
        "splits:\n  train: {images: 'images/*/*.jpg', masks: 'masks/*/*.png', count: 3}\n"
        "  val: [{images: images, masks: masks, list: val.txt}, {images: images/1, masks: masks/1}]\n"
        "names: {image_suffix: _rgb, mask_suffix: _col}\nlabels: [road, car]\nlists: {other: [street, van]}\n"
        "unseen: [car]\nmask: {colours: {128 64 128: road, 0 0 142: car}, ignore: [9 9 9]}\n"
        "sizes: {base: 64, crop: 32}\nprotocols: {published: {base: 64, crop: 32, scales: [1.0, 2.0], flip: true}}\n"
    )
    return str(tmp_path / "tiny.yaml")


def targets(name: str, split: str) -> list[list[int]]:
    dataset = data.get_dataset(name, split=split, mode="testval")
    return [dataset.target(i).tolist() for i in range(len(dataset))]


def test_the_new_description_reads_the_same_labels(name: str, tmp_path: Path, capsys) -> None:
    assert main(["prepare", name]) == 0
    printed = capsys.readouterr().out
    assert "split train: 3 masks, the official number" in printed and "split val: 3 masks" in printed
    new = tmp_path / "prepared" / "tiny" / "tiny.yaml"
    assert f"BENCHMARK={new}" in printed
    for split in ("train", "val"):
        assert targets(str(new), split) == targets(name, split)
    with Image.open(tmp_path / "prepared" / "tiny" / "train" / "0" / "a.png") as mask:  # as CAT-Seg's conversions
        assert mask.mode == "L" and set(np.unique(mask)) == {0, 1, 255}
    old, made = data.get_dataset(name, mode="testval"), data.get_dataset(str(new), mode="testval")
    assert (old.name, old.labels, old.sizes, old.protocols) == (made.name, made.labels, made.sizes, made.protocols)
    assert data.get_labels(str(new), "other") == ["street", "van"] and made.groups == old.groups


def test_a_killed_conversion_resumes_and_other_masks_are_refused(name: str, tmp_path: Path, monkeypatch) -> None:
    convert, calls = preparing._convert, []

    def killed(reader, job, *more):
        calls.append(job.target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return convert(reader, job, *more)

    monkeypatch.setattr(preparing, "_convert", killed)
    monkeypatch.setattr(preparing, "THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        main(["prepare", name])
    assert main(["prepare", name]) == 0 and len(calls) > len(set(calls)) and len(set(calls)) == 6
    calls.clear()
    assert main(["prepare", name]) == 0 and not calls
    (tmp_path / "prepared" / "tiny" / "train" / "0" / "a.png").unlink()
    assert main(["prepare", name]) == 0 and calls == ["train/0/a.png"]
    Path(name).write_text(
        Path(name).read_text().replace("128 64 128: road", "128 64 128: car").replace("142: car", "142: road")
    )
    with pytest.raises(InputError, match="other settings"):
        main(["prepare", name])


def test_what_cannot_be_converted_is_told_together(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (12, 8), (1, 2, 3)).save(tmp_path / "masks" / "0" / "a_col.png")
    Image.new("RGB", (8, 12), (0, 0, 142)).save(tmp_path / "masks" / "1" / "a_col.png")
    with pytest.raises(InputError) as caught:
        main(["prepare", name, "--split", "train", "--out", str(tmp_path / "out")])
    message = str(caught.value)
    assert "#010203 (96 pixels)" in message and "is 8x12, but its image a_rgb.jpg is 12x8" in message
    assert not (tmp_path / "out" / "tiny.yaml").exists()
    with pytest.raises(InputError, match="choose one of train, val"):
        main(["prepare", name, "--split", "test"])
    (tmp_path / "masks" / "2" / "a_col.png").unlink()
    with pytest.raises(InputError, match=r"split train: 1 of 3 images have no mask[\s\S]*alone with --split"):
        main(["prepare", name])


def test_many_labels_take_16_bits(name: str, tmp_path: Path) -> None:
    content = yaml.safe_load(Path(name).read_text())
    content["labels"], content["unseen"], content["lists"] = [f"label {i}" for i in range(300)], [], {}
    content["mask"] = {"coding": "ade_full", "first": 0, "ignore": "rest"}
    Path(name).write_text(yaml.safe_dump(content))
    for number in range(3):  # red / 10 * 256 + green
        Image.new("RGB", (12, 8), (10, number, 0)).save(tmp_path / "masks" / str(number) / "a_col.png")
    assert main(["prepare", name, "--split", "train"]) == 0
    with Image.open(tmp_path / "prepared" / "tiny" / "train" / "2" / "a.png") as mask:
        assert np.unique(mask).tolist() == [258]
    assert targets(str(tmp_path / "prepared" / "tiny" / "tiny.yaml"), "train")[2][0][0] == 258


def test_matlab_files_without_scipy(name: str, tmp_path: Path, monkeypatch) -> None:
    Path(name).write_text(
        "name: tiny\nsplits: {val: {images: images, masks: mat}}\nlabels: [road]\n"
        "mask: {coding: mat, first: 1, ignore: [0]}\nnames: {image_suffix: _rgb}\n"
    )
    for number in range(3):
        (tmp_path / "mat" / str(number)).mkdir(parents=True)
        (tmp_path / "mat" / str(number) / "a.mat").write_bytes(b"no matter")
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    needed = r"masks of tiny \(MATLAB files\) needs scipy; run `pip install -r requirements-extras.txt`"
    with pytest.raises(InputError, match=needed):
        main(["prepare", name])
    with pytest.raises(InputError, match=needed):
        data.get_dataset(name, split="val")
    assert "needs scipy" in "".join(data.problems(name, splits=("val",)))
    assert data.get_dataset(name, split="val", mode="test")[0][1] == "a_rgb.jpg"
