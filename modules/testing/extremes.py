"""The best and the worst few of many scored items, without keeping the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch.distributed as dist


class Scored(NamedTuple):
    """An item with its score and a unique name."""

    score: float
    name: str
    thing: Any


class Extremes:
    """Keeps the ``count`` best and the ``count`` worst of what is added; equal scores are ordered by name."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.best: list[Scored] = []
        self.worst: list[Scored] = []

    def add(self, score: float, name: str, make: Callable[[], Any]) -> None:
        """Add an item; ``make`` is only called if the item is kept."""
        place = Scored(score, name, None)
        if any(place in kept for kept in self._ordered([place])):
            self._keep([Scored(score, name, make())])

    def gather(self) -> Extremes:
        """Make them the extremes of all processes together (every process has to call it); returns self."""
        if dist.is_available() and dist.is_initialized():
            everyones: list[list[Scored]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(everyones, self.best + self.worst)
            self._keep(scored for kept in everyones for scored in kept)
        return self

    def map(self, function: Callable[[Any], Any]) -> Extremes:
        """The same names and scores, with ``function`` applied to each item."""
        mapped = Extremes(self.count)
        mapped._keep(scored._replace(thing=function(scored.thing)) for scored in {*self.best, *self.worst})
        return mapped

    def _keep(self, new: Iterable[Scored]) -> None:
        self.best, self.worst = self._ordered(new)

    def _ordered(self, new: Iterable[Scored]) -> tuple[list[Scored], list[Scored]]:
        """What would be kept after adding ``new``."""
        by_name = {scored.name: scored for scored in [*self.best, *self.worst, *new]}.values()
        best = sorted(by_name, key=lambda scored: (-scored.score, scored.name))
        worst = sorted(by_name, key=lambda scored: (scored.score, scored.name))
        return best[: self.count], worst[: self.count]
