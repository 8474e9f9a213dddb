"""What PyTorch-Encoding used to give LSeg, in plain PyTorch: paired transforms, metrics, the multi-scale test.

Names are resolved at first use: importing one of them does not import the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encoding_ext.evaluator import MultiScaleEvaluator
    from encoding_ext.metrics import EpisodeMetric, SegmentationMetric
    from encoding_ext.transforms import TrainTransform, ValTransform, image_to_tensor, mask_to_tensor

_PLACES = {
    "EpisodeMetric": "metrics",
    "MultiScaleEvaluator": "evaluator",
    "SegmentationMetric": "metrics",
    "TrainTransform": "transforms",
    "ValTransform": "transforms",
    "image_to_tensor": "transforms",
    "mask_to_tensor": "transforms",
}

__all__ = [
    "EpisodeMetric",
    "MultiScaleEvaluator",
    "SegmentationMetric",
    "TrainTransform",
    "ValTransform",
    "image_to_tensor",
    "mask_to_tensor",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"encoding_ext.{_PLACES[name]}"), name)
