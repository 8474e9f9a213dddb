"""The finished episodes of a long zero-shot test on disk, so that a test which ends early can resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lseg_utils.ledger import Ledger

Areas = list[list[int]]  # [[intersection, union] by [background, foreground]] of one episode, in pixels


class EpisodeLog:
    """One hidden ledger per process in ``folder``, named after the test, so that several tests can share a folder.

    ``test``: everything that the result depends on (checkpoint, dataset, fold ...), in plain types.
    """

    def __init__(self, folder: Path, test: Mapping[str, Any], rank: int) -> None:
        self.folder, self.test = folder, test
        self._name = f".unfinished_{hashlib.sha256(json.dumps(test, sort_keys=True).encode()).hexdigest()[:12]}"
        self._ledger = Ledger(folder / f"{self._name}_{rank}.jsonl", test)

    def finished(self) -> dict[int, Areas]:
        """Episode index -> areas, from all processes and all earlier runs of this test."""
        paths = sorted(self.folder.glob(f"{self._name}_*.jsonl"))
        return {index: areas for path in paths for index, areas in Ledger(path, self.test).records}

    def add(self, episodes: Mapping[int, Areas]) -> None:
        """Keep these episodes."""
        self._ledger.append(*episodes.items())

    def remove(self) -> None:
        """The test is complete: delete what any unfinished test left in the folder."""
        for path in self.folder.glob(".unfinished_*.jsonl"):
            path.unlink()
