"""Which mask belongs to which image, in layouts whose names differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.pairs import find_pairs, size_problems


def pictures(root: Path, *names: str, size: tuple[int, int] = (6, 4), **options: object) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(root / name, **options)


def test_folders_that_a_glob_names_are_not_part_of_the_name(tmp_path: Path) -> None:
    for scene in ("a", "b"):
        pictures(tmp_path, f"{scene}/color/1.jpg", f"{scene}/label/1.png", f"{scene}/depth/1.png")
    pairs, problems = find_pairs(tmp_path / "*" / "color" / "*.jpg", tmp_path / "*" / "label" / "*.png")
    found = [tuple(str(path.relative_to(tmp_path)) for path in pair) for pair in pairs]
    assert not problems and found == [("a/color/1.jpg", "a/label/1.png"), ("b/color/1.jpg", "b/label/1.png")]


def test_a_list_may_name_folders(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{kind}/{name}.png" for kind in ("i", "m") for name in ("a/1", "a/2", "b/1", "c/1")))
    (tmp_path / "list.txt").write_text("b\na\nc/1\n")
    pairs, problems = find_pairs(tmp_path / "i", tmp_path / "m", listed=tmp_path / "list.txt")
    assert not problems and [image.relative_to(tmp_path / "i").as_posix() for image, _ in pairs] == [
        "b/1.png",
        "a/1.png",
        "a/2.png",
        "c/1.png",
    ]
    (tmp_path / "list.txt").write_text("b\nd\n")
    _, (problem,) = find_pairs(tmp_path / "i", tmp_path / "m", listed=tmp_path / "list.txt")
    assert "lists 1 images" in problem and problem.endswith("d")


def test_images_that_exif_turns_are_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    exif = Image.Exif()
    exif[274] = 6
    pictures(tmp_path, "turned.jpg", exif=exif)
    pictures(tmp_path, "plain.jpg", "mask.png")
    pictures(tmp_path, "upright.png", size=(4, 6))
    assert not size_problems([(tmp_path / "plain.jpg", tmp_path / "mask.png")], "x") and not recwarn.list
    assert not size_problems([(tmp_path / "turned.jpg", tmp_path / "mask.png")], "checking")  # masks fit what is stored
    (warned,) = recwarn.list
    assert "1 image with an EXIF orientation" in str(warned.message) and "turned.jpg" in str(warned.message)
    (problem,) = size_problems([(tmp_path / "turned.jpg", tmp_path / "upright.png")], "checking")
    assert "4x6" in problem and "save the image upright" in problem
