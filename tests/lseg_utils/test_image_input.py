"""Whatever is called an image: every kind is read alike, and what cannot be used is refused with its name."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lseg_utils.errors import InputError
from lseg_utils.image_input import decode_rgb, read_rgb, to_pixels
from lseg_utils.picture_files import DECODING_ERRORS, open_picture

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_file_pil_array_and_tensor_give_the_same_pixels(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(RGB).save(path)
    tensor = torch.from_numpy(RGB).permute(2, 0, 1)
    for image in (path, str(path), Image.fromarray(RGB), RGB, tensor, tensor[None], tensor.float() / 255):
        rgb = read_rgb(image)
        assert rgb.shape == (3, 5, 7)
        np.testing.assert_array_equal(to_pixels(rgb), RGB)


def test_the_array_handed_in_is_not_shared():
    mine = RGB.copy()
    rgb = read_rgb(mine)
    mine[:] = 0
    np.testing.assert_array_equal(to_pixels(rgb), RGB)


@pytest.mark.parametrize(
    "orientation, turned", [(1, RGB), (3, RGB[::-1, ::-1]), (6, np.rot90(RGB, -1)), (8, np.rot90(RGB))]
)
def test_exif_orientation_is_honoured(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(to_pixels(read_rgb(tmp_path / "turned.png")), turned)


def test_grey_alpha_palette_and_sixteen_bits(tmp_path):
    grey = np.array([[0, 128, 255]], np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=2)
    sixteen = grey.astype(np.uint16) * 257
    Image.fromarray(sixteen).save(tmp_path / "sixteen.png")
    palette = Image.fromarray(expected).quantize(3)
    for image in (Image.fromarray(grey), grey, sixteen, tmp_path / "sixteen.png", palette, Image.fromarray(expected)):
        np.testing.assert_array_equal(to_pixels(read_rgb(image)), expected)


def test_what_is_transparent_is_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    expected = [[[10, 20, 30], [255, 255, 255]]]
    assert to_pixels(read_rgb(rgba)).tolist() == expected
    assert to_pixels(read_rgb(Image.fromarray(rgba))).tolist() == expected


def test_gradients_reach_a_floating_tensor():
    image = torch.rand(3, 4, 4, requires_grad=True)
    read_rgb(image).sum().backward()
    assert image.grad is not None and image.grad.eq(1).all()


@pytest.mark.parametrize("shape", [(1, 1), (20000, 1), (1, 20000)])
def test_extreme_proportions(shape):
    assert read_rgb(Image.new("RGB", shape)).shape == (3, shape[1], shape[0])


def bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def damaged_files(folder) -> dict[str, str]:
    """File name -> what the message must say beside it."""
    Image.fromarray(np.repeat(np.repeat(RGB, 40, 0), 40, 1)).save(folder / "whole.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:1500])
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.jpg").write_text("no picture at all")
    (folder / "bomb15k.png").write_bytes(bomb(15_000))  # beyond Pillow's warning
    (folder / "bomb60k.png").write_bytes(bomb(60_000))  # beyond its error
    (folder / "folder.png").mkdir()
    return {
        "cut.jpg": "damaged or cut off",
        "empty.png": "0 bytes",
        "notes.jpg": "not an image",
        "bomb15k.png": "max_pixels",
        "bomb60k.png": "max_pixels",
        "folder.png": "is a folder",
        "missing.png": "no image",
    }


def test_files_that_cannot_be_used_are_named(tmp_path):
    for name, reason in damaged_files(tmp_path).items():
        with pytest.raises(InputError) as refusal:
            read_rgb(tmp_path / name)
        assert name in str(refusal.value) and reason in str(refusal.value)


def test_the_content_of_a_file_is_read_as_the_file_is(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "picture.png")
    data = (tmp_path / "picture.png").read_bytes()
    np.testing.assert_array_equal(to_pixels(decode_rgb(data, "mine.png")), RGB)
    for name, reason in damaged_files(tmp_path).items():
        if (tmp_path / name).is_file():
            with pytest.raises(InputError) as refusal:
                decode_rgb((tmp_path / name).read_bytes(), f"my {name}")
            assert f"my {name}" in str(refusal.value) and reason in str(refusal.value)
    with pytest.raises(InputError, match="mine.png is too large.*at most 34 pixels"):
        decode_rgb(data, "mine.png", max_pixels=34)


def test_max_pixels_is_a_choice(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match="20 x 10"):
        read_rgb(tmp_path / "small.png", max_pixels=199)
    before = Image.MAX_IMAGE_PIXELS
    assert read_rgb(tmp_path / "small.png", max_pixels=200).shape == (3, 10, 20)
    assert before == Image.MAX_IMAGE_PIXELS
    for large in (Image.new("RGB", (20, 10)), np.zeros((10, 20, 3), np.uint8), torch.zeros(3, 10, 20)):
        with pytest.raises(InputError, match="max_pixels"):
            read_rgb(large, max_pixels=199)


@pytest.mark.parametrize(
    "image, reason",
    [
        (np.full((4, 4, 3), 0.5), "float64 from 0.5 to 0.5"),
        (np.full((4, 4, 3), np.nan, np.float32), "float32 from nan"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((3, 5, 6), np.uint8), r"\(3, 5, 6\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "4 x 0 pixels"),
        (torch.full((3, 4, 4), torch.nan), "nan"),
        (torch.full((3, 4, 4), torch.inf), "inf"),
        (torch.full((3, 4, 4), 200.0), "200"),
        (torch.full((3, 4, 4), -2.0), "within 0..1"),
        (torch.zeros(4, 4, 3), r"\(4, 4, 3\)"),
        (torch.zeros(2, 3, 4, 4), r"\(2, 3, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "int64"),
        (Image.new("F", (3, 3)), "floating-point"),
        (None, "NoneType"),
        ([1, 2], "list"),
    ],
)
def test_values_that_cannot_be_used_are_named(image, reason):
    with pytest.raises(InputError, match=reason):
        read_rgb(image)


def test_only_regular_files_are_opened_and_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "ring.png").symlink_to(tmp_path / "gnir.png")
    (tmp_path / "gnir.png").symlink_to(tmp_path / "ring.png")
    for name in ("pipe.png", "ring.png"):
        with pytest.raises(InputError, match=name):
            read_rgb(tmp_path / name)
        with pytest.raises(DECODING_ERRORS, match=name):
            open_picture(tmp_path / name)
