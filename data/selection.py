"""Which (class, image) pairs make up a split of a zero-shot benchmark, and which classes are held out of training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from data.episodes import EPISODES, Pair
from lseg_utils.errors import InputError


@dataclass(frozen=True)
class Selection:
    """What a split consists of.

    episodes: the whole sequence of pairs, with repetitions. pairs, weights: the distinct ones in the order of their
    first occurrence, and how often each occurs. supports: class -> images from which its supports are taken.
    """

    class_ids: tuple[int, ...]
    episodes: list[Pair]
    pairs: list[Pair]
    weights: list[int]
    supports: dict[int, list[str]]

    def supports_only(self) -> Selection:
        """The same episodes, of which only supports are read: ``pairs`` are the supports, each with weight 1."""
        pairs = [(class_id, image) for class_id, images in self.supports.items() for image in images]
        return replace(self, pairs=pairs, weights=[1] * len(pairs))


def make_selection(
    classes: Sequence[int],
    episodes: Sequence[Pair],
    pool: Iterable[Pair],
    nshot: int,
    where: str,
    named: Callable[[int], str],
) -> Selection:
    """Group ``episodes`` into distinct pairs, and ``pool`` into supports by class.

    where, named: the split and the name of a class, for messages.

    Raises ``InputError`` for a class without images, or with fewer than ``nshot`` images besides the one to segment.
    """
    counts = Counter(episodes)
    supports: dict[int, list[str]] = {class_id: [] for class_id in classes}
    for class_id, image in pool:
        supports[class_id].append(image)
    empty = [named(class_id) for class_id, images in supports.items() if not images]
    if empty:
        raise InputError(
            f"{where}: there are no images of class {', '.join(empty)}; add some to the split's list, or leave it out"
        )
    scarce: dict[int, int] = {}
    for class_id, image in counts:
        if len(supports[class_id]) <= nshot:
            others = len(set(supports[class_id]) - {image})
            scarce |= {class_id: others} if others < nshot else {}
    if scarce:
        texts = [f"class {named(class_id)} has {number}" for class_id, number in sorted(scarce.items())]
        raise InputError(
            f"{where}: --nshot {nshot} needs {nshot} support images of each class besides the one to segment, but "
            f"{', '.join(texts)}; use fewer shots or other classes"
        )
    return Selection(tuple(classes), list(episodes), list(counts), list(counts.values()), supports)


def held_out_classes(training: Sequence[int], held_out: int | Sequence[int]) -> tuple[int, ...]:
    """The classes that ``held_out`` means: those given, or as many as it says, evenly spread over ``training``.

    Raises ``InputError`` if one of them is not in ``training``, or if none would be left to train on.
    """
    if isinstance(held_out, int):
        if not 0 <= held_out < len(training):
            most = len(training) - 1
            raise InputError(f"cannot hold out {held_out} of {len(training)} training classes; give 0 to {most}")
        return tuple(training[(2 * k + 1) * len(training) // (2 * held_out)] for k in range(held_out))
    strangers = sorted(set(held_out) - set(training))
    if strangers:
        raise InputError(
            f"cannot hold out {', '.join(map(str, strangers))}: not among this fold's training classes, which are "
            f"{', '.join(map(str, training))}"
        )
    if len(set(held_out)) == len(training):
        raise InputError("cannot hold out every training class; leave some to train on")
    return tuple(sorted(set(held_out)))


def without_held_out(pairs: Sequence[Pair], held_out: Sequence[int]) -> list[Pair]:
    """The training pairs of all other classes, in their order."""
    left_out = set(held_out)
    return [(class_id, image) for class_id, image in pairs if class_id not in left_out]


def of_held_out(pairs: Sequence[Pair], held_out: Sequence[int]) -> list[Pair]:
    """The training pairs of the held-out classes, without those whose image is trained on for another class.

    As in the test, validation then meets neither its classes nor its images in training, where such an image would
    teach that the held-out class belongs to 'others'.
    """
    wanted = set(held_out)
    trained = {image for _, image in without_held_out(pairs, held_out)}
    kept = [(class_id, image) for class_id, image in pairs if class_id in wanted and image not in trained]
    empty = sorted(wanted - {class_id for class_id, _ in kept})
    if empty:
        raise InputError(
            f"cannot hold out {', '.join(map(str, empty))}: each of its images is trained on for another class too; "
            f"hold out other classes"
        )
    return kept


def spread(pairs: Sequence[Pair], held_out: Sequence[int]) -> list[Pair]:
    """At most as many pairs as the official validation has episodes, equally many of each class, evenly spread."""
    limit = max(EPISODES // len(held_out), 1)
    chosen = []
    for class_id in held_out:
        own = [pair for pair in pairs if pair[0] == class_id]
        taken = min(limit, len(own))
        chosen += [own[k * len(own) // taken] for k in range(taken)]
    return chosen
