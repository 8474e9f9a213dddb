"""What a training starts from: CLIP's text tower and the ImageNet backbone, downloaded or from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .backbones import RANDOM, Backbone
from .image_encoders import ImageEncoder, ResNetEncoder
from .named import backbone_spec
from .network import LSegNet
from .open_clip_text import OpenClipTextEncoder, download_open_clip
from .text_encoder import TextEncoder, clip_package

NAMED_FILE = "load_pretrained(net, {0}=FILE), on the command line --{0} FILE"
CLIP_CACHE = Path("~/.cache/clip").expanduser()


def load_pretrained(
    net: LSegNet,
    clip_weights: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    read: Callable[[Path], Mapping[str, Any]] | None = None,
    from_clip: bool = False,
) -> None:
    """Fill the text tower and the image backbone; what is not given is downloaded.

    Args:
        net: a network of ``build_lseg``.
        clip_weights: an OpenAI CLIP file (TorchScript archive or state dict), a file of open_clip for one of its
            towers, "random", or None to download.
        backbone_weights: a timm / torchvision file, "random", or None to download.
        from_clip: the image encoder is a ViT that starts from the image tower of the CLIP file, unless
            ``backbone_weights`` is "random".
        read: how a file becomes a state dict; default: ``torch.load`` with ``weights_only``.

    Raises:
        ValueError: a file that does not fit, or a failed download; the text names the file and its place.
    """
    spec = backbone_spec(net.architecture["backbone"])
    read = read or (lambda path: torch.load(path, map_location="cpu", weights_only=True))
    use_clip_image = from_clip and backbone_weights != RANDOM
    if clip_weights != RANDOM and isinstance(net.text_encoder, OpenClipTextEncoder):
        how = NAMED_FILE.format("clip_weights")
        path = Path(clip_weights) if clip_weights else download_open_clip(net.architecture["text_tower"], how)
        tower_weights = net.text_encoder.weights_from(read(path))
        _load(
            net.text_encoder.tower, tower_weights, str(path), f"a file with the text tower of {net.text_encoder.model}"
        )
    elif clip_weights != RANDOM and (isinstance(net.text_encoder, TextEncoder) or use_clip_image):
        tower = net.architecture.get("text_tower", spec.text)
        path = Path(clip_weights) if clip_weights else download_clip(tower)
        clip_file = read(path)
        if isinstance(net.text_encoder, TextEncoder):
            _load(net.text_encoder, clip_file, str(path), "a CLIP file with this text tower")
        if use_clip_image:
            load_clip_image(net.image_encoder.vit, clip_file, str(path))
    if backbone_weights != RANDOM and not from_clip:
        weights = read(Path(backbone_weights)) if backbone_weights else download_backbone(spec)
        source = str(backbone_weights or f"the published weights of {spec.image}")
        load_backbone(net.image_encoder, weights, source)


def load_backbone(image_encoder: ImageEncoder, weights: Mapping[str, Tensor], source: str) -> None:
    """Fill the backbone (not the reassemble blocks, which no classifier has) from timm's or torchvision's names."""
    if not isinstance(image_encoder, ResNetEncoder):
        _load(image_encoder.network, weights, source, "timm's weights of this network")
        return
    # torchvision's stem (conv1, bn1) and layer1 are our first stage, layers 2 to 4 the others
    places = {"conv1.": "0.0.", "bn1.": "0.1.", "layer1.": "0.4.", "layer2.": "1.", "layer3.": "2.", "layer4.": "3."}
    renamed: dict[str, Tensor] = {}
    for old, new in places.items():
        renamed |= {new + name[len(old) :]: tensor for name, tensor in weights.items() if name.startswith(old)}
    _load(image_encoder.stages, renamed, source, "torchvision's weights of this ResNet")


def load_clip_image(vit: Any, weights: Mapping[str, Tensor], source: str) -> None:
    """Fill timm's ViT from CLIP's image tower, as the official code does.

    The position embedding and the bias of the patches stay random: CLIP has another grid, and no such bias.
    """
    names = {
        **{"visual.class_embedding": "cls_token", "visual.conv1.weight": "patch_embed.proj.weight"},
        **{f"visual.ln_post.{kind}": f"norm.{kind}" for kind in ("weight", "bias")},
    }
    parts = {"attn.in_proj_": "attn.qkv.", "attn.out_proj.": "attn.proj.", "ln_1.": "norm1.", "ln_2.": "norm2."}
    parts |= {"mlp.c_fc.": "mlp.fc1.", "mlp.c_proj.": "mlp.fc2."}
    own = vit.state_dict()
    for block in range(len({name.split(".")[1] for name in own if name.startswith("blocks.")})):
        for old, new in parts.items():
            for kind in ("weight", "bias"):
                names[f"visual.transformer.resblocks.{block}.{old}{kind}"] = f"blocks.{block}.{new}{kind}"
    renamed = {new: weights[old].float() for old, new in names.items() if old in weights}
    if "cls_token" in renamed:
        renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    kept = {name: own[name] for name in own.keys() - set(names.values())}
    _load(vit, renamed | kept, source, "a CLIP file with an image tower of this shape")


def download_clip(name: str) -> Path:
    """OpenAI's file of a CLIP model in its usual cache, downloaded and verified by the ``clip`` package."""
    clip = clip_package().clip
    url = clip._MODELS.get(name)
    if url is None:
        how = NAMED_FILE.format("clip_weights")
        raise ValueError(f"no CLIP model {name!r} can be downloaded; give a file, or 'random': {how}")
    try:
        return Path(clip._download(url, str(CLIP_CACHE)))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"CLIP {name} could not be downloaded ({error}). On a machine with internet download {url}, then put it "
            f"at {CLIP_CACHE / url.rsplit('/', 1)[-1]} or give its path: {NAMED_FILE.format('clip_weights')}"
        ) from error


