"""LSeg through torch.hub: give a folder or repository, the name of an entry, and its arguments.

    predictor = torch.hub.load("path/to/this/folder", "lseg", source="local", checkpoint="demo_e200.ckpt")
    predictor.segment("cat.jpg", ["cat", "grass", "other"]).overlay()

``lseg`` returns a predictor; every backbone is an entry too and returns the bare network. torch.hub takes every name
without a leading underscore for an entry.
"""

from __future__ import annotations

import importlib as _importlib
from collections.abc import Callable as _Callable
from collections.abc import Sequence as _Sequence
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

dependencies = ["torch", "torchvision", "timm", "clip", "ftfy", "regex", "numpy", "PIL", "cv2", "tqdm"]

for _name in ("modules", "encoding_ext", "lseg_utils"):  # torch.hub has put this folder on the path
    _found = [_Path(folder).resolve() for folder in _importlib.import_module(_name).__path__]
    if _found != [_Path(__file__).resolve().parent / _name]:
        raise ImportError(
            f"LSeg's package '{_name}' is hidden by {_found[0]}, which this process imported before under the same "
            "name; load LSeg first, or in a separate process"
        )

from lseg_utils.errors import InputError as _InputError  # noqa: E402
from modules.models.backbones import BACKBONES as _BACKBONES  # noqa: E402

if _TYPE_CHECKING:
    from modules.models import LSegNet as _LSegNet
    from modules.predictor import LSegPredictor as _LSegPredictor

# The rest is imported when an entry is called: listing the entries needs no network.


def lseg(
    checkpoint: str | _Path | None = None, device: str = "auto", precision: str = "auto", **options: _Any
) -> _LSegPredictor:
    """A predictor: ``.segment(image, labels)``, ``.embed(image)``, ``.encode_text(labels)``.

    Args:
        checkpoint: an official file (``python -m modules.zoo`` lists them) or one trained here; nothing is downloaded.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: "auto" (bf16 or fp16 on CUDA GPUs, float32 elsewhere), "32", "bf16", "16".
        options: further ones of ``LSegPredictor.from_checkpoint``; ``arch_option``, ``block_depth`` and ``activation``
            for an official file with a spatial regularisation block.

    Raises:
        InputError: no checkpoint, one that cannot be used, or a device that does not exist.
    """
    if checkpoint is None:
        raise _InputError(
            "lseg needs checkpoint=FILE: an official one (python -m modules.zoo lists them) or one trained here; for a "
            f"network with random weights load one of {', '.join(_BACKBONES)}"
        )
    from modules.predictor import LSegPredictor

    return LSegPredictor.from_checkpoint(checkpoint, device=device, precision=precision, **options)


def _entry(backbone: str) -> _Callable[..., _LSegNet]:
    """The entry point of a backbone, with its own docstring."""
    spec = _BACKBONES[backbone]

    def network(
        checkpoint: str | _Path | None = None,
        labels: _Sequence[str] | None = None,
        device: str = "cpu",
        **options: _Any,
    ) -> _LSegNet:
        """Build the network, or load it; ``torch.hub.help`` shows the text below."""
        from modules.checkpoints import load_lseg
        from modules.models import build_lseg

        if checkpoint is None:
            return build_lseg(backbone, labels, **options).to(device)
        return load_lseg(checkpoint, labels=labels, map_location=device, backbone=backbone, **options)

    network.__name__ = network.__qualname__ = backbone
    network.__doc__ = f"""The network with image encoder {spec.image} and CLIP's text tower {spec.text}: an nn.Module.

    Args:
        checkpoint: an official or own file; None for random weights, in training mode.
        labels: the network's own label set; None: that of the file, if it has one.
        device: the device of the network.
        options: with a checkpoint those of ``modules.checkpoints.load_lseg``, else those of
            ``modules.models.build_lseg``; ``pretrained=True`` downloads CLIP's text tower and the ImageNet backbone.

    Raises:
        InputError: a checkpoint that cannot be used, or of another backbone.
    """
    return network


for _name in _BACKBONES:
    globals()[_name] = _entry(_name)
