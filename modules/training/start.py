"""The network that a training starts with: from a checkpoint, from CLIP and ImageNet files, or downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lseg_utils.errors import InputError, raise_all
from lseg_utils.files import sha256_of
from lseg_utils.progress import is_rank_zero

from ..choices import block_options
from ..models.backbones import RANDOM
from ..models.named import backbone_spec, text_dimension

if TYPE_CHECKING:
    from ..models import LSegNet

WEIGHTS = ("finetune_weights", "clip_weights", "backbone_weights")


@dataclass(frozen=True)
class NetworkChoice:
    """An architecture and its first weights. None: what the checkpoint says, else the default of ``build_lseg``."""

    backbone: str
    num_features: int = 256
    dropout: float = 0.0
    arch_option: int | None = None
    block_depth: int | None = None
    activation: str | None = None
    finetune_weights: Path | None = None
    """A checkpoint that gives all weights and the width of the decoder."""
    clip_weights: str | None = None
    """A file with CLIP's text tower, or ``random``; None: download."""
    backbone_weights: str | None = None
    """A file with ImageNet weights, or ``random``; None: download."""
    head: str = "text"
    """text: LSeg. classes: a plain classifier of the dataset's labels, without text."""
    trust_checkpoint: bool = False
    use_pretrained: str = "True"
    """What the image encoder starts from: ImageNet (True), random (False), CLIP's image tower (clip), frozen
    (clip_fixed)."""
    text_tower: str | None = None
    """Another text tower than the one that the backbone is usually trained against."""
    freeze_encoder: bool = False
    """The image encoder keeps its first weights; what reassembles its tokens, decoder and head learn."""

    def __post_init__(self) -> None:
        given = {name: path for name in WEIGHTS if (path := getattr(self, name))}
        problems = [
            f"--{name}: the file {path} does not exist"
            for name, path in given.items()
            if str(path) != RANDOM and not Path(path).is_file()
        ]
        if self.finetune_weights and len(given) > 1:
            problems.append("--finetune_weights replaces --clip_weights and --backbone_weights; give only one kind")
        if self.finetune_weights and self.dropout:
            problems.append("--dropout has no effect on the network of --finetune_weights; leave one of them out")
        if self.use_pretrained != "True" and (self.finetune_weights or self.backbone_weights):
            problems.append("--use_pretrained decides what other weights files replace; give only one kind")
        if self.freeze_encoder and (self.backbone_weights == RANDOM or self.use_pretrained == "False"):
            problems.append("--freeze_encoder would freeze random weights; give or download pretrained ones")
        try:
            spec = backbone_spec(self.backbone)
        except ValueError as error:
            problems.append(f"--backbone: {error}")
            spec = None
        try:
            if self.text_tower:
                text_dimension(self.text_tower)
        except ValueError as error:
            problems.append(f"--text_tower: {error}")
        if spec and self.from_clip:
            towers = spec.image, self.text_tower or spec.text
            if towers != ("vit_base_patch32_384", "ViT-B/32"):
                problems.append(
                    f"--use_pretrained {self.use_pretrained} needs an image encoder of the shape of CLIP's: --backbone "
                    f"clip_vitb32_384, not {self.backbone}"
                )
            if self.clip_weights == RANDOM:
                problems.append(
                    f"--use_pretrained {self.use_pretrained} reads CLIP's file; give no --clip_weights random"
                )
        if self.head == "classes":
            if self.arch_option:
                problems.append("--head classes has no regularisation block; leave out --arch_option")
            if self.text_tower:
                problems.append("--head classes has no text encoder; leave out --text_tower")
            if self.clip_weights not in (None, RANDOM):
                problems.append("--head classes has no text encoder; leave out --clip_weights")
        raise_all(problems)

    @property
    def from_clip(self) -> bool:
        """Whether the image encoder starts from CLIP's own image tower."""
        return self.use_pretrained in ("clip", "clip_fixed")

    def sources(self) -> dict[str, Any]:
        """What the first weights are read from, for the checkpoint: name, size and SHA-256 of the files."""
        found: dict[str, Any] = {"use_pretrained": self.use_pretrained, "freeze_encoder": self.freeze_encoder}
        for name in WEIGHTS:
            path = getattr(self, name)
            found[name] = None if path is None else str(path)
            if path is not None and str(path) != RANDOM:
                found[name] = f"{Path(path).name} ({Path(path).stat().st_size} bytes)"
                found[f"{name}_sha256"] = sha256_of(path)  # a key of its own: older versions did not record it
        return found


