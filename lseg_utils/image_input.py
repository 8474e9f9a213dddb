"""Every kind of image becomes one tensor: RGB, upright, checked. An ``InputError`` gives the reason if it cannot."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lseg_utils.errors import InputError
from lseg_utils.picture_files import DECODING_ERRORS, open_picture

ImageInput = str | Path | Image.Image | np.ndarray | Tensor

MAX_PIXELS = 100_000_000  # a photo of 100 megapixels takes 300 MB; a bomb takes all there is
WHITE = (255, 255, 255, 255)
_PILLOW_LIMIT = threading.Lock()


def read_rgb(image: ImageInput, max_pixels: int = MAX_PIXELS) -> Tensor:
    """An image as (3, H, W): uint8, or floating in 0..1 for a floating tensor, whose gradients then flow.

    Args:
        image: a file's path; a PIL image of any mode; an array, uint8 or uint16, (H, W, 3) in RGB order (OpenCV reads
            BGR: reverse the last axis), (H, W) grey or (H, W, 4) with alpha; a tensor (3, H, W) or (1, 3, H, W),
            uint8 or floating in 0..1. Files and PIL images are turned upright according to their EXIF data;
            transparent parts become white; 16-bit values are scaled to 8 bits.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        InputError: a missing, empty or damaged file, a folder or named pipe, an image that is too large, an array or
            tensor of another shape, type or range.
    """
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        if not path.is_file():
            if path.is_dir():
                raise InputError(f"{path} is a folder; give an image in it")
            if path.exists():
                raise InputError(f"{path} is not a regular file (a pipe, socket or device?); copy the image to a file")
            raise InputError(f"there is no image {path}")
        if path.stat().st_size == 0:
            raise InputError(f"{image} is empty (0 bytes); fetch it again")
        return _decoded(path, f"the image {image}", max_pixels)
    if isinstance(image, Image.Image):
        return _decoded(image, "the PIL image", max_pixels)
    if isinstance(image, np.ndarray):
        return _from_array(image, max_pixels)
    if isinstance(image, Tensor):
        return _from_tensor(image, max_pixels)
    raise InputError(f"an image is a path, a PIL image, a numpy array or a tensor, not {type(image).__name__}")


def decode_rgb(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Tensor:
    """``read_rgb`` for the content of a file, (3, H, W) uint8; errors call it ``name``."""
    if not data:
        raise InputError(f"{name} is empty (0 bytes); fetch it again")
    return _decoded(io.BytesIO(data), f"the image {name}", max_pixels)


def to_pixels(rgb: Tensor) -> np.ndarray:
    """The result of ``read_rgb`` as uint8 (H, W, 3), for pictures."""
    if rgb.is_floating_point():
        rgb = (rgb.detach() * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(rgb.permute(1, 2, 0).cpu().numpy())


def _decoded(source: Path | BinaryIO | Image.Image, name: str, max_pixels: int) -> Tensor:
    """A file or PIL image, upright, as (3, H, W) uint8."""
    try:
        with _PILLOW_LIMIT, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels  # Pillow's own limit is global
            try:
                picture = source if isinstance(source, Image.Image) else open_picture(source)
                _check_size(name, picture.height, picture.width, max_pixels)
                picture.load()
            finally:
                Image.MAX_IMAGE_PIXELS = before
        pixels = np.array(_to_rgb(ImageOps.exif_transpose(picture)))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(name, str(error), max_pixels)) from None
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image in a format that can be read here, such as PNG or JPEG") from error
    except DECODING_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{name} is damaged or cut off ({reason}); fetch it again") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Mode RGB: 16 bits scaled to 8, transparent parts white."""
    if picture.mode == "F":
        raise InputError("an image of floating-point values has no known range; convert it to 8 bits first")
    if picture.mode.startswith("I"):  # 16 bits, which Pillow opens as I;16, I;16B or I
        values = np.asarray(picture).astype(np.int64)
        _doubt_range("the image of 16 bits", values.astype(np.uint16))
        return Image.fromarray(_to_8_bits(values.clip(0, 65535))).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture).convert("RGB")
    return picture.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


def _from_array(array: np.ndarray, max_pixels: int) -> Tensor:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(
            f"the image array has the shape {array.shape}; it must be (H, W, 3) in RGB order, (H, W) or (H, W, 4)"
        )
    if array.dtype not in (np.uint8, np.uint16):
        found = f" from {array.min():g} to {array.max():g}" if array.dtype.kind == "f" and array.size else ""
        raise InputError(
            f"the image array is {array.dtype}{found}; convert it to uint8 (values 0..1 times 255), "
            "or give a floating tensor (3, H, W) in 0..1"
        )
    _check_size("the image array", *array.shape[:2], max_pixels)
    _doubt_range("the image array", array)
    eight = _to_8_bits(array) if array.dtype == np.uint16 else array
    if eight.ndim == 3 and eight.shape[2] == 3:
        return torch.from_numpy(eight.copy()).permute(2, 0, 1)
    return _decoded(Image.fromarray(eight), "the image array", max_pixels)


def _from_tensor(tensor: Tensor, max_pixels: int) -> Tensor:
    image = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    if image.ndim != 3 or image.shape[0] != 3:
        raise InputError(f"the image tensor has the shape {tuple(tensor.shape)}; it must be (3, H, W) or (1, 3, H, W)")
    _check_size("the image tensor", *image.shape[1:], max_pixels)
    if image.dtype == torch.uint8:
        _doubt_range("the image tensor", image.detach().cpu().numpy())
        return image.clone()  # the caller may overwrite it while the result is in use
    if not image.is_floating_point():
        raise InputError(f"the image tensor is {image.dtype}; it must be uint8, or floating in 0..1")
    low, high = (float(value) for value in image.detach().aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # false for NaN too
        raise InputError(
            f"the image tensor's values range from {low:g} to {high:g}; they must be finite and within 0..1 "
            "(do not normalise with mean and standard deviation: that is done here)"
        )
    return image.float()


def _doubt_range(name: str, values: np.ndarray) -> None:
    """Warn of whole numbers that look like another range than that of their type: the picture would be black."""
    high, bits = int(values.max()), 8 * values.dtype.itemsize
    if high == 1 or 1 < high < 256 < 2**bits:
        warnings.warn(
            f"{name} has values up to {high} where {bits} bits go up to {2**bits - 1}, so it is almost black; "
            + ("multiply values of 0..1 by 255" if high == 1 else "convert it to uint8 if its values are 0..255"),
            stacklevel=4,
        )


def _check_size(name: str, height: int, width: int, max_pixels: int) -> None:
    if not height or not width:
        raise InputError(f"{name} is {width} x {height} pixels, so it is empty")
    if height * width > max_pixels:
        raise InputError(_too_large(name, f"{width} x {height} pixels", max_pixels))


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return (
        f"{name} is too large ({size}; at most {max_pixels:,} pixels are decoded, to guard against files made to fill "
        "the memory); make it smaller. Python code that trusts the image can raise max_pixels"
    )
