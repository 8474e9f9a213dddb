"""Official names on disk, our names in memory: one literal table, used both ways.

Official checkpoints name parts by history (``pretrained`` is backbone *and* reassemble, ``scratch`` the decoder);
in memory the names say what a part is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

OFFICIAL_PREFIX = "net."  # the network's attribute in the official LightningModule, and in ours

LEVELS = range(4)
TO_OURS: dict[str, str | None] = {
    "clip_pretrained.visual.": None,  # CLIP's image tower: LSeg never uses it
    "clip_pretrained.": "text_encoder.",
    "pretrained.model.": "image_encoder.vit.",
    **{f"pretrained.act_postprocess{i + 1}.0.project.0.": f"image_encoder.reassemble.{i}.readout." for i in LEVELS},
    **{f"pretrained.act_postprocess{i + 1}.3.": f"image_encoder.reassemble.{i}.project." for i in LEVELS},
    **{f"pretrained.act_postprocess{i + 1}.4.": f"image_encoder.reassemble.{i}.resample." for i in LEVELS},
    **{f"pretrained.layer{i + 1}.": f"image_encoder.stages.{i}." for i in LEVELS},
    **{f"scratch.layer{i + 1}_rn.": f"decoder.projections.{i}." for i in LEVELS},
    **{f"scratch.refinenet{i + 1}.resConfUnit1.": f"decoder.fusions.{i}.skip_unit." for i in LEVELS},
    **{f"scratch.refinenet{i + 1}.resConfUnit2.": f"decoder.fusions.{i}.merge_unit." for i in LEVELS},
    **{f"scratch.refinenet{i + 1}.out_conv.": f"decoder.fusions.{i}.out_conv." for i in LEVELS},
    "scratch.head1.": "decoder.embedding.",
    "scratch.head_block.depthwise.depthwise.": "head.block.conv.",
}
TO_OFFICIAL = {ours: official for official, ours in TO_OURS.items() if ours is not None}


def from_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official names (with or without the prefix ``net.``) -> our names; CLIP's visual tower is dropped.

    A name that the table does not know is passed on as it is, so that the caller can report it.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        ours = _rename(name.removeprefix(OFFICIAL_PREFIX), TO_OURS)
        if ours is not None:
            renamed[ours] = tensor
    return renamed


def to_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> official names with the prefix ``net.``: the inverse of ``from_official``."""
    return {f"{OFFICIAL_PREFIX}{official_name(name)}": tensor for name, tensor in state_dict.items()}


def official_name(name: str) -> str:
    """Our name of a weight -> its name in checkpoints, without the prefix ``net.``."""
    return _rename(name, TO_OFFICIAL) or name


def _rename(name: str, table: Mapping[str, str | None]) -> str | None:
    for old, new in table.items():
        if name.startswith(old):
            return None if new is None else new + name[len(old) :]
    return name
