"""Read posed RGB-D frames from a folder that looks like ScanNet's, for ``VoxelMap.add``.

color/NAME.jpg or .png          of any size, with the same view as the depth
depth/NAME.png                  16 bits, millimetres, 0 where unknown
pose/NAME.txt                   4 x 4, camera to world
intrinsic/intrinsic_depth.txt   3 x 3 or 4 x 4, of the depth pictures
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lseg_utils.errors import InputError, few

Frame = tuple[np.ndarray, np.ndarray, np.ndarray]


def read_scan(folder: str | Path, every: int = 1, per_metre: float = 1000.0) -> tuple[Iterator[Frame], np.ndarray]:
    """The frames of a folder, one of ``every``, and the intrinsics (3, 3).

    A frame is a picture uint8 (H, W, 3) in the depth's size, depth float (H, W) in metres, and a pose (4, 4). Frames
    whose pose is not finite are left out: so ScanNet marks those for which it has none. ``per_metre``: units of depth
    (1000: millimetres; TUM's recordings have 5000). ``InputError`` names missing files before the first frame.
    """
    folder = Path(folder)
    intrinsics = folder / "intrinsic" / "intrinsic_depth.txt"
    pictures = sorted(path for path in folder.glob("color/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    problems = [] if pictures else [f"{folder / 'color'} has no .jpg or .png pictures"]
    problems += [] if intrinsics.is_file() else [f"{intrinsics} is missing; write the camera's matrix to it"]
    for kind, suffix in (("depth", ".png"), ("pose", ".txt")):
        missing = [path.stem for path in pictures if not (folder / kind / f"{path.stem}{suffix}").is_file()]
        if missing:
            problems.append(f"{folder / kind} lacks the {suffix} files of {few(missing)}; remove these pictures")
    if problems:
        raise InputError("\n".join(problems))
    return _frames(folder, pictures[::every], per_metre), np.loadtxt(intrinsics)[:3, :3]


def _frames(folder: Path, pictures: list[Path], per_metre: float) -> Iterator[Frame]:
    """Read one frame after the other."""
    for path in pictures:
        pose = np.loadtxt(folder / "pose" / f"{path.stem}.txt")
        if not np.isfinite(pose).all():
            continue
        depth = np.asarray(Image.open(folder / "depth" / f"{path.stem}.png"))
        image = Image.open(path).convert("RGB").resize(depth.shape[::-1])
        yield np.asarray(image), depth / per_metre, pose
