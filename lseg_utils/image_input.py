"""Whatever is called an image becomes one tensor: RGB, upright, checked; or an ``InputError`` says why not."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lseg_utils.errors import InputError

ImageInput = str | Path | Image.Image | np.ndarray | Tensor

MAX_PIXELS = 100_000_000  # a photo of 100 megapixels takes 300 MB; a bomb takes all there is
WHITE = (255, 255, 255, 255)
_PILLOW_LIMIT = threading.Lock()


def read_rgb(image: ImageInput, max_pixels: int = MAX_PIXELS) -> Tensor:
    """An image as (3, H, W): uint8, or floating in 0..1 for a floating tensor, whose gradients then flow.

    Args:
        image: a file's path; a PIL image of any mode; an array, uint8 or uint16, (H, W, 3) in RGB order (OpenCV reads
            BGR: reverse its last axis), (H, W) grey or (H, W, 4) with alpha; a tensor (3, H, W) or (1, 3, H, W),
            uint8 or floating in 0..1. Files and PIL images are turned upright as their EXIF data says; what is
            transparent shows white; 16-bit values are scaled to 8 bits.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        InputError: no such file, no image, damaged, too large, empty, or an array of another kind.
    """
    if isinstance(image, str | Path):
        path = _checked(Path(image).expanduser())
        return _from_file(path, path.stat().st_size, str(image), max_pixels)
    if isinstance(image, Image.Image):
        return _from_pil(image, "the PIL image", max_pixels)
    if isinstance(image, np.ndarray):
        return _from_array(image, max_pixels)
    if isinstance(image, Tensor):
        return _from_tensor(image, max_pixels)
    raise InputError(f"an image is a path, a PIL image, a numpy array or a tensor, not {type(image).__name__}")


def decode_rgb(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Tensor:
    """What ``read_rgb`` makes of a file with this content, (3, H, W) uint8; errors call it ``name``."""
    return _from_file(io.BytesIO(data), len(data), name, max_pixels)


def to_pixels(rgb: Tensor) -> np.ndarray:
    """What ``read_rgb`` returned as uint8 (H, W, 3), for pictures."""
    if rgb.is_floating_point():
        rgb = (rgb.detach() * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(rgb.permute(1, 2, 0).cpu().numpy())


# ------------------------------------------------------------------------------------------------------- files, PIL


def _checked(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"there is no image {path}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name an image in it")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file (a pipe, socket or device?); copy the image to a file")
    return path


def _from_file(file: Path | BinaryIO, size: int, name: str, max_pixels: int) -> Tensor:
    """``size``: in bytes."""
    if size == 0:
        raise InputError(f"{name} is empty (0 bytes); fetch it again")
    try:
        with _pillow_limit(max_pixels):
            picture = Image.open(file, formats=_safe_formats())
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(f"the image {name}", str(error), max_pixels)) from None
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image that can be read here; PNG, JPEG and WebP can") from error
    except Exception as error:  # Pillow's readers raise anything
        raise InputError(f"{name} is not an image that Pillow can read ({_first_line(error)})") from error
    return _from_pil(picture, f"the image {name}", max_pixels)


def _safe_formats() -> list[str]:
    """All that Pillow reads by itself: PostScript would be run by another program, whatever it does there."""
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]


def _from_pil(picture: Image.Image, name: str, max_pixels: int) -> Tensor:
    _check_size(name, picture.height, picture.width, max_pixels)
    try:
        with _pillow_limit(max_pixels):
            picture.load()
        upright = ImageOps.exif_transpose(picture)
        pixels = np.array(_to_rgb(upright))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} is damaged or cut off ({_first_line(error)}); fetch it again") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Mode RGB: 16 bits scaled to 8, transparent parts white."""
    if picture.mode == "F":
        raise InputError("an image of floating-point values has no known range; convert it to 8 bits first")
    if picture.mode.startswith("I"):  # 16 bits, which Pillow opens as I;16, I;16B or I
        values = np.asarray(picture).astype(np.int64)
        return Image.fromarray(_to_8_bits(values.clip(0, 65535))).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture).convert("RGB")
    return picture.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Pillow's own limit against bombs, which is global, replaced by ours while a file is opened."""
    with _PILLOW_LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# -------------------------------------------------------------------------------------------------- arrays, tensors


def _from_array(array: np.ndarray, max_pixels: int) -> Tensor:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(
            f"the image array has the shape {array.shape}; it must be (H, W, 3) in RGB order, (H, W) or (H, W, 4)"
        )
    if array.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"the image array holds {array.dtype}{_value_range(array)}; convert it to uint8 (values 0..1 times 255), "
            "or give a floating tensor (3, H, W) in 0..1"
        )
    _check_size("the image array", *array.shape[:2], max_pixels)
    eight = _to_8_bits(array) if array.dtype == np.uint16 else array
    if eight.ndim == 3 and eight.shape[2] == 3:
        return torch.from_numpy(eight.copy()).permute(2, 0, 1)
    return _from_pil(Image.fromarray(eight), "the image array", max_pixels)


def _from_tensor(tensor: Tensor, max_pixels: int) -> Tensor:
    image = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    if image.ndim != 3 or image.shape[0] != 3:
        raise InputError(f"the image tensor has the shape {tuple(tensor.shape)}; it must be (3, H, W) or (1, 3, H, W)")
    _check_size("the image tensor", *image.shape[1:], max_pixels)
    if image.dtype == torch.uint8:
        return image.clone()  # the caller may fill it anew while the result is in use
    if not image.is_floating_point():
        raise InputError(f"the image tensor holds {image.dtype}; it must be uint8, or floating in 0..1")
    low, high = (float(value) for value in image.detach().aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # false for NaN too
        raise InputError(
            f"the image tensor's values reach from {low:g} to {high:g}; they must be finite and within 0..1 "
            "(not normalised with mean and deviation: that is done here)"
        )
    return image.float()


def _value_range(array: np.ndarray) -> str:
    if array.dtype.kind != "f" or not array.size:
        return ""
    return f" from {array.min():g} to {array.max():g}"


def _check_size(name: str, height: int, width: int, max_pixels: int) -> None:
    if not height or not width:
        raise InputError(f"{name} is {width} x {height} pixels: there is nothing in it")
    if height * width > max_pixels:
        raise InputError(_too_large(name, f"{width} x {height} pixels", max_pixels))


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return (
        f"{name} is too large ({size}; at most {max_pixels:,} pixels are decoded, against files that are made to fill "
        "the memory); make it smaller. Python code that trusts it can raise max_pixels"
    )
