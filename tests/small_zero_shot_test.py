"""test_lseg_zs.py with the split lists of a folder, its first argument, in place of the official ones."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import test_lseg_zs
from data.episodes import splits_in
from lseg_utils.distributed import run_distributed

if __name__ == "__main__":
    with splits_in(Path(sys.argv.pop(1))):
        run_distributed(test_lseg_zs.main)
