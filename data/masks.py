"""Masks in every format of the descriptions: a file becomes numbers, and a table turns the numbers into labels."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from data.description_parts import Masks
from data.pairs import MASK_SUFFIXES
from data.reading import VALUES_SHOWN, open_picture, read_mask
from lseg_utils import picture_files
from lseg_utils.errors import InputError, few
from lseg_utils.picture_files import DECODING_ERRORS

UNDECLARED = -2
OTHER_SUFFIXES = {"polygons": (".json",), "mat": (".mat",)}
PALETTE_AND_GREY = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


class MaskReader:
    """Reads the masks of a dataset.

    Args:
        masks: what the numbers mean.
        indices: the label indices that count, in the order of the labels in use; the others are unlabelled.
        name: of the dataset, for messages.
    """

    def __init__(self, masks: Masks, indices: tuple[int, ...], name: str) -> None:
        self.masks, self.indices, self.name = masks, indices, name
        self.suffixes = OTHER_SUFFIXES.get(masks.coding, MASK_SUFFIXES)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_table"}  # made again where it is needed

    @cached_property
    def _table(self) -> np.ndarray:
        """Number -> label + 1, 0 for unlabelled, ``UNDECLARED``; as long as the values of its kind of picture."""
        numbers = self.masks.table
        longest = max(len(self.masks.texts), *numbers)
        length = next(size for size in (2**8, 2**16, 2**24, longest + 1) if longest < size)
        others = UNDECLARED if self.masks.others is None else self.masks.others + 1
        table = np.full(length, others, np.int16 if len(self.indices) < 2**15 - 1 else np.int32)
        place = {index: position + 1 for position, index in enumerate(self.indices)}
        for number, index in numbers.items():
            table[number] = place.get(index, 0)
        if self.masks.coding == "polygons":
            table[len(self.masks.texts)] = 0  # what no polygon covers
        return table

    def target(self, path: Path, segments: dict[int, int] | None = None) -> np.ndarray:
        """A mask, (h, w): label + 1, and 0 for unlabelled; uint8 for up to 255 labels, else int32.

        segments: of a panoptic mask, see :func:`read_segments`. Raises ``InputError`` with the file for numbers that
        the description does not declare.
        """
        numbers, table = self.numbers(path, segments), self._table
        if numbers.dtype not in (np.uint8, np.uint16) or np.iinfo(numbers.dtype).max >= len(table):
            outside = (numbers < 0) | (numbers >= len(table))
            if outside.any():
                if self.masks.others is None:
                    raise InputError(self.undeclared(path, numbers))
                numbers = np.where(outside, 0, numbers)
                labels = table[numbers]
                labels[outside] = self.masks.others + 1
                return self._narrow(labels)
        labels = table[numbers]
        if labels.min() == UNDECLARED:
            raise InputError(self.undeclared(path, numbers))
        return self._narrow(labels)

    def _narrow(self, labels: np.ndarray) -> np.ndarray:
        return labels.astype(np.uint8 if len(self.indices) < 256 else np.int32)

    def numbers(self, path: Path, segments: dict[int, int] | None = None) -> np.ndarray:
        """The numbers of a mask as the file has them, whole (h, w); of colours 65536 r + 256 g + b."""
        coding = self.masks.coding
        if coding == "polygons":
            return self._drawn(path)
        if coding == "mat":
            return _matlab_array(path, self.masks.variable)
        if coding == "values":
            return read_mask(path)
        with open_picture(path) as picture:
            if coding != "colours" and picture.mode not in ("RGB", "RGBA"):
                raise InputError(f"{path} is an image of mode {picture.mode}; a mask of coding {coding} is RGB")
            red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB"), np.int32), 2, 0)
        if coding == "colours":
            return red << 16 | green << 8 | blue
        if coding == "ade_full":
            return red // 10 * 256 + green
        # Panoptic: each segment has its own number, and the JSON file gives its category; 0 means no segment.
        found, inverse = np.unique(red + (green << 8) + (blue << 16), return_inverse=True)
        unknown = [int(segment) for segment in found if segment and int(segment) not in (segments or {})]
        if unknown:
            text = few(list(map(str, unknown)), VALUES_SHOWN)
            raise InputError(f"{path} contains the segments {text}, which its JSON file does not list")
        categories = np.array([(segments or {}).get(int(segment), 0) for segment in found], np.int32)
        return categories[inverse].reshape(red.shape)

    def undeclared(self, path: Path, numbers: np.ndarray) -> str:
        """A sentence with the numbers that the description does not declare, and how many pixels have them."""
        found, counts = np.unique(numbers, return_counts=True)
        declared = np.isin(found, list(self.masks.table))
        outside = [
            f"{self.shown(int(n))} ({count:,} pixel{'s' * (count != 1)})"
            for n, count in zip(found[~declared], counts[~declared].tolist())
        ]
        kind = "colours" if self.masks.coding == "colours" else "values"
        return (
            f"{path} contains the {kind} {few(outside, VALUES_SHOWN)}, which {self.name} does not declare "
            f"({self._declared()}). Correct the file, or add them to the description: to labels, or to ignore"
        )

    def _declared(self) -> str:
        """The declared numbers in a few words."""
        numbers = sorted(self.masks.table)
        runs: list[list[int]] = []
        for number in numbers:
            if runs and number == runs[-1][-1] + 1:
                runs[-1][1:] = [number]
            else:
                runs.append([number])
        texts = ["..".join(self.shown(number) for number in run) for run in runs]
        return few(texts, VALUES_SHOWN)

    def shown(self, number: int) -> str:
        """A number as the description writes it."""
        if self.masks.coding == "polygons":
            return next((text for text, own in self.masks.texts.items() if own == number), str(number))
        return f"#{number:06x}" if self.masks.coding == "colours" else str(number)

    def header_problem(self, path: Path) -> tuple[tuple[int, int] | None, str]:
        """The size (width, height) of a mask, if its header tells it, and a sentence if its kind cannot be right."""
        if self.masks.coding in OTHER_SUFFIXES:
            return None, ""
        try:
            with picture_files.open_picture(path) as picture:
                size, mode = picture.size, picture.mode
        except DECODING_ERRORS as error:
            return None, f"{path} is not a readable image ({error})"
        if self.masks.coding == "values" and mode not in PALETTE_AND_GREY:
            advice = "give the colours in the description (mask: colours:)"
            return size, f"{path} is an image of mode {mode}, but its values are declared as numbers; {advice}"
        if self.masks.coding in ("ade_full", "panoptic") and mode not in ("RGB", "RGBA"):
            return size, f"{path} is an image of mode {mode}; a mask of coding {self.masks.coding} is RGB"
        return size, ""

    def _drawn(self, path: Path) -> np.ndarray:
        """The polygons of a file of Cityscapes or IDD, later ones over earlier ones."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            uncovered = len(self.masks.texts)
            canvas = Image.new("I", (content["imgWidth"], content["imgHeight"]), uncovered)
            draw = ImageDraw.Draw(canvas)
            for shape in content["objects"]:
                points = [(x, y) for x, y in shape["polygon"]]
                name = shape["label"]
                number = self.masks.texts.get(name, self.masks.texts.get(name.removesuffix("group")))
                if number is None and self.masks.others is None:
                    raise InputError(
                        f"{path} contains polygons of {name!r}, which {self.name} does not declare; add it to the "
                        f"description: to labels, or to ignore"
                    )
                if len(points) > 1 and not shape.get("deleted"):
                    draw.polygon(points, fill=uncovered if number is None else number)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            text = f"is not a file of polygons ({type(error).__name__}: {error}); download it again"
            raise InputError(f"{path} {text}") from error
        return np.asarray(canvas)


