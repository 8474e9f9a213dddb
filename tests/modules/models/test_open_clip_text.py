"""Text towers of open_clip: each kind in a tiny version gives what open_clip gives, and reads labels as it should."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modules.checkpoints import load_lseg, metadata_of, save_file, to_official
from modules.models import LSegNet, build_lseg, open_clip_text
from modules.models.backbones import TEXT_TOWERS
from modules.models.named import text_dimension
from modules.models.open_clip_text import tower_config
from modules.models.pretrained import load_pretrained
from modules.predictor import LSegPredictor
from tiny import LABELS, pictures
from tiny_open_clip import DIMENSION, TOWERS, make_small

open_clip = pytest.importorskip("open_clip", reason="needs the package open_clip_torch, an extra")

WORDS = ["dog", "Traffic-light!", "a red car"]
CANONICAL = ("SigLIP",)
TRIMMED = ("ViT-B-32-quickgelu", "ViT-B-32", "PE-Core-B-16")


@pytest.fixture(autouse=True, scope="module")
def small_towers(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, tmp_path_factory.mktemp("configs"))
        yield


def small_net(kind: str) -> LSegNet:
    torch.manual_seed(0)
    return build_lseg("tiny_resnet", LABELS, features=16, text_tower=f"open_clip:tiny-{kind}").eval()


@pytest.mark.parametrize("kind", TOWERS)
def test_a_tower_gives_what_open_clip_gives(kind):
    """The same weights under open_clip's names, its tokenizer, its whole context: the same vectors."""
    encoder = small_net(kind).text_encoder
    tokens = open_clip.get_tokenizer(f"tiny-{kind}")(WORDS, context_length=encoder.context_length)
    with torch.no_grad():
        expected = F.normalize(encoder.tower(tokens), dim=-1)
    found = encoder(WORDS)
    assert found.shape == (3, DIMENSION) and torch.allclose(found, expected, atol=1e-5)
    assert encoder.trimmed == (kind in TRIMMED)
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", TOWERS)
def test_a_network_with_this_tower_is_trained_saved_and_asked(kind, tmp_path):
    net = small_net(kind).train()
    assert net.decoder.embedding.out_channels == DIMENSION
    net(pictures(2, 64, 64)).square().mean().backward()
    assert all(p.grad is None and not p.requires_grad for p in net.text_encoder.parameters())
    assert net.decoder.embedding.weight.grad.any() and not net.text_encoder.tower.training
    net.eval()
    save_file({"state_dict": to_official(net.state_dict()), "lseg": metadata_of(net)}, tmp_path / "a.ckpt")
    loaded = load_lseg(tmp_path / "a.ckpt")
    assert torch.allclose(loaded(pictures(1, 64, 64), WORDS), net(pictures(1, 64, 64), WORDS), atol=1e-4)
    mask = LSegPredictor(loaded, device="cpu").segment(np.zeros((30, 40, 3), np.uint8), WORDS).mask
    assert mask.shape == (30, 40)


@pytest.mark.parametrize("kind", TOWERS)
def test_punctuation_and_capitals_are_read_as_the_tower_was_trained(kind):
    encoder = small_net(kind).text_encoder
    plain, shouted = encoder(["traffic light"])[0], encoder(["Traffic. Light!"])[0]
    assert torch.equal(plain, shouted) == any(part in kind for part in CANONICAL)
    assert torch.equal(plain, encoder(["TRAFFIC light"])[0])
    if any(part in kind for part in CANONICAL):
        with pytest.raises(ValueError, match="'---'"):
            encoder(["---"])


@pytest.mark.parametrize("kind", TOWERS)
def test_a_label_over_the_context_is_named(kind):
    encoder = small_net(kind).text_encoder
    fits = " ".join(["dog"] * (encoder.context_length - 2))
    assert encoder.fits(fits) and not encoder.fits(fits + " dog dog dog")
    with pytest.raises(ValueError, match=f"{encoder.context_length} tokens"):
        encoder([fits + " cat cat cat"])