def download_backbone(spec: Backbone) -> dict[str, Tensor]:
    """ImageNet weights of a backbone's image network, from timm's or torchvision's own source."""
    name, source = spec.image, ""
    if spec.weights == "none":
        how = NAMED_FILE.format("backbone_weights")
        raise ValueError(f"no weights of {name!r} can be downloaded; give a file, or 'random': {how}")
    try:
        if spec.weights == "torchvision":
            import torchvision

            weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
            source = weights.url
            return weights.get_state_dict(progress=True, check_hash=True)
        import timm

        config: Any = timm.get_pretrained_cfg(name)
        # timm can read Google's .npz of the same weights too, but only its own file has the names that we read.
        source = f"{config.hf_hub_filename or 'model.safetensors'} of {config.hf_hub_id} on the Hugging Face Hub"
        return timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the ImageNet weights of {name} could not be downloaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:160]}). On a machine with internet download {source} and give the file: "
            f"{NAMED_FILE.format('backbone_weights')}"
        ) from error


def not_finite(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """How many numbers are NaN or infinite, by the name of the tensor; {} if all are finite."""
    # A sum is ten times as fast as looking at each number, and finite only if all numbers are.
    doubtful = (name for name, tensor in weights.items() if not tensor.sum().isfinite())
    counts = {name: int((~weights[name].isfinite()).sum()) for name in doubtful}
    return {name: count for name, count in counts.items() if count}


def _load(module: nn.Module, weights: Mapping[str, Tensor], source: str, wanted: str) -> None:
    expected = module.state_dict()
    # num_batches_tracked is absent in old torchvision files, and not needed
    missing = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    unlike = [name for name in expected if name in weights and weights[name].shape != expected[name].shape]
    if missing or unlike:
        raise ValueError(
            f"{source} is not {wanted}: {len(missing)} names missing ({', '.join(missing[:3])}), {len(unlike)} of "
            f"another shape ({', '.join(unlike[:3])})"
        )
    fitting = {name: weights.get(name, tensor) for name, tensor in expected.items()}
    if broken := not_finite(fitting):
        raise ValueError(
            f"{source} cannot be used: {len(broken)} tensors contain NaN or infinite numbers ({next(iter(broken))})"
        )
    module.load_state_dict(fitting)
