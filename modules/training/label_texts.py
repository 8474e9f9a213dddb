"""Which texts pixels are compared with in a training on several label sets: synonyms, templates, unions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from lseg_utils.errors import InputError
from lseg_utils.label_sets import LabelSet, plain_name

from ..models import LSegNet
from ..models.text_encoder import AS_IT_IS


class TrainingTexts:
    """The texts of label sets, which may change from step to step.

    Args:
        sets: the label sets.
        synonyms: text -> other names for it, of which one is drawn for each step. A name that would stand for two
            labels of a set is not used there.
        templates: sentences with one {}, of which one is drawn for each step.
    """

    def __init__(
        self,
        sets: Sequence[LabelSet],
        synonyms: Mapping[str, Sequence[str]] | None = None,
        templates: Sequence[str] = AS_IT_IS,
    ) -> None:
        self.sets, self.templates, self.synonyms = sets, tuple(templates), dict(synonyms or {})
        known = {plain_name(text): list(names) for text, names in self.synonyms.items()}
        # For each set and label the wordings of each of its texts; the first one is the text itself.
        self.wordings: list[list[list[list[str]]]] = []
        for one in sets:
            texts = [one.texts_of(label) for label in one.labels]
            named = [[[text, *known.get(plain_name(text), ())] for text in members] for members in texts]
            times = Counter(n for members in named for names in members for n in {plain_name(name) for name in names})
            self.wordings.append(
                [
                    [[names[0], *(name for name in names[1:] if times[plain_name(name)] == 1)] for names in members]
                    for members in named
                ]
            )

    @property
    def vary(self) -> bool:
        """Whether steps differ."""
        several = any(len(names) > 1 for one in self.wordings for members in one for names in members)
        return several or self.templates != AS_IT_IS

    def plain(self, number: int) -> list[list[str]]:
        """The texts of each label of set ``number`` as they are."""
        return [[names[0] for names in members] for members in self.wordings[number]]

    def draw(self, number: int, rng: np.random.Generator) -> list[list[str]]:
        """The texts of each label of set ``number`` for one step: a name for each text, one template for all."""
        template = self.templates[rng.integers(len(self.templates))]
        return [
            [template.replace("{}", names[rng.integers(len(names))]) for names in members]
            for members in self.wordings[number]
        ]

    def check(self, net: LSegNet) -> None:
        """``InputError`` for a wording that the network's text tower cannot read."""
        names = {name for one in self.wordings for members in one for names in members for name in names}
        try:
            for template in self.templates:
                net.text_encoder.tokenize([template.replace("{}", name) for name in sorted(names)])
        except ValueError as error:
            raise InputError(f"{error} (it comes from the labels, --synonyms and --templates together)") from error
