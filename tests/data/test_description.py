"""Descriptions of datasets: what is wrong with one is told with file and line, and each format of masks is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
from data.__main__ import main
from data.description import known_datasets, read_description
from lseg_utils.errors import InputError

GOOD = {
    "name": "tiny",
    "splits": "{train: {images: images, masks: masks}, val: {images: images, masks: masks}}",
    "labels": "[road, car]",
    "sizes": "{base: 64, crop: 32}",
}
VALUES = np.repeat(np.array([0, 1, 255], np.uint8), 4)[None].repeat(8, axis=0)  # (8, 12): road, car, unlabelled


def described(folder: Path, **changed: str) -> str:
    """A YAML file next to images/a.png; ``changed`` replaces keys or adds them."""
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (12, 8), (90, 90, 90)).save(folder / "images" / "a.png")
    (folder / "masks").mkdir(exist_ok=True)
    return write_yaml(folder, changed)


def write_yaml(folder: Path, changed: dict[str, str]) -> str:
    path = folder / "tiny.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in (GOOD | changed).items()) + "\n")
    return str(path)


BAD = {
    "a typo": ({"lables": "[a]"}, "line 5", "did you mean labels?"),
    "a key twice": ({"sizes": "{crop: 32, crop: 64}"}, "line 4", "'crop' was given"),
    "no YAML": ({"labels": "[road, car"}, "line", "not valid YAML"),
    "a label twice": ({"labels": "[road, road]"}, "line 3", "'road' was given before"),
    "two labels with one value": ({"labels": "{road: 1, car: [2, 1]}"}, "line 3", "the value 1 is given to 'road'"),
    "a label without a value": ({"mask": "{values: {7: road}}"}, "line 3", "'car' has no value"),
    "a value without a label": ({"mask": "{values: {7: road, 8: car, 9: cars}}"}, "line 5", "did you mean car?"),
    "values the wrong way round": ({"mask": "{values: {road: [0, 2], car: 1}}"}, "line 5", "VALUE: NAME"),
    "no label": ({"labels": "[]"}, "line 3", "labels is empty"),
    "an ignored label": ({"mask": "{first: 0, ignore: [1]}"}, "line 5", "'car' and to 'ignore'"),
    "a crop that does not fit": ({"sizes": "{crop: 100}"}, "line 4", "such as 128"),
    "no number": ({"sizes": "{base: large}"}, "line 4", "'large'"),
    "a strange colour": ({"mask": "{colours: {300 0 0: road, 1 2 3: car}}"}, "line 5", "not a colour"),
    "an unseen label that does not exist": ({"unseen": "[carr]"}, "line 5", "did you mean car?"),
    "no label file": ({"labels": "{file: gone.txt}"}, "line 3", "gone.txt"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_with_its_line(case: str, tmp_path: Path) -> None:
    changed, *pieces = BAD[case]
    with pytest.raises(InputError) as caught:
        data.get_labels(described(tmp_path, **changed))
    for piece in ("tiny.yaml", *pieces):
        assert piece in str(caught.value)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        data.get_labels(described(tmp_path, lables="[a]", sizes="{crop: 1}", unseen="[x]"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("name", known_datasets())
def test_the_descriptions_of_this_repository_are_sound(name: str) -> None:
    description = read_description(name)
    assert description.name == name and description.source and len(description.labels) > 1


def values_file(masks: Path) -> dict[str, str]:
    Image.fromarray(VALUES).save(masks / "a.png")
    return {}


def palette_file(masks: Path) -> dict[str, str]:
    picture = Image.fromarray(VALUES)
    picture.putpalette([9] * 768)
    picture.save(masks / "a.png")
    return {}


def wide_tiff(masks: Path) -> dict[str, str]:
    Image.fromarray(np.array([300, 301, 65535], np.uint16)[np.minimum(VALUES, 2)]).save(masks / "a.tif")
    return {"mask": "{values: {300: road, 301: car}, ignore: rest}"}


def coloured(masks: Path) -> dict[str, str]:
    colours = np.zeros((256, 3), np.uint8)
    colours[0], colours[1] = (128, 64, 128), (0, 0, 142)
    Image.fromarray(colours[VALUES]).save(masks / "a.png")
    return {"mask": "{colours: {128 64 128: road, '#00008e': car}, ignore: [0 0 0]}"}


def ade_full(masks: Path) -> dict[str, str]:
    ids = np.where(VALUES == 0, 2978, np.where(VALUES == 1, 401, 0))
    red, green = ids // 256 * 10, ids % 256
    Image.fromarray(np.stack([red, green, 0 * red], axis=2).astype(np.uint8)).save(masks / "a_seg.png")
    return {
        "names": "{mask_suffix: _seg}",
        "mask": "{coding: ade_full, values: {2978: road, 401: car}, ignore: rest}",
    }


def label_ids(masks: Path) -> dict[str, str]:
    (masks / "sub").mkdir()
    images = masks.parent / "images"
    (images / "sub").mkdir()
    (images / "a.png").rename(images / "sub" / "a_leftImg8bit.png")
    ids = np.where(VALUES == 0, 7, np.where(VALUES == 1, 26, 3)).astype(np.uint8)
    Image.fromarray(ids).save(masks / "sub" / "a_gtFine_labelIds.png")
    return {
        "names": "{image_suffix: _leftImg8bit, mask_suffix: _gtFine_labelIds}",
        "labels": "{road: 7, car: [26, 27]}",
        "mask": "{ignore: [3]}",
    }


def polygons(masks: Path) -> dict[str, str]:
    shapes = [
        {"label": name, "polygon": [[x, 0], [x + 3, 0], [x + 3, 7], [x, 7]]} for name, x in (("road", 0), ("car", 4))
    ]
    (masks / "a.json").write_text(json.dumps({"imgWidth": 12, "imgHeight": 8, "objects": shapes}))
    return {"labels": "{road: road, car: car}", "mask": "{coding: polygons}"}


def panoptic(masks: Path) -> dict[str, str]:
    segments = np.where(VALUES == 0, 70000, np.where(VALUES == 1, 258, 0))
    Image.fromarray(np.stack([segments >> 8 * i & 255 for i in range(3)], axis=2).astype(np.uint8)).save(
        masks / "a.png"
    )
    listed = [{"id": 70000, "category_id": 100}, {"id": 258, "category_id": 3}]
    (masks.parent / "p.json").write_text(json.dumps({"annotations": [{"file_name": "a.png", "segments_info": listed}]}))
    return {
        "splits": "{train: {images: images, masks: masks, segments: p.json}}",
        "mask": "{coding: panoptic, values: {100: road, 3: car}, ignore: [0]}",
    }


def matlab(masks: Path) -> dict[str, str]:
    scipy = pytest.importorskip("scipy.io")
    scipy.savemat(masks / "a.mat", {"LabelMap": np.where(VALUES == 255, 0, VALUES + 1).astype(np.uint16)})
    return {"mask": "{coding: mat, first: 1, ignore: [0]}"}


FORMATS = [values_file, palette_file, wide_tiff, coloured, ade_full, label_ids, polygons, panoptic, matlab]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_every_format_of_masks_is_checked_and_read(write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described(tmp_path)
    name = write_yaml(tmp_path, write(tmp_path / "masks"))
    assert main(["check", name, "--deep"]) == 0, capsys.readouterr().out
    table = capsys.readouterr().out
    assert "33.3" in table
    assert main(["show", name, "--split", "train", "--out", str(tmp_path / "sheet.png")]) == 0
    assert Image.open(tmp_path / "sheet.png").width > 700
    _, mask = data.get_dataset(name, mode="testval", split="train")[0]
    assert mask.unique().tolist() == [-1, 0, 1] and mask[0, 0] == 0 and mask[0, -1] == -1
    image, crop = data.get_dataset(name, split="train", seed=0)[0]
    assert image.shape == (3, 32, 32) and crop.shape == (32, 32) and crop.dtype == torch.int64


def test_check_tells_a_coloured_mask_and_one_of_another_size(tmp_path: Path, capsys) -> None:
    name = described(tmp_path)
    Image.new("RGB", (12, 8)).save(tmp_path / "masks" / "a.png")
    assert main(["check", name]) == 1 and "mode RGB" in capsys.readouterr().out
    Image.new("L", (8, 12)).save(tmp_path / "masks" / "a.png")
    assert main(["check", name]) == 1 and "8x12" in capsys.readouterr().out
    (tmp_path / "masks" / "a.png").unlink()
    assert main(["check", name]) == 1 and "no masks in" in capsys.readouterr().out


def lone_image(folder: Path) -> None:
    Image.new("RGB", (12, 8)).save(folder / "images" / "b.png")


def lone_mask(folder: Path) -> None:
    Image.fromarray(VALUES).save(folder / "masks" / "b.png")


def no_image(folder: Path) -> None:
    (folder / "images" / "a.png").unlink()


def strange_values(folder: Path) -> None:
    Image.fromarray(np.where(VALUES == 1, 7, VALUES)).save(folder / "masks" / "a.png")


def cut_off(folder: Path) -> None:
    content = (folder / "masks" / "a.png").read_bytes()
    (folder / "masks" / "a.png").write_bytes(content[: len(content) // 2])


DAMAGES = {
    lone_image: ("1 of 2 images have no mask", "b.png"),
    lone_mask: ("1 of 2 masks have no image", "b.png"),
    no_image: ("no images in", "images"),
    strange_values: ("a.png contains the values 7 (32 pixels)", "0..1, 255"),
    cut_off: ("a.png", "download it again"),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_wrong_with_the_files_is_told(damage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = described(tmp_path)
    Image.fromarray(VALUES).save(tmp_path / "masks" / "a.png")
    assert main(["check", name, "--deep"]) == 0
    damage(tmp_path)
    assert main(["check", name, "--deep"]) == 1
    printed = capsys.readouterr().out
    assert all(piece in printed for piece in DAMAGES[damage]), printed


def test_undeclared_colours_are_counted(tmp_path: Path) -> None:
    name = described(tmp_path, mask="{colours: {1 2 3: road, 4 5 6: car}}")
    Image.new("RGB", (12, 8), (255, 0, 0)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(InputError, match=r"a.png contains the colours #ff0000 \(96 pixels\)"):
        data.get_dataset(name, split="val")[0]


@pytest.mark.parametrize("count", [1, 10_000])
def test_one_label_and_ten_thousand(count: int, tmp_path: Path) -> None:
    name = described(tmp_path, labels="{file: many.txt}", mask="{first: 0, ignore: [65535]}")
    (tmp_path / "many.txt").write_text("\n".join(f"label {number}" for number in range(count)))
    Image.fromarray(np.full((8, 12), count - 1, np.uint16)).save(tmp_path / "masks" / "a.png")
    for mode in ("testval", "val", "train"):
        assert data.get_dataset(name, mode=mode, split="val")[0][1].max() == count - 1


def test_large_pictures_are_reduced_with_their_masks(tmp_path: Path) -> None:
    name = described(tmp_path, sizes="{base: 64, crop: 32, max_short_side: 4}")
    Image.fromarray(VALUES).save(tmp_path / "masks" / "a.png")
    image, mask = data.get_dataset(name, split="val", mode="testval")[0]
    assert image.shape == (3, 4, 6) and mask[0].tolist() == [0, 0, 1, 1, -1, -1]


def test_lists_of_names_with_spaces_and_of_paths_with_a_leading_slash(tmp_path: Path) -> None:
    described(tmp_path)
    for name in ("my a", "my b"):
        for folder in ("images", "masks"):
            Image.fromarray(np.zeros((8, 12), np.uint8)).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "spaces.txt").write_text("my b\nmy a\n")
    (tmp_path / "paths.txt").write_text("/images/my a.png /masks/my a.png\n".replace("my a", "c"))
    for folder in ("images", "masks"):
        Image.fromarray(np.zeros((8, 12), np.uint8)).save(tmp_path / folder / "c.png")
    val, test = "{images: images, masks: masks, list: spaces.txt}", "{images: ., masks: ., list: paths.txt}"
    name = described(tmp_path, splits=f"{{train: {val}, val: {val}, test: {test}}}")
    val = data.get_dataset(name, split="val", mode="testval")
    assert [Path(val.name_of(i)).stem for i in range(len(val))] == ["my b", "my a"]
    for mode in ("testval", "test"):
        assert Path(data.get_dataset(name, split="test", mode=mode).name_of(0)).stem == "c"
