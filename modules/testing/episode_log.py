"""The finished episodes of a long zero-shot test on disk, so that a test which ends early can resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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
        return {index: areas for path in paths for index, areas, *_ in Ledger(path, self.test).records}

    def notes(self) -> set[str]:
        """What is unusual about the masks of the finished episodes, from all processes and earlier runs."""
        paths = sorted(self.folder.glob(f"{self._name}_*.jsonl"))
        found = (note for path in paths for _, _, *notes in Ledger(path, self.test).records for note in notes)
        return {line for note in found for line in note.splitlines()}

    def add(self, episodes: Mapping[int, Areas], notes: Sequence[str]) -> None:
        """Keep these episodes, with the dataset's note on each or ""."""
        self._ledger.append(*zip(episodes.keys(), episodes.values(), notes, strict=True))

    def remove(self) -> None:
        """The test is complete: delete what any unfinished test left in the folder."""
        for path in self.folder.glob(".unfinished_*.jsonl"):
            path.unlink()
