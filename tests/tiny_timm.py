"""Networks of timm as timm configures them, with sizes of their own: small enough to compute with in a test."""

from __future__ import annotations

from typing import Any

import pytest
import timm

from modules.models import timm_encoders

VIT = {"embed_dim": 48, "depth": 4, "num_heads": 3}
STAGES = {"depths": (1, 1, 1, 1)}
NARROW = {**STAGES, "dims": (16, 24, 32, 48)}
WINDOWS = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}

# Each family with the arguments that make it small.
FAMILIES: dict[str, dict[str, Any]] = {
    "vit_small_patch16_384.augreg_in21k_ft_in1k": VIT,
    "vit_small_patch8_224.dino": VIT,
    "vit_small_patch32_384.augreg_in21k_ft_in1k": VIT,
    "vit_small_patch14_dinov2.lvd142m": VIT,
    "vit_small_patch14_reg4_dinov2.lvd142m": VIT,
    "vit_small_patch16_dinov3.lvd1689m": VIT,
    "vit_base_patch16_siglip_224.v2_webli": VIT,
    "vit_so400m_patch14_siglip_378.v2_webli": VIT,
    "vit_pe_core_large_patch14_336.fb": VIT,
    "vit_pe_spatial_tiny_patch16_512.fb": VIT,
    "vit_base_patch14_reg1_tipsv2.webli": VIT,
    "eva02_base_patch16_clip_224.merged2b": VIT,
    "vit_base_patch16_clip_224.openai": VIT,
    "deit_tiny_distilled_patch16_224.fb_in1k": VIT,
    "vit_medium_patch16_reg4_gap_256.sbb_in12k_ft_in1k": VIT,
    "convnext_atto.d2_in1k": NARROW,
    "convnext_tiny.dinov3_lvd1689m": NARROW,
    "convnextv2_atto.fcmae": NARROW,
    "swin_tiny_patch4_window7_224.ms_in1k": WINDOWS,
    "swinv2_tiny_window8_256.ms_in1k": WINDOWS,
    "pvt_v2_b0.in1k": {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 40, 64)},
    "davit_tiny.msft_in1k": {"depths": (1, 1, 1, 1), "embed_dims": (16, 24, 32, 48), "num_heads": (1, 1, 2, 2)},
    "test_resnet.r160_in1k": {},
    "test_efficientnet.r160_in1k": {},
    "test_byobnet.r160_in1k": {},
    "test_nfnet.r160_in1k": {},
    "test_mambaout": {},
}
PATCH = {
    name: int(name.split("patch")[1][:2].rstrip("_")) for name in FAMILIES if "_patch" in name and "swin" not in name
}


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on timm makes the networks of ``FAMILIES`` small."""
    create = timm.create_model

    def created(name: str, **options: Any) -> Any:
        """As ``timm.create_model``."""
        return create(name, **{**options, **FAMILIES.get(name, {})})

    monkeypatch.setattr(timm, "create_model", created)
    timm_encoders.timm_backbone.cache_clear()
