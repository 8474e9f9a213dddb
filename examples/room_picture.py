"""The voxel map of the synthetic room, folded flat: the floor in the middle, the walls around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from encoding_ext.label_colours import label_colours as general_colours
from examples.synthetic_room import SIDE
from lseg_utils.named_maps import named_map
from lseg_utils.pictures import sheet
from miniature.names import SYNONYMS
from miniature.pictures import label_colours

if TYPE_CHECKING:
    from examples.voxel_map import VoxelMap

PIXELS = 2  # of a cube


def folded(room: VoxelMap, values: np.ndarray, empty: float) -> np.ndarray:
    """(M,) or (M, 3) values of the cubes -> a map (rows, columns, ...) of the unfolded room, north at the top."""
    places = room.centres.copy()  # metres
    for axis in (0, 1):
        wall = np.abs(places[:, axis]) > SIDE / 2 - 0.5 * room.side
        other = np.abs(places[:, 1 - axis]) > np.abs(places[:, axis])  # in a corner, the other wall's
        wall &= ~other
        places[wall, axis] = np.sign(places[wall, axis]) * (SIDE / 2 + places[wall, 2])
    cells = np.rint(places[:, :2] / room.side).astype(int)
    cells -= cells.min(0)
    columns, rows = cells.max(0) + 1
    flat = np.full((rows, columns, *values.shape[1:]), empty, values.dtype)
    flat[rows - 1 - cells[:, 1], cells[:, 0]] = values
    return flat


def word_colours(words: Sequence[str]) -> np.ndarray:
    """Colours (N, 3): those of the quickstart's world for its own words, any others for the rest."""
    own = {*SYNONYMS, *SYNONYMS.values()}
    general = general_colours(words)
    for number, word in enumerate(words):
        if set(word.split()) <= own:
            general[number] = label_colours([word])[0]
    return general


def map_picture(room: VoxelMap, asked: Sequence[str], cosines: np.ndarray, words: Sequence[str]) -> Image.Image:
    """Colours of the map, its best words, and the cosine with the first word."""
    colours = folded(room, (room.colours / room.counts[:, None]).astype(np.uint8), 255)
    best = named_map(folded(room, cosines.argmax(1), -1), word_colours(asked), asked, PIXELS, text_size=11)
    heat = folded(room, cosines[:, asked.index(words[0])], -1.0).clip(0, 1)
    shades = (255 * np.stack([heat, heat**2, 0.3 * heat], -1)).astype(np.uint8)
    side = best.width
    pictures = [Image.fromarray(one).resize(best.size, Image.Resampling.NEAREST) for one in (colours, shades)]
    titles = ["the map: mean colour of each cube", "the best word of each cube", f"cosine with '{words[0]}'"]
    return sheet([[pictures[0], best, pictures[1]]], titles, cell=(side, best.height))
