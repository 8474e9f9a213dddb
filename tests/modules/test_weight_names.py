"""Names and shapes of the seven official networks, both ways."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.models import build_lseg
from modules.weight_names import from_official, to_official
from reference import official_shapes

NETWORKS = {
    "vitl16_arch0": {"backbone": "clip_vitl16_384"},
    "rn50x16_vitl16_arch0": {"backbone": "clipRN50x16_vitl16_384"},
    "vitb32_arch0": {"backbone": "clip_vitb32_384"},
    "vitb32_arch1_depth2_lrelu": {"backbone": "clip_vitb32_384", "arch_option": 1, "block_depth": 2},
    "vitb32_arch2_depth4_tanh": {
        "backbone": "clip_vitb32_384", "arch_option": 2, "block_depth": 4, "activation": "tanh",
    },
    "zs_vitl16": {"backbone": "clip_vitl16_384"},
    "zs_resnet101_pascal": {"backbone": "clip_resnet101"},
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def network(request) -> str:
    return request.param


def ours(network: str) -> dict[str, Tensor]:
    """Our state dict, without memory."""
    with torch.device("meta"):
        return build_lseg(labels=None, **NETWORKS[network]).state_dict()


def official(network: str) -> dict[str, Tensor]:
    """The official one, whole CLIP included, without memory."""
    return {
        name: torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")), device="meta")
        for name, (shape, dtype) in official_shapes(network).items()
    }


def shapes(state_dict: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items()}


def test_our_weights_get_the_official_names_and_shapes(network):
    expected = {name: shape for name, shape in shapes(official(network)).items() if ".visual." not in name}
    assert shapes(to_official(ours(network))) == expected


@pytest.mark.parametrize("prefix", ["net.", ""])
def test_official_weights_get_our_names_and_shapes(network, prefix):
    weights = {prefix + name.removeprefix("net."): tensor for name, tensor in official(network).items()}
    assert any("visual" in name for name in weights)
    assert shapes(from_official(weights)) == shapes(ours(network))


def test_there_and_back_is_the_identity(network):
    weights = ours(network)
    back = from_official(to_official(weights))
    assert list(back) == list(weights)
    assert all(back[name] is tensor for name, tensor in weights.items())


@pytest.mark.parametrize("backbone", ["tiny_vit", "tiny_resnet"])
def test_every_name_of_the_tiny_networks_has_an_official_one(backbone):
    with torch.device("meta"):
        weights = build_lseg(backbone, None, arch_option=1).state_dict()
    renamed = to_official(weights)
    assert all(name.startswith(("net.pretrained.", "net.scratch.", "net.clip_pretrained.")) for name in renamed)
    assert list(from_official(renamed)) == list(weights)


def test_an_unknown_name_is_passed_on_for_the_caller_to_report():
    weight = torch.zeros(1)
    assert from_official({"net.scratch.head9.weight": weight}) == {"scratch.head9.weight": weight}
    assert from_official({"net.clip_pretrained.visual.proj": weight}) == {}
