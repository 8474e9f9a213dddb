"""The finished part of a long zero-shot test on disk, so that a run that ends early can be taken up again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Areas = list[list[int]]  # [[intersection, union] by [background, foreground]] of one episode, in pixels


class EpisodeLog:
    """One file per process under ``folder``; the first line says of which test, each other one is an episode.

    ``test``: everything that the result depends on (checkpoint, dataset, fold ...), in plain types. Episodes of
    another test, and a last line that a kill cut off, do not count.
    """

    def __init__(self, folder: Path, test: dict[str, Any], rank: int) -> None:
        self.folder, self.test = folder, json.loads(json.dumps(test))
        # A process id alone would come again, in containers at once, and mix this run's lines with another test's.
        self.path = folder / f".unfinished_{rank}_{os.getpid()}_{time.time_ns()}.jsonl"

    def finished(self) -> dict[int, Areas]:
        """Episode index -> areas, from all earlier runs of this test."""
        done: dict[int, Areas] = {}
        for path in self._files():
            lines = list(_whole_lines(path))
            if lines and lines[0] == self.test:
                done |= {index: areas for index, areas in lines[1:]}
        return done

    def add(self, episodes: Iterable[tuple[int, Areas]]) -> None:
        """Keep these episodes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a") as file:
            if new:
                file.write(json.dumps(self.test) + "\n")
            file.writelines(json.dumps(episode) + "\n" for episode in episodes)

    def remove(self) -> None:
        """The test is finished: nothing is left to take up."""
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(".unfinished_*.jsonl"))


def _whole_lines(path: Path) -> Iterable[Any]:
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return
