"""The official evaluators under their official import paths, for programs that were written for them.

They run on any device, over ``encoding_ext.MultiScaleEvaluator``. See docs/dropin.md.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("encoding_ext") is None:  # inside another project: appended, so that it hides nobody's modules or data
    sys.path.append(str(Path(__file__).resolve().parent.parent))