def missing_package(masks: Masks, name: str) -> str:
    """A sentence if the masks of dataset ``name`` need a package that is not installed."""
    if masks.coding != "mat" or find_spec("scipy"):
        return ""
    return f"reading the masks of {name} (MATLAB files) needs scipy; run `pip install -r requirements-extras.txt`"


def _matlab_array(path: Path, variable: str) -> np.ndarray:
    from scipy.io import loadmat  # ``missing_package`` has looked

    try:
        array = loadmat(path, variable_names=[variable])[variable]
    except KeyError as error:
        raise InputError(f"{path} has no array {variable!r}; give its name as variable: below mask") from error
    except Exception as error:  # whatever a damaged file makes scipy raise
        raise InputError(f"{path} cannot be read ({error}); download it again") from error
    if array.ndim != 2 or array.dtype.kind not in "ui":
        raise InputError(
            f"{variable} of {path} is {array.dtype} of shape {array.shape}; a mask is whole numbers (h, w)"
        )
    return array


@lru_cache(maxsize=4)
def read_segments(path: Path) -> dict[str, dict[int, int]]:
    """A panoptic JSON file in COCO's format: mask file name -> segment -> category."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            image["file_name"]: {segment["id"]: segment["category_id"] for segment in image["segments_info"]}
            for image in content["annotations"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} is not a panoptic JSON file ({text}); download it again") from error
