"""What PyTorch-Encoding used to give LSeg, in plain PyTorch: paired transforms, metrics, the multi-scale test.

Names are resolved at first use: importing one of them does not import the others.
"""

from __future__ import annotations

from importlib import import_module

_PUBLIC = {
    "evaluator": ("MultiScaleEvaluator",),
    "metrics": ("EpisodeMetric", "SegmentationMetric"),
    "transforms": ("TrainTransform", "ValTransform", "image_to_tensor", "mask_to_tensor"),
}


def __getattr__(name: str) -> object:
    for module, names in _PUBLIC.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
