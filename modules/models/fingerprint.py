"""The fingerprint of a network's weights: the same for equal weights, whatever file they are in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# In every official file, but unused in the forward pass: if a re-saved copy lacks them, zeros replace them.
DEAD = (
    *("image_encoder.vit.norm.", "image_encoder.vit.head."),
    *("decoder.fusions.3.skip_unit.", "text_encoder.logit_scale"),
)


def fingerprint(weights: dict[str, Tensor]) -> str:
    """SHA-256 of the tensors that LSeg uses, under our names, as float32 in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(name for name in weights if not name.startswith(DEAD)):
        tensor = weights[name].detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
