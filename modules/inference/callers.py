"""Pixel embeddings exactly as other projects compute them: sizes, padding, order of norm and x2, mirror images, means.

Legend: H x W the image; h x w the image at one size; C embedding dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext.views import protocol_canvases, scaled_size
from lseg_utils.errors import InputError
from lseg_utils.image_input import to_pixels

from ..models.head import LOGIT_SCALE
from ..models.precision import full_precision
from ..models.upsampling import upsample_x2
from .image_tower import ImageTower

SCALES = (0.75, 1.0, 1.25, 1.75)  # of DFF and Feature-3DGS
WIDEST, FORCED = 480, (360, 480)  # a wider image is given that (height, width) there, whatever its proportions
CONCEPTFUSION = (480, 640)
GRID = 16  # OpenScene doubles the long side, and the result must be a multiple of 32


def result_size(caller: str, height: int, width: int, base_size: int) -> tuple[int, int]:
    """(height, width) of the embeddings that a project, one of ``choices.CALLERS``, makes of an image of this size.

    ``InputError`` for OpenScene and a long side that is not a multiple of 16.
    """
    if caller == "openscene" and max(height, width) % GRID:
        raise InputError(
            f"OpenScene's embeddings need an image whose long side is a multiple of {GRID}; this one has "
            f"{width}x{height} pixels: resize it, to 640x480 for example"
        )
    if caller == "vlmaps":
        return scaled_size(height, width, base_size)
    if caller == "dff" or (caller == "feature_3dgs" and width > WIDEST):
        return FORCED
    return (CONCEPTFUSION[0] // 2, CONCEPTFUSION[1] // 2) if caller == "conceptfusion" else (height, width)


def seen_sizes(caller: str, height: int, width: int, crop_size: int) -> list[tuple[int, int]]:
    """(height, width) of what goes through the network."""
    if caller == "conceptfusion":
        return [CONCEPTFUSION]
    side = 2 * max(height, width) if caller == "openscene" else crop_size
    return [(side, side)]


@torch.no_grad()
def caller_embedding(tower: ImageTower, rgb: Tensor, caller: str) -> Tensor:
    """(3, H, W) -> (height, width, C) of ``result_size``: what the project would have stored, in float32.

    caller: "vlmaps": unit vectors times 14.29, then x2, in windows at long side ``base_size``. "dff": x2, then unit
    vectors, four sizes, windows and mirror images, unit again. "feature_3dgs": likewise without any norm. "openscene":
    unit vectors of the image at twice its size, plus those of its mirror image. "conceptfusion": the head's output for
    values in 0..1 (not normalised) at 640 x 480.

    Raises:
        InputError: OpenScene's procedure for an image whose long side is not a multiple of 16, or a very large one.
    """
    if caller == "conceptfusion":
        import cv2

        pixels = torch.from_numpy(cv2.resize(to_pixels(rgb), CONCEPTFUSION[::-1])).permute(2, 0, 1)
        with full_precision(tower.device):
            return upsample_x2(tower.coarse((pixels.float() / 255).to(tower.device)[None]))[0].permute(1, 2, 0)
    image, black = tower.normalised(rgb), -tower.mean / tower.std
    if caller == "openscene":
        return _openscene(tower, image, black)
    scales, flip = ((1.0,), False) if caller == "vlmaps" else (SCALES, True)
    if flip and image.shape[2] > WIDEST:
        image = F.interpolate(image[None], FORCED, mode="bilinear", align_corners=True)[0]
    height, width = image.shape[1:]
    total: Tensor | None = None
    for canvas in protocol_canvases(height, width, tower.base_size, tower.crop_size, scales, flip):
        pixels = canvas.protocol_pixels(image, black)
        gathered = torch.zeros(tower.net.text_encoder.embed_dim, canvas.height, canvas.width, device=tower.device)
        for view in canvas.views:
            coarse = tower.coarse(view.orient(view.place(pixels))[None])
            with full_precision(tower.device):
                half = upsample_x2(coarse)
                if caller == "vlmaps":
                    half = F.normalize(half, dim=1) * LOGIT_SCALE
                found = upsample_x2(half)  # (1, C, crop, crop)
                found = view.orient(F.normalize(found, dim=1) if caller == "dff" else found)[0]
            place = view.place(gathered)
            place += found[:, : place.shape[1], : place.shape[2]]
        gathered /= canvas.cover(tower.device)  # windows and mirror images are averaged alike
        if caller == "vlmaps":  # as large as the network saw it
            return gathered.permute(1, 2, 0)
        with full_precision(tower.device):
            score = F.interpolate(gathered[None], (height, width), mode="bilinear", align_corners=True)
        total = score if total is None else total.add_(score)
    assert total is not None  # there are scales
    if caller == "dff":
        with full_precision(tower.device):
            total = F.normalize(F.interpolate(total, FORCED, mode="bilinear", align_corners=False), dim=1)
    return total[0].permute(1, 2, 0)


def _openscene(tower: ImageTower, image: Tensor, black: Tensor) -> Tensor:
    height, width = result_size("openscene", image.shape[1], image.shape[2], tower.base_size)
    side = 2 * max(height, width)
    tower.check_kept(side**2, side)
    (canvas,) = protocol_canvases(height, width, side, side, (1.0,))
    pixels, total = canvas.protocol_pixels(image, black), torch.zeros((), device=tower.device)
    for view in canvas.views:
        coarse = tower.coarse(view.orient(view.place(pixels))[None])
        with full_precision(tower.device):
            total = total + view.orient(F.normalize(upsample_x2(coarse), dim=1))[0, :, :height, :width]
    return total.permute(1, 2, 0)
