"""A room that is drawn with numpy: pictures, depth and poses of a camera that turns in it, and what is really there.

Its walls are pictures of the quickstart's world, so that the network of the quickstart understands them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from miniature.drawing import Placement, draw_scene

SIDE, HEIGHT = 4.0, 2.25  # metres; the origin is the middle of the floor, z points up
PER_METRE = 28  # pixels of a wall's picture: at 2 m, textures and shapes are as large as in the quickstart's pictures
EYE = np.array([0.0, 0.0, 1.1])  # where the camera turns
SIZE, FOCAL = 128, 110.0  # its pictures: 128x128 pixels, focal length in pixels
INTRINSICS = np.array([[FOCAL, 0, (SIZE - 1) / 2], [0, FOCAL, (SIZE - 1) / 2], [0, 0, 1]])
# surface -> (texture, [(label, metres to the right, metres above the floor)]); a floor has no shapes
SURFACES = {
    "floor": ("grass", []),
    "east": ("brick", [("red circle", 1.0, 1.3), ("yellow star", 2.2, 0.8), ("green square", 3.2, 1.4)]),
    "north": ("sand", [("blue cross", 1.1, 0.8), ("purple triangle", 2.8, 1.3)]),
    "west": ("brick", [("white ring", 0.9, 0.9), ("green circle", 2.0, 1.5), ("purple square", 3.1, 0.9)]),
    "south": ("water", [("red star", 1.2, 1.3), ("yellow circle", 2.7, 0.9)]),
}


def surfaces() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Each surface's corner in metres, unit vectors right and down, picture uint8 (h, w, 3), labels int (h, w)."""
    half, found = SIDE / 2, []
    for number, (name, (texture, shapes)) in enumerate(SURFACES.items()):
        pixels, rng = round(SIDE * PER_METRE), np.random.default_rng(number)
        places = [
            Placement(label, right * PER_METRE, (HEIGHT - up) * PER_METRE, 0.38 * PER_METRE, 0.0)
            for label, right, up in shapes
        ]
        picture, mask = draw_scene(texture, places, pixels, rng)
        corner, right, down, rows = np.array([-half, half, 0]), np.array([1, 0, 0]), np.array([0, -1, 0]), pixels
        if name != "floor":
            angle = (number - 1) * np.pi / 2  # east, north, west, south
            out, right = np.array([np.cos(angle), np.sin(angle), 0]), np.array([np.sin(angle), -np.cos(angle), 0])
            corner, down, rows = half * (out - right) + [0, 0, HEIGHT], np.array([0, 0, -1]), round(HEIGHT * PER_METRE)
        found.append((corner, right, down, picture[:rows], mask[:rows].astype(int) - 1))
    return found


def pose(turn: float, tilt: float) -> np.ndarray:
    """Camera to world (4, 4): x right, y down, z forward in the picture; ``turn`` to the left, ``tilt`` downwards."""
    forward = np.array([np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), -np.sin(tilt)])
    right = np.array([np.sin(turn), -np.cos(turn), 0])
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(forward, right), forward, EYE], axis=1)
    return matrix


def render(camera: np.ndarray, room: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the camera sees: uint8 (H, W, 3), depth in metres (H, W; along the camera's z), true labels (H, W)."""
    ys, xs = np.mgrid[:SIZE, :SIZE]
    rays = np.stack([xs, ys, np.ones_like(xs)], -1) @ np.linalg.inv(INTRINSICS).T @ camera[:3, :3].T  # z component 1
    image, depth = np.zeros((SIZE, SIZE, 3), np.uint8), np.full((SIZE, SIZE), np.inf)
    labels = np.full((SIZE, SIZE), -1)
    for corner, right, down, picture, mask in room:
        normal = np.cross(right, down)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (corner - EYE) @ normal / (rays @ normal)
            place = EYE + rays * distance[..., None] - corner
            row, column = (np.floor(place @ axis * PER_METRE) for axis in (down, right))
        rows, columns = mask.shape
        seen = (distance > 0) & (distance < depth) & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        where = row[seen].astype(int), column[seen].astype(int)
        image[seen], labels[seen], depth[seen] = picture[where], mask[where], distance[seen]
    depth[np.isinf(depth)] = 0  # the open ceiling: 0 as depth cameras report what they cannot see
    return image, depth, labels


def frames(count: int = 24) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """(picture, depth, pose, true labels) while the camera turns around, now and then looking down."""
    room = surfaces()
    for number in range(count):
        camera = pose(2 * np.pi * number / count, (0.0, 0.45)[number % 2])
        image, depth, labels = render(camera, room)
        yield image, depth, camera, labels


def textures() -> list[str]:
    """What floor and walls are made of."""
    return list(dict.fromkeys(texture for texture, _ in SURFACES.values()))


def words() -> list[str]:
    """What is in the room: shapes, then textures."""
    return [label for _, shapes in SURFACES.values() for label, *_ in shapes] + textures()
