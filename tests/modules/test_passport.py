"""A network's passport: faults in preprocessing that are made on purpose are caught when its checkpoint is loaded."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path

import clip
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tiny_open_clip
from lseg_utils.errors import InputError
from modules import passport
from modules.checkpoints import load_lseg, metadata_of, save_file, to_official
from modules.inference.image_tower import ImageTower
from modules.models import LSegNet, build_lseg, image_encoders, text_encoder, timm_encoders
from modules.passport import TOLERANCE, difference, passport_of, picture
from modules.predictor import LSegPredictor
from reference import GOLDEN
from tiny import LABELS, pictures, tiny_net
from tiny_timm import FAMILIES, make_small

REG4 = next(name for name in FAMILIES if "patch14_reg4" in name)
TIPS = next(name for name in FAMILIES if "tipsv2" in name)


OFFICIAL = {
    "vitb32_arch0": "clip_vitb32_384",
    "zs_resnet101_pascal": "clip_resnet101",
}


@pytest.fixture(autouse=True, scope="module")
def small_networks():
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield
    timm_encoders.timm_backbone.cache_clear()


def network(kind: str) -> LSegNet:
    """A small random network whose positions and biases count as much as those of a trained one."""
    torch.manual_seed(0)
    net = build_lseg(kind, LABELS, features=16, **({"text_tower": "tiny"} if kind.startswith("timm:") else {}))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "pos" in name or "cls_token" in name:
                parameter.normal_()
            elif parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return net.eval()


def saved(kind: str, path: Path, **changes: object) -> Path:
    """A checkpoint as training writes it, with some of its metadata replaced."""
    net = network(kind)
    save_file({"state_dict": to_official(net.state_dict()), "lseg": metadata_of(net) | changes}, path)
    return path


def bicubic(position: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Positions resized as timm does, instead of as DPT does."""
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(position, list(grid), num_prefix_tokens=1)


def registers_first(original: Callable) -> Callable:
    """The maps with the prefix tokens turned round: a register where the class token was."""

    def read(*args, **options):
        """As ``read_maps``."""
        return [(maps, prefix if prefix is None else prefix.flip(1)) for maps, prefix in original(*args, **options)]

    return read


def without_norm(*args):
    """``read_maps`` before the final norm."""
    network, images, hooks, prefix = args
    maps = network.forward_intermediates(
        images, indices=list(hooks), norm=False, intermediates_only=True, return_prefix_tokens=prefix
    )
    return maps if prefix else [(one, None) for one in maps]


def other_tokens(texts, context_length, truncate):
    """Token ids of another tokenizer."""
    return clip.tokenize([text[::-1] for text in texts], context_length=context_length, truncate=truncate)


def as_typed(texts, context_length, truncate):
    """Token ids of labels of which punctuation was dropped."""
    table = str.maketrans("", "", string.punctuation)
    return clip.tokenize([text.translate(table) for text in texts], context_length=context_length, truncate=truncate)


class Package:
    """Stands in for clip."""

    def __init__(self, tokenize: Callable) -> None:
        self.tokenize = tokenize


class NotCausal(text_encoder.AttentionBlock):
    """CLIP's block without the causal mask."""

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


