"""A plain CLIP as a segmenter, without any training: MaskCLIP (arXiv 2112.01071), from OpenAI's files.

In the last attention layer of the visual tower every token keeps its own value instead of a mixture of all values: the
map of tokens then is in the space of the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lseg_utils.errors import InputError
from modules.device import resolve_device
from modules.inference.label_texts import encode_with_templates
from modules.models.text_encoder import TextEncoder, clip_package
from modules.training.start import read_weights

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's CLIP


class ClipDense:
    """The visual tower of a CLIP file, ViT or ResNet, and its text tower; float32.

    Args:
        path: OpenAI's TorchScript archive or a state dict with its names.
        device: as for the scripts.
    """

    def __init__(self, path: Path, device: str) -> None:
        self.device = resolve_device(device)
        weights = {name: value.float() for name, value in read_weights(path).items() if isinstance(value, Tensor)}
        try:
            clip_package()
            from clip.model import build_model

            self.visual: Any = build_model(dict(weights)).visual.float().to(self.device)
            # Once more: the package has rounded them to half precision.
            self.visual.load_state_dict(
                {name.removeprefix("visual."): value for name, value in weights.items() if name.startswith("visual.")}
            )
            heads = {
                name: weights[name] for name in ("text_projection", "positional_embedding", "token_embedding.weight")
            }
            width, dim = heads["text_projection"].shape
            layers = len({name.split(".")[2] for name in weights if name.startswith("transformer.resblocks.")})
            context, vocabulary = len(heads["positional_embedding"]), len(heads["token_embedding.weight"])
            self.text = TextEncoder(dim, width, layers, context, vocabulary)
            self.text.load_state_dict({name: weights[name] for name in self.text.state_dict()})
        except (KeyError, RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0][:200]
            raise InputError(
                f"{path} is not a CLIP file with both towers ({type(error).__name__}: {reason})"
            ) from error
        self.text.to(self.device)
        self.mean, self.std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (MEAN, STD))
        # A ViT sees the picture in patches; a ResNet's last map is a 32nd of it.
        self.is_vit = hasattr(self.visual, "transformer")
        self.patch = self.visual.conv1.kernel_size[0] if self.is_vit else 32

    def encode_labels(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """(T, C) unit vectors."""
        return encode_with_templates(self.text, labels, templates)

    @torch.inference_mode()
    def embed(self, image: Tensor) -> Tensor:
        """(3, H, W) in 0..1 -> (C, h, w): one vector per patch; each side is resized to whole patches."""
        rows, columns = (max(round(side / self.patch), 1) for side in image.shape[1:])
        size = (rows * self.patch, columns * self.patch)
        pixels = (image.to(self.device) - self.mean) / self.std
        pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)
        tokens = self._vit(pixels) if self.is_vit else self._resnet(pixels)  # (h * w, C)
        return tokens.T.reshape(-1, rows, columns)

    def _vit(self, pixels: Tensor) -> Tensor:
        visual = self.visual
        maps = visual.conv1(pixels)  # (1, E, h, w)
        grid, places = maps.shape[-2:], visual.positional_embedding
        side = round((len(places) - 1) ** 0.5)
        there = places[1:].T.reshape(1, -1, side, side)
        there = F.interpolate(there, grid, mode="bicubic", align_corners=False).flatten(2)[0].T
        tokens = torch.cat([visual.class_embedding[None] + places[:1], maps.flatten(2)[0].T + there])
        tokens = visual.ln_pre(tokens)[:, None]  # (1 + h * w, 1, E)
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            tokens = block(tokens)
        width = tokens.shape[-1]
        weight, bias = last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :]
        tokens = tokens + last.attn.out_proj(F.linear(last.ln_1(tokens), weight, bias))
        tokens = tokens + last.mlp(last.ln_2(tokens))
        return visual.ln_post(tokens[1:, 0]) @ visual.proj

    def _resnet(self, pixels: Tensor) -> Tensor:
        visual = self.visual
        maps = visual.relu1(visual.bn1(visual.conv1(pixels)))
        maps = visual.relu2(visual.bn2(visual.conv2(maps)))
        maps = visual.avgpool(visual.relu3(visual.bn3(visual.conv3(maps))))
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            maps = layer(maps)
        pool = visual.attnpool
        return pool.c_proj(pool.v_proj(maps.flatten(2)[0].T))
