"""What PyTorch-Encoding used to give LSeg, in plain PyTorch: paired transforms, metrics, the multi-scale test."""

from __future__ import annotations

from encoding_ext.evaluator import MultiScaleEvaluator
from encoding_ext.metrics import EpisodeMetric, SegmentationMetric
from encoding_ext.transforms import TrainTransform, ValTransform, image_to_tensor, mask_to_tensor

__all__ = [
    "EpisodeMetric",
    "MultiScaleEvaluator",
    "SegmentationMetric",
    "TrainTransform",
    "ValTransform",
    "image_to_tensor",
    "mask_to_tensor",
]
