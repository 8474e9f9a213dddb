"""How a test shows a picture to the network: sizes, windows, scales, mirror images. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lseg_utils.errors import raise_all

if TYPE_CHECKING:
    from encoding_ext.views import Canvas

PROTOCOLS = ("published", "single", "short-side")
SHORT_SIDE = 640  # of CAT-Seg and of most detectron2 configurations
LONGEST = 2560
SIDE_MULTIPLE = 32


@dataclass(frozen=True)
class Look:
    """What a model sees of a picture.

    Attributes:
        base: long side in pixels at scale 1.
        crop: side of the square windows, 2/3 of it apart.
        scales: of the long side; scores are summed over them.
        flip: whether the mirror image is added at each scale.
        short_side: instead of all that, the whole picture once with this short side; None: windows.
    """

    base: int
    crop: int
    scales: tuple[float, ...]
    flip: bool
    short_side: int | None = None

    def __post_init__(self) -> None:
        sizes = {"base size": self.base, "crop size": self.crop, "short side": self.short_side}
        problems = [f"the {name} is {size}; give at least 1" for name, size in sizes.items() if size and size < 1]
        if self.crop % SIDE_MULTIPLE:
            problems.append(f"the crop size is {self.crop}; give a multiple of {SIDE_MULTIPLE}")
        raise_all(problems)

    def describe(self) -> str:
        """For tables and JSON."""
        if self.short_side:
            return f"whole image, short side {self.short_side} (long side at most {LONGEST})"
        scales = " ".join(f"{scale:g}" for scale in self.scales)
        mirrored = "with mirror images" if self.flip else "no mirror images"
        return f"scales {scales}, {mirrored}, windows of {self.crop}, base {self.base}"

    def canvases(self, height: int, width: int) -> list[Canvas]:
        """The views of a picture of this size."""
        from encoding_ext.views import protocol_canvases, whole_canvas

        if self.short_side:
            return [whole_canvas(height, width, self.long_side(height, width), SIDE_MULTIPLE)]
        return protocol_canvases(height, width, self.base, self.crop, self.scales, self.flip)

    def long_side(self, height: int, width: int) -> int:
        """The long side at which ``short_side`` shows a picture of this size."""
        short, long = sorted((height, width))
        return min(round((self.short_side or short) * long / short), LONGEST)


def look_at(protocol: str, dataset: Any, short_side: int = SHORT_SIDE) -> Look:
    """The protocol of this name for a dataset.

    published: what the dataset's description states, else LSeg's (six scales, mirror images). single: scale 1 once.
    """
    published = getattr(dataset, "protocols", {}).get("published")
    if published is not None:
        look = Look(published.base, published.crop, tuple(published.scales), published.flip)
    else:
        from encoding_ext.views import TEST_SCALES

        look = Look(dataset.base_size, dataset.crop_size, TEST_SCALES, True)
    if protocol == "single":
        return Look(look.base, look.crop, (1.0,), False)
    return Look(look.base, look.crop, (1.0,), False, short_side) if protocol == "short-side" else look
