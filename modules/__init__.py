"""LSeg's network, its weights, its training and its testing: everything that does not read a dataset.

Importing this package imports nothing else; its public names are resolved at first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

_PUBLIC = {
    "BACKBONES": ".models.backbones",
    "LSegFeatureNet": ".models.lseg_net",
    "LSegPredictor": ".predictor",
    "build_lseg": ".models.build",
    "export_plain": ".checkpoints",
    "load_lseg": ".checkpoints",
}
# In the package lseg-minimal, which this one replaces, lseg.LSegNet takes images and returns embeddings.
_ALIASES = {"LSegNet": "LSegFeatureNet"}

if find_spec("lseg_utils") is None:  # a git submodule at any depth: appended, so that it hides nobody's modules or data
    sys.path.append(str(Path(__file__).resolve().parent.parent))


def __getattr__(name: str) -> object:
    real = _ALIASES.get(name, name)
    if real not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[real], __name__), real)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *_ALIASES])
