"""From ``--weights``, ``--clip`` or ``--model`` to a model, its name and its fingerprint."""

from __future__ import annotations

from pathlib import Path

from lseg_utils.files import sha256_of
from openvocab.models import LSegSegmenter, PluggedSegmenter, Segmenter, plugged_from


def load_segmenter(
    device: str,
    precision: str,
    weights: Path | None,
    clip: Path | None,
    model: str | None,
    backbone: str | None,
    trust_checkpoint: bool,
) -> tuple[Segmenter, str, str]:
    """The one model that is given, its name, and the SHA-256 of its file. ``backbone``: of ``weights``."""
    if model:
        return plugged_from(model), model, f"sha256 {sha256_of(model.rpartition(':')[0])}"
    if clip:
        from openvocab.clip_dense import ClipDense

        return PluggedSegmenter(ClipDense(clip, device)), f"CLIP {clip}", f"sha256 {sha256_of(clip)}"
    from modules.checkpoints import load_lseg

    assert weights is not None  # ``check_model`` has looked
    net = load_lseg(weights, trust_checkpoint=trust_checkpoint, backbone=backbone)
    return LSegSegmenter(net, device, precision), f"LSeg {weights}", f"sha256 {sha256_of(weights)}"