def build_network(choice: NetworkChoice, labels: list[str], *, weights: bool = True, download: bool = True) -> LSegNet:
    """The network to train.

    Args:
        choice: architecture and first weights.
        labels: the label set.
        weights: read the first weights; False where a checkpoint of the run replaces them anyway.
        download: download what ``choice`` does not name; False: random weights stand in for it.
    """
    from ..checkpoints import load_lseg
    from ..models import build_lseg
    from ..models.pretrained import load_pretrained
    from ..models.timm_encoders import licence_note

    spec = backbone_spec(choice.backbone)
    if (note := licence_note(spec)) and is_rank_zero():
        print(note)
    try:
        if choice.finetune_weights:  # also where its weights are replaced: the file decides the architecture
            given = {"trust_checkpoint": choice.trust_checkpoint, **block_options(choice)}
            net = load_lseg(choice.finetune_weights, labels=labels, backbone=choice.backbone, **given)
            found = "text" if net.head.cosine else "classes"
            if found != choice.head:
                raise InputError(
                    f"--head is {choice.head}, but {choice.finetune_weights} was trained with --head {found}"
                )
            tower = net.architecture.get("text_tower", spec.text)
            if choice.text_tower not in (None, tower):
                raise InputError(
                    f"--text_tower is {choice.text_tower}, but {choice.finetune_weights} was trained against {tower}: "
                    "its pixel embeddings fit no other; leave the option out, or train from ImageNet weights"
                )
            if (net.mean, net.std) != (spec.mean, spec.std):
                raise InputError(
                    f"{choice.finetune_weights} was trained with images of mean {net.mean} and std {net.std}, but "
                    f"{choice.backbone} has mean {spec.mean} and std {spec.std}: give the backbone "
                    "that it was trained with"
                )
        else:
            sizes: dict[str, Any] = {
                "features": choice.num_features,
                "dropout": choice.dropout,
                "text_tower": choice.text_tower,
                **block_options(choice),
            }
            classes = labels if choice.head == "classes" else None
            net = build_lseg(choice.backbone, labels, classes=classes, **sizes)
        check_label_lengths(net, labels)
        if weights and not choice.finetune_weights:
            first = choice.backbone_weights or (RANDOM if choice.use_pretrained == "False" else None)
            sources = [choice.clip_weights, first]
            if not download and None in sources:
                print("dry run: random weights replace what a training would download")
                sources = [source or RANDOM for source in sources]
            load_pretrained(net, sources[0], sources[1], read_weights, choice.from_clip)
        if choice.freeze_encoder or choice.use_pretrained == "clip_fixed":
            net.image_encoder.freeze()  # reassemble blocks and decoder learn
    except ValueError as error:
        raise InputError(str(error)) from error
    return net.train()


def check_label_lengths(net: LSegNet, labels: Sequence[str]) -> None:
    """``InputError`` for a label that the text tower cannot read, or that is not a class of a plain classifier."""
    try:
        net.text_encoder.tokenize(labels)
    except ValueError as error:
        raise InputError(f"{error} (the labels are those of --label_src)") from error


def read_weights(path: Path) -> dict[str, Any]:
    """Read a CLIP or ImageNet file: safetensors, a TorchScript archive, a state dict, or a dict that contains one.

    Raises:
        InputError: a damaged or hostile file, or one that contains no weights.
    """
    from torch import Tensor

    from ..safe_load import read_safetensors, read_torch_file, read_torchscript_weights

    if path.suffix == ".safetensors":
        return read_safetensors(path)
    content: Any = read_torchscript_weights(path)
    content = read_torch_file(path) if content is None else content
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    entries = weights.items() if isinstance(weights, dict) else ()
    tensors = {name: value for name, value in entries if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path} contains no weights: it is neither a state dict nor a dict with a state_dict")
    return tensors
