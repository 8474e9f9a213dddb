"""Draw the sample picture of the app and the notebook: sea, sail, lifebuoy, ball and starfish, seen from above.

Its things are labels of the miniature world, so the quickstart's network can name them. The textures are as coarse as
the network sees them; the shapes are sharp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from lseg_utils.cli import Parser
from lseg_utils.errors import run_script
from lseg_utils.pictures import save_picture
from miniature.drawing import Placement, coverage, object_colours, texture
from miniature.world import SIZE

FACTOR = 6  # of the world's own size
BACKGROUND = "water"
THINGS = (
    Placement("white triangle", 19, 20, 13, 0.03),
    Placement("red ring", 47, 17, 9.5, 0),
    Placement("yellow star", 46, 47, 10.5, 0.12),
    Placement("purple circle", 15, 49, 8.5, 0),
)


def draw_sample() -> Image.Image:
    """The picture, 384 x 384."""
    rng, size = np.random.default_rng(4), SIZE * FACTOR
    waves = np.clip(texture(BACKGROUND, SIZE, rng), 0, 255).astype(np.uint8)
    pixels = np.array(Image.fromarray(waves).resize((size, size), Image.Resampling.BICUBIC), np.float32)
    for thing in THINGS:
        place = replace(thing, x=thing.x * FACTOR, y=thing.y * FACTOR, radius=thing.radius * FACTOR)
        pixels += coverage(place, size)[..., None] * (object_colours(place, size, rng) - pixels)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = Parser(__doc__, prog="python -m miniature.sample")
    parser.add_argument("file", type=Path, metavar="FILE", help="write this PNG file")
    save_picture(parser.parse(argv).file, draw_sample())


if __name__ == "__main__":
    run_script(main)
