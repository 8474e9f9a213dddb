"""Reading for training: the same numbers as the plain way, less of them where few are wanted, damage always found."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from ade_tree import image_path, make_tree, truncate
from benchmarks.bench_data import PlainTraining, make_pictures
from data.loading import SeededDataset
from data.pairs import size_problems
from data.reading import EncodedImage, UnreadableInputError, check_values, read_image, read_mask
from lseg_utils.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*officially")


def write_photo(path: Path, mode: str = "RGB", **options: object) -> Path:
    """A smooth picture of 80x64 pixels."""
    ramp = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    Image.fromarray(np.stack([ramp, 150 - ramp, ramp // 2], axis=-1)).convert(mode).save(path, **options)
    return path


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6  # orientation: by a quarter
    return exif


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "RGB", {}),
        ("a.jpg", "RGB", {"subsampling": 0, "quality": 95}),
        ("a.jpg", "RGB", {"progressive": True}),
        ("a.jpg", "RGB", {"exif": turned()}),
        ("a.jpg", "L", {}),
        ("a.jpg", "CMYK", {}),
        ("a.png", "RGB", {}),
        ("a.png", "P", {}),
    ],
)
def test_pixels_in_the_original_size_are_those_of_the_plain_way(
    tmp_path: Path, name: str, mode: str, options: dict
) -> None:
    path = write_photo(tmp_path / name, mode, **options)
    encoded = EncodedImage(path)
    assert encoded.size == (80, 64)
    np.testing.assert_array_equal(encoded.pixels(), np.asarray(read_image(path)))


@pytest.mark.parametrize(
    ("wanted", "shape"),
    [((33, 10), (64, 80)), ((32, 25), (32, 40)), ((20, 26), (64, 80)), ((16, 12), (16, 20)), ((1, 1), (8, 10))],
)
def test_a_reduced_picture_is_at_least_a_quarter_larger_than_wanted(
    tmp_path: Path, wanted: tuple[int, int], shape: tuple[int, int]
) -> None:
    assert EncodedImage(write_photo(tmp_path / "a.jpg")).pixels(wanted).shape == (*shape, 3)


@pytest.mark.parametrize("wanted", [None, (20, 16), (4, 4)])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_cut_off_file_is_found_at_every_size(tmp_path: Path, keep: float, wanted: tuple[int, int] | None) -> None:
    path = write_photo(tmp_path / "a.jpg", quality=95)
    truncate(path, keep)
    with pytest.raises(UnreadableInputError) as caught:
        EncodedImage(path).pixels(wanted)
    assert str(caught.value).startswith(f"{path} cannot be read") and "BytesIO" not in str(caught.value)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "a.jpg")
    whole = EncodedImage(path).pixels()
    path.write_bytes(path.read_bytes() + b"appended by some camera")
    np.testing.assert_array_equal(EncodedImage(path).pixels((4, 4)), whole)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_masks_are_read_value_by_value_and_damage_is_found(tmp_path: Path, mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 151, (64, 80)).astype(np.uint8)
    mask = Image.fromarray(values)
    if mode == "P":
        mask = Image.frombytes("P", mask.size, values.tobytes())
        mask.putpalette(list(range(255, -1, -1)) * 3)
    mask.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), values)
    truncate(tmp_path / "a.png", 0.9)
    with pytest.raises(UnreadableInputError, match="a.png cannot be read"):
        read_mask(tmp_path / "a.png")


def test_a_black_and_white_mask_has_the_values_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    values = read_mask(tmp_path / "a.png")
    assert values.tolist() == [[0, 1]] and values.dtype == np.uint8


def test_values_in_a_gap_of_the_allowed_ones_are_named() -> None:
    allowed = np.array([0, 1, 2, 255])
    for values in ([[0, 1, 2]], [[0, 255]], [[1, 1]], [[255, 2]]):
        check_values(Path("a.png"), np.array(values, np.uint8), allowed, "")
    with pytest.raises(InputError, match=r"a\.png contains the values 3, 254; 0, 1, 2 or 255"):
        check_values(Path("a.png"), np.array([[0, 3, 254, 255]], np.uint8), allowed, "0, 1, 2 or 255")


def test_training_samples_are_close_to_those_of_the_plain_procedure(tmp_path: Path) -> None:
    root = make_pictures(tmp_path, (420, 300), 6, seed=0).root
    # 52 to 208 pixels wide: decoded at a quarter, a half and in full
    train = data.get_dataset("ade20k", root=root, base_size=104, crop_size=96)
    ours, plainly, differences = SeededDataset(train, seed=1), PlainTraining(train, seed=1), []
    for place in [(epoch, index) for epoch in range(5) for index in range(6)]:
        sample, plain = ours[place], plainly[place]
        assert sample["mask"].equal(plain["mask"])
        differences.append(float((sample["image"] - plain["image"]).abs().mean()) * 127.5)
    assert 0 < max(differences) < 2 and min(differences) < 0.05


def test_a_transform_of_somebody_elses_gets_a_pil_image(tmp_path: Path) -> None:
    sizes = []
    options = {"base_size": 20, "crop_size": 16, "transform": lambda image: sizes.append(image.size)}
    data.get_dataset("ade20k", root=make_tree(tmp_path), **options)[0]
    assert sizes == [(16, 16)]


def test_what_a_damaged_picture_would_have_drawn_goes_to_the_next_one(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    truncate(image_path(root, "train", "a0"))
    train = data.get_dataset("ade20k", root=root, base_size=20, crop_size=16, on_bad_image="skip")
    ours = SeededDataset(train, seed=3)
    image, mask = train.sample(1, ours.generator(2, 0))
    item = ours[2, 0]
    assert item["index"] == 1 and item["image"].equal(image) and item["mask"].equal(mask)


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("L", (4, 4)).save(path)
    path.chmod(0)
    root = os.geteuid() == 0  # who may read everything
    if root:
        os.seteuid(65534)  # nobody
    try:
        for read in (read_image, read_mask, EncodedImage):
            with pytest.raises(UnreadableInputError, match=r"mask\.png.*[Pp]ermission"):
                read(path)
    finally:
        if root:
            os.seteuid(0)


def test_a_named_pipe_and_links_in_a_ring_are_named_and_not_waited_for(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "mask.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "ring.png").symlink_to(tmp_path / "ring.png")
    for name in ("pipe.png", "ring.png"):
        for read in (read_image, read_mask, EncodedImage):
            with pytest.raises(UnreadableInputError, match=name):
                read(tmp_path / name)
        (problem,) = size_problems([(tmp_path / "mask.png", tmp_path / name)], "checking")
        assert name in problem
