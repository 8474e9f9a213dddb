"""What a backbone or a text tower of any name is; timm and open_clip are imported for their names alone."""

from __future__ import annotations

from difflib import get_close_matches

from .backbones import BACKBONES, OPEN_CLIP, TEXT_TOWERS, TIMM, Backbone


def backbone_spec(name: str) -> Backbone:
    """The row of ``BACKBONES``, or for timm:NAME what timm's network says about itself (imports torch and timm).

    Raises:
        ValueError: an unknown name, or a network of timm that gives no maps.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith(TIMM):
        from .timm_encoders import timm_backbone

        return timm_backbone(name.removeprefix(TIMM))
    near = get_close_matches(name, BACKBONES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(
        f"backbone {name!r} is unknown{hint}; choose one of {', '.join(BACKBONES)}, or {TIMM}NAME for a network of timm"
    )


def text_dimension(name: str) -> int:
    """C of a text tower: a key of ``TEXT_TOWERS``, or open_clip:MODEL[/TAG] (imports that package).

    Raises:
        ValueError: an unknown name (with the nearest), or open_clip is not installed.
    """
    if name.startswith(OPEN_CLIP):
        from .open_clip_text import tower_config

        return tower_config(name).embed_dim
    if name not in TEXT_TOWERS:
        near = get_close_matches(name, TEXT_TOWERS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"text tower {name!r} is unknown{hint}; choose one of {', '.join(TEXT_TOWERS)}, or {OPEN_CLIP}MODEL/TAG"
        )
    return TEXT_TOWERS[name].embed_dim
