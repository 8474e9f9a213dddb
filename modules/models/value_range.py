"""Notices images whose values were not normalised as the network expects."""

from __future__ import annotations

from torch import Tensor

BYTES_FROM = 8  # no normalisation gives values that large


def unnormalised(images: Tensor) -> str:
    """ "0..1" or "0..255" if images look as if they had these ranges instead of about -1..1; "" if they look right.

    A normalised photograph has negative values where it is dark. A result is a guess: a picture of a white wall has
    none. Pictures of one colour are not judged.
    """
    if not images.numel():
        return ""
    low, high = (float(value) for value in images.detach().aminmax())
    if high > BYTES_FROM:
        return "0..255"
    return "0..1" if low >= 0 and high <= 1 and high - low > 0.5 else ""