def test_quickgelu_comes_with_the_weights_that_need_it():
    assert not tower_config("open_clip:ViT-B-32").quick_gelu
    assert tower_config("open_clip:ViT-B-32/openai").quick_gelu
    assert not tower_config("open_clip:ViT-B-32/laion2b_s34b_b79k").quick_gelu
    assert tower_config("open_clip:ViT-B-32-quickgelu").quick_gelu


def test_a_causal_tower_is_trimmed_without_a_change_and_others_are_not():
    """What follows the end of a label counts for SigLIP, which reads its last position, and not for CLIP."""
    for kind in ("ViT-B-32", "ViT-B-16-SigLIP"):
        encoder = small_net(kind).text_encoder
        seen: list[int] = []
        encoder.tower.token_embedding.register_forward_pre_hook(
            lambda part, inputs, s=seen: s.append(inputs[0].shape[1])
        )
        encoder(["dog", "a red car"])
        assert seen == [5 if kind == "ViT-B-32" else 64], kind


@pytest.mark.parametrize("kind", ["ViT-B-32", "ViT-B-16-SigLIP"])
def test_weights_are_read_from_a_file_of_the_whole_model(kind):
    """open_clip puts "text." before the names of some models and not of others."""
    net, tower = small_net(kind), small_net(kind).text_encoder.tower
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.5)
    prefix = "text." if "SigLIP" in kind else ""
    file = {prefix + name: tensor for name, tensor in tower.state_dict().items()} | {"visual.proj": torch.zeros(2)}
    load_pretrained(net, "file", "random", lambda path: file)
    assert torch.equal(net.text_encoder.tower.ln_final.bias, tower.ln_final.bias)
    file.pop(prefix + "ln_final.bias")
    with pytest.raises(ValueError, match=r"ln_final\.bias"):
        load_pretrained(net, "file", "random", lambda path: file)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("open_clip:ViT-B-33", ["open_clip:ViT-B-3"]),
        ("open_clip:ViT-B-32/laion3b", ["laion3b", "laion2b_s34b_b79k"]),
        ("open_clip:roberta-ViT-B-32", ["transformers", "roberta"]),
        ("ViT-B/33", ["ViT-B/32", "open_clip:"]),
    ],
)
def test_unknown_towers_are_refused(name, facts):
    with pytest.raises(ValueError) as refused:
        text_dimension(name)
    assert all(fact in str(refused.value) for fact in facts), str(refused.value)


def test_weights_without_a_tag_are_not_guessed():
    with pytest.raises(ValueError, match="/TAG"):
        load_pretrained(small_net("ViT-B-32"), None, "random")


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **options):
        """As Python's, but open_clip is not installed."""
        if name == "open_clip":
            raise ImportError("No module named 'open_clip'")
        return original(name, *args, **options)

    tower_config.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="pip install open_clip_torch"):
        text_dimension("open_clip:ViT-B-32")


def test_a_tokenizer_that_cannot_be_had_says_what_to_do(monkeypatch):
    def offline(model):
        """No tokenizer, as without internet."""
        raise OSError("we couldn't connect")

    encoder = small_net("ViT-B-16-SigLIP2").text_encoder
    open_clip_text.tokenizer_of.cache_clear()
    monkeypatch.setattr(open_clip, "get_tokenizer", offline)
    with pytest.raises(ValueError, match="pip install transformers"):
        encoder(["dog"])
    open_clip_text.tokenizer_of.cache_clear()


@pytest.mark.parametrize(("name", "dimension"), [("RN50", 1024), ("RN101", 512), ("RN50x64", 1024), ("ViT-L/14", 768)])
def test_sizes_of_openai_towers(name, dimension):
    assert text_dimension(name) == dimension == TEXT_TOWERS[name].embed_dim
