"""Draws the miniature world: four textures, six shapes in six colours, anti-aliased, with exact masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from miniature.names import LABELS, TEXTURES

SUPERSAMPLING = 4  # shapes are drawn this many times larger and averaged down

COLOUR_RGB = {
    "red": (222, 38, 42),
    "yellow": (248, 216, 32),
    "green": (30, 190, 62),
    "blue": (34, 78, 232),
    "purple": (168, 48, 200),
    "white": (244, 244, 244),
}


@dataclass(frozen=True)
class Placement:
    """One object: label such as 'red circle', centre and radius in pixels, rotation in radians."""

    label: str
    x: float
    y: float
    radius: float
    angle: float


def shape_polygons(shape: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Outline (P, 2) and hole (Q, 2) or None of a shape around the origin, y downwards, about one unit in radius."""
    if shape == "circle":
        return _regular(40, 1.0), None
    if shape == "ring":
        return _regular(40, 1.08), _regular(40, 0.55)
    if shape == "square":
        return 0.88 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=float), None
    if shape == "triangle":
        return _regular(3, 1.25) + (0, 0.15), None
    if shape == "star":
        points = _regular(10, 1.25)
        points[1::2] *= 0.46
        return points, None
    if shape == "cross":
        arm, reach = 0.38, 1.12
        return np.array(
            [
                (-arm, -reach),
                (arm, -reach),
                (arm, -arm),
                (reach, -arm),
                (reach, arm),
                (arm, arm),
                (arm, reach),
                (-arm, reach),
                (-arm, arm),
                (-reach, arm),
                (-reach, -arm),
                (-arm, -arm),
            ]
        ), None
    raise KeyError(f"no shape {shape!r}")


def _regular(corners: int, radius: float) -> np.ndarray:
    """Corners of a regular polygon, the first one on top."""
    angles = 2 * np.pi * np.arange(corners) / corners
    return radius * np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def coverage(place: Placement, size: int) -> np.ndarray:
    """The share of each pixel that the object covers, float32 (size, size) in 0..1."""
    cos, sin = np.cos(place.angle), np.sin(place.angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    canvas = Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for points, value in zip(shape_polygons(place.label.split()[1]), (255, 0), strict=True):
        if points is not None:
            corners = (points @ turn * place.radius + (place.x, place.y)) * SUPERSAMPLING
            draw.polygon([tuple(corner) for corner in corners], fill=value)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def object_colours(place: Placement, size: int, rng: np.random.Generator) -> np.ndarray:
    """The object's colour at every pixel, float32 (size, size, 3): jittered and lit from a random side."""
    colour = np.array(COLOUR_RGB[place.label.split()[0]], dtype=np.float32) + rng.uniform(-10, 10, 3)
    light = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[:size, :size]
    slope = ((xs - place.x) * np.cos(light) + (ys - place.y) * np.sin(light)) / place.radius
    shading = rng.uniform(0.9, 1.0) + 0.09 * np.clip(slope, -1.2, 1.2)
    return (colour * shading[..., None]).astype(np.float32)


def texture(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """A background, float32 (size, size, 3) in about 0..255; duller than any object's colour."""
    ys, xs = np.mgrid[:size, :size].astype(np.float32)
    noise = rng.standard_normal((size, size)).astype(np.float32)
    if name == "grass":  # blades: noise smeared upwards
        blades = sum(np.roll(noise, step, axis=0) for step in range(6)) / 6**0.5
        pixels = np.array((78, 100, 48)) + 15 * blades[..., None] * np.array((1, 1.1, 0.6))
    elif name == "sand":  # dunes: grains and a faint slow swell
        swell = np.sin((xs * rng.uniform(-0.5, 0.5) + ys) / rng.uniform(5, 8) + rng.uniform(0, 6.3))
        pixels = np.array((196, 170, 124)) + 9 * noise[..., None] + 6 * swell[..., None]
    elif name == "water":  # horizontal waves whose phase wanders
        phase = 1.6 * np.sin(xs / rng.uniform(4, 7) + rng.uniform(0, 6.3)) + rng.uniform(0, 6.3)
        waves = np.sin(ys * 2 * np.pi / rng.uniform(5.5, 7.5) + phase)
        pixels = np.array((62, 118, 138)) + 22 * waves[..., None] * np.array((1, 0.9, 0.8)) + 3 * noise[..., None]
    elif name == "brick":
        pixels = _bricks(xs + rng.integers(0, 12), ys + rng.integers(0, 12)) + 5 * noise[..., None]
    else:
        raise KeyError(f"no texture {name!r}")
    return (pixels * rng.uniform(0.9, 1.1)).astype(np.float32)


def _bricks(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Running bond: rows 6 pixels high, bricks 12 wide, every other row shifted by half a brick."""
    row = ys // 6
    mortar = (ys % 6 < 1) | ((xs + 6 * (row % 2)) % 12 < 1)
    return np.where(mortar[..., None], np.array((176, 168, 158)), np.array((128, 72, 58)))


def draw_scene(
    background: str, objects: list[Placement], size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw objects over a texture, later ones in front.

    Returns the image, uint8 (size, size, 3), and the mask, uint8 (size, size) of values 1..40: a pixel belongs to
    the frontmost thing that covers at least half of it.
    """
    pixels = texture(background, size, rng)
    mask = np.full((size, size), LABELS.index(background) + 1, dtype=np.uint8)
    for place in objects:
        share = coverage(place, size)
        pixels += share[..., None] * (object_colours(place, size, rng) - pixels)
        mask[share >= 0.5] = LABELS.index(place.label) + 1
    pixels += rng.normal(0, 3, pixels.shape)  # the grain of a sensor, the same on everything
    return np.clip(pixels, 0, 255).round().astype(np.uint8), mask


def draw_single(label: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """One label alone, uint8 (size, size, 3): an object large on a random texture, or a texture with nothing on it."""
    if label in TEXTURES:
        return draw_scene(label, [], size, rng)[0]
    radius = size * rng.uniform(0.28, 0.38)
    x, y = size / 2 + rng.uniform(-0.06, 0.06, 2) * size
    place = Placement(label, x, y, radius, random_angle(rng))
    return draw_scene(str(rng.choice(TEXTURES)), [place], size, rng)[0]


def random_angle(rng: np.random.Generator) -> float:
    """A slight rotation, at most 15 degrees: more would make a square a diamond, a cross an x."""
    return float(rng.uniform(-1, 1) * np.pi / 12)