# What is broken -> (network, the place, what takes its place, what the message speaks of)
FAULTS: dict[str, tuple] = {
    "values not divided by 255": (
        *("tiny_resnet", ImageTower, "normalised"),
        lambda self, rgb: (rgb.float() - self.mean) / self.std,
        "picture",
    ),
    "BGR for RGB": (
        *("tiny_vit", ImageTower, "normalised"),
        lambda self, rgb: (rgb.flip(0).float() / 255 - self.mean) / self.std,
        "picture",
    ),
    "nothing subtracted": (
        *("tiny_resnet", ImageTower, "normalised"),
        lambda self, rgb: rgb.float() / 255,
        "picture",
    ),
    "normalised although the encoder does it": (
        *("timm:" + TIPS, ImageTower, "normalised"),
        lambda self, rgb: (rgb.float() / 255 - 0.5) / 0.5,
        "picture",
    ),
    "bicubic positions": ("tiny_vit", image_encoders, "resize_position_embedding", bicubic, "picture"),
    "a register for the class token": (
        *("timm:" + REG4, timm_encoders, "read_maps"),
        registers_first(timm_encoders.read_maps),
        "picture",
    ),
    "tokens before the final norm": ("timm:" + REG4, timm_encoders, "read_maps", without_norm, "picture"),
    "GELU for QuickGELU": ("tiny_vit", text_encoder.QuickGELU, "forward", lambda self, x: F.gelu(x), "words"),
    "no causal mask": ("tiny_vit", text_encoder.AttentionBlock, "forward", NotCausal.forward, "words"),
    "another tokenizer": ("tiny_vit", text_encoder, "clip_package", lambda: Package(other_tokens), "words"),
    "punctuation dropped": ("tiny_resnet", text_encoder, "clip_package", lambda: Package(as_typed), "words"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, tmp_path, monkeypatch):
    kind, place, name, wrong, said = FAULTS[fault]
    path = saved(kind, tmp_path / "a.ckpt")
    load_lseg(path)  # no false alarm
    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(InputError, match=said):
        load_lseg(path)


def test_normalisation_that_was_changed_in_the_file_is_caught(tmp_path):
    other = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    with pytest.raises(InputError, match=r"0\.485"):
        load_lseg(saved("tiny_vit", tmp_path / "a.ckpt", normalization=other))


def test_changed_versions_are_named(tmp_path, monkeypatch):
    path = saved("tiny_resnet", tmp_path / "a.ckpt")
    monkeypatch.setattr(passport, "versions", lambda names: {"torch": "1.4"})
    load_lseg(path)  # another version alone is no fault
    monkeypatch.setattr(ImageTower, "normalised", lambda self, rgb: rgb.float())
    with pytest.raises(InputError, match=r"torch was .*, is 1\.4"):
        load_lseg(path)


def test_files_without_a_passport_are_read(tmp_path):
    path = saved("tiny_resnet", tmp_path / "a.ckpt", passport={"image": [], "text": []})
    assert load_lseg(path).labels == LABELS
    with pytest.raises(InputError, match="passport"):
        load_lseg(saved("tiny_resnet", tmp_path / "b.ckpt", passport={"image": "x"}))


@pytest.mark.parametrize("kind", ["tiny_vit", "tiny_resnet", *(f"timm:{name}" for name in FAMILIES)])
def test_no_false_alarm(kind):
    """The answer is the same in a batch's memory layout, with more threads, and after a training step's mode."""
    net = network(kind)
    before = passport_of(net)
    assert len(before["image"]) == 60 and len(before["text"]) == 12
    net.train()
    after = passport_of(net.to(memory_format=torch.channels_last))
    assert net.training and net.decoder.training
    for part in ("image", "text"):
        assert difference(before[part], after[part]) < TOLERANCE / 20


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_no_precision_of_a_predictor_raises_an_alarm(precision, tmp_path):
    path = saved("tiny_vit", tmp_path / "a.ckpt")
    predictor = LSegPredictor.from_checkpoint(path, device="cpu", precision=precision)
    assert predictor.segment(np.zeros((40, 50, 3), np.uint8), ["sky", "tree"]).mask.shape == (40, 50)


def test_training_goes_on_as_if_nobody_had_asked():
    """Random numbers, modes, statistics of batch norm and the doubt about images are left as they were."""
    net = tiny_net().train()
    state, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    modes = {name: part.training for name, part in net.named_modules()}
    passport_of(net)
    assert torch.equal(random, torch.get_rng_state()) and net.check_range
    assert modes == {name: part.training for name, part in net.named_modules()}
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    net(pictures(2, 64, 64)).sum().backward()


def test_the_picture_is_what_it_was():
    """Another picture would make every checkpoint's passport worthless."""
    found = picture()
    assert found.shape == (96, 160, 3) and found.dtype == np.uint8
    assert [int(channel.sum()) for channel in found.transpose(2, 0, 1)] == [1414566, 1335915, 2262731]


def test_a_plain_classifier_answers_the_picture_alone():
    net = tiny_net(classes=["a", "b"], labels=None)
    found = passport_of(net)
    assert found["text"] == [] and len(found["image"]) == 60


def test_differences_are_relative():
    assert difference([3.0, 4.0], [3.0, 4.5]) == pytest.approx(0.1)
    assert difference([], [1.0]) == 0 and difference([1.0, 2.0], [1.0]) == np.inf


@pytest.mark.parametrize("fault", ["capitals and punctuation kept", "another activation", "a tower read at its end"])
def test_a_fault_of_a_siglip_tower_is_caught(fault, tmp_path, monkeypatch):
    """An un-canonicalised label, GELU's other approximation, and another position that is read."""
    open_clip = pytest.importorskip("open_clip", reason="needs the package open_clip_torch, an extra")
    from open_clip.tokenizer import get_clean_fn

    from modules.models import open_clip_text

    tiny_open_clip.make_small(monkeypatch, tmp_path / "configs")
    net = build_lseg("tiny_resnet", LABELS, features=16, text_tower="open_clip:tiny-ViT-B-16-SigLIP2").eval()
    save_file({"state_dict": to_official(net.state_dict()), "lseg": metadata_of(net)}, tmp_path / "a.ckpt")
    load_lseg(tmp_path / "a.ckpt")
    if fault == "capitals and punctuation kept":
        monkeypatch.setattr(
            open_clip_text.tokenizer_of("tiny-ViT-B-16-SigLIP2"), "clean_fn", get_clean_fn("whitespace")
        )
    elif fault == "another activation":
        config = open_clip_text.tower_config("open_clip:tiny-ViT-B-16-SigLIP2")
        monkeypatch.setattr(
            open_clip_text, "tower_config", lambda name: config._replace(quick_gelu=True, text=without(config.text))
        )
    else:
        monkeypatch.setattr(open_clip.transformer, "text_global_pool", lambda x, *args, **options: x[:, 0])
    with pytest.raises(InputError, match="words"):
        load_lseg(tmp_path / "a.ckpt")


def without(text: dict) -> dict:
    """The configuration without what only its own activation takes."""
    return {key: value for key, value in text.items() if key != "act_kwargs"}


@pytest.mark.slow
@pytest.mark.parametrize(("network_name", "backbone"), OFFICIAL.items())
def test_official_networks_answer_as_ever(network_name, backbone, golden_net):
    """With the golden weights, whose numbers the official networks computed (tests/golden)."""
    stored = json.loads((GOLDEN / "passports.json").read_text())[network_name]
    found = passport_of(golden_net(network_name, backbone))
    assert difference(stored["image"], found["image"]) < TOLERANCE / 20
    assert difference(stored["text"], found["text"]) < TOLERANCE / 20
