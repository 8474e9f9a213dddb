"""The networks alone: plain ``nn.Module`` objects that do not depend on Lightning, files or flags.

Names are resolved at first use, so that the tables of names and numbers can be read without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .backbones import BACKBONES, TEXT_TOWERS

if TYPE_CHECKING:
    from .build import build_lseg
    from .network import LSegNet

__all__ = ["BACKBONES", "TEXT_TOWERS", "LSegNet", "build_lseg"]


def __getattr__(name: str) -> object:
    places = {"LSegNet": ".network", "build_lseg": ".build"}
    if name not in places:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(places[name], __name__), name)
