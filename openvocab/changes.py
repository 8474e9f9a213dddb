"""Changes of a label list: synonyms, templates, typos, distractors, other levels. Does not import torch.

Legend: N canonical labels; M labels that a change offers; G classes that it is scored with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lseg_utils.errors import InputError

VOCABULARIES = Path(__file__).resolve().parent / "vocabularies"
DISTRACTORS = (10, 100, 1000)


@dataclass(frozen=True)
class Vocabulary:
    """What else the labels of a dataset are called.

    Attributes:
        synonyms: label, or one word of it -> another name.
        groups: name of a grouping -> group -> its labels; "*red" stands for all labels with the word red.
        languages: language -> label, or one word of it -> its name there.
    """

    synonyms: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    languages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, source: Path | None, dataset: str) -> Vocabulary:
        """From a JSON file; None: ours for the dataset, if there is one, else an empty vocabulary."""
        path = source or VOCABULARIES / f"{dataset}.json"
        if source is None and not path.is_file():
            return cls()
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(*(dict(content.get(name, {})) for name in ("synonyms", "groups", "languages")))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            text = "give a JSON file with synonyms, groups and languages (docs/openvocab.md)"
            raise InputError(f"the vocabulary {path} cannot be used ({error}); {text}") from error


@dataclass(frozen=True)
class Change:
    """A label list, and how its predictions are scored honestly.

    Attributes:
        name: in the report.
        labels: M texts that are offered.
        class_of: the class of each of them, G numbers from 0.
        truth_of: the class of each canonical label; -1: its pixels do not count.
        classes: names of the G classes. Those that are nobody's truth are distractors.
        templates: of the texts, as ``Wording`` takes them.
        renamed: how many labels have another text than in the canonical list.
    """

    name: str
    labels: tuple[str, ...]
    class_of: tuple[int, ...]
    truth_of: tuple[int, ...]
    classes: tuple[str, ...]
    templates: str = "none"
    renamed: int = 0


def changes_of(labels: Sequence[str], vocabulary: Vocabulary, seed: int = 0) -> list[Change]:
    """Every change of a canonical label list; the first is none at all, the second only its order."""
    labels = tuple(label.split(",")[0].strip() for label in labels)
    same = tuple(range(len(labels)))
    rng = random.Random(seed)

    def other_names(name: str, texts: Sequence[str], templates: str = "none") -> Change:
        """The same classes under other texts."""
        count = sum(text != label for text, label in zip(texts, labels, strict=True))
        return Change(name, tuple(texts), same, same, labels, templates, count)

    order = list(same)
    rng.shuffle(order)
    found = [
        other_names("canonical", labels),
        Change("order permuted", tuple(labels[i] for i in order), tuple(order), same, labels),
    ]
    # 1. The same classes under other texts.
    synonyms = [translated(label, vocabulary.synonyms) for label in labels]
    if synonyms != list(labels):
        mixed = [synonym if i % 2 else label for i, (label, synonym) in enumerate(zip(labels, synonyms))]
        found += [other_names("synonyms", synonyms), other_names("every other label renamed", mixed)]
        both = [(i, text) for i, pair in enumerate(zip(labels, synonyms)) for text in dict.fromkeys(pair)]
        owners, texts = zip(*both)
        count = len(texts) - len(labels)
        found.append(Change("labels and synonyms together", texts, owners, same, labels, renamed=count))
    found += [other_names(f"templates {name}", labels, name) for name in ("imagenet", "vild")]
    found += [
        other_names("plural", [plural(label) for label in labels]),
        other_names("article", [f"{'an' if label[0] in 'aeiou' else 'a'} {label}" for label in labels]),
        other_names("upper case", [label.upper() for label in labels]),
        other_names("typo in every label", [misspelt(label, rng) for label in labels]),
    ]
    found += [
        other_names(language, [translated(label, words) for label in labels])
        for language, words in vocabulary.languages.items()
    ]
    # 2. More labels, which no pixel has in truth.
    taken = [set(text.lower().split()) for text in (*labels, *synonyms)]
    extra = [text for text in _distractors() if not any(set(text.lower().split()) <= words for words in taken)]
    for count in (count for count in DISTRACTORS if count <= len(extra)):
        offered = (*labels, *extra[:count])
        found.append(Change(f"{count:,} distractors", offered, tuple(range(len(offered))), same, offered))
    # 3. Fewer labels: pixels of those that are missing do not count.
    kept = [i for i in same if i % 4 != 3]
    fewer, places = tuple(labels[i] for i in kept), tuple(kept.index(i) if i in kept else -1 for i in same)
    found.append(Change("every fourth label removed", fewer, tuple(range(len(kept))), places, fewer))
    # 4. Other levels: the groups' names instead of the labels, and the labels scored by group.
    for name, groups in vocabulary.groups.items():
        group_of = [_group_of(label, groups) for label in labels]
        classes = tuple(dict.fromkeys(group_of))
        truth = tuple(classes.index(group) for group in group_of)
        found.append(Change(f"{name} instead of labels", classes, tuple(range(len(classes))), truth, classes))
        found.append(Change(f"labels, scored by {name}", labels, truth, truth, classes))
    return found


def translated(label: str, words: Mapping[str, str]) -> str:
    """The label's other name, as a whole or word by word; itself if there is none."""
    return words.get(label) or " ".join(words.get(word, word) for word in label.split())


def plural(label: str) -> str:
    """The plural of the last word by the regular rules of English; of a mass noun too, which is wrong on purpose."""
    if label.endswith(("s", "x", "ch", "sh")):
        return f"{label}es"
    return f"{label[:-1]}ies" if label.endswith("y") and label[-2:-1] not in "aeiou" else f"{label}s"


def misspelt(label: str, rng: random.Random) -> str:
    """Two neighbouring letters of the longest word exchanged, not its first; a word of two letters is doubled."""
    words = label.split()
    longest = max(range(len(words)), key=lambda i: len(words[i]))
    word = words[longest]
    places = [i for i in range(1, len(word) - 1) if word[i] != word[i + 1]]
    if places:
        at = rng.choice(places)
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    else:
        word += word[-1]
    return " ".join([*words[:longest], word, *words[longest + 1 :]])


def _distractors() -> list[str]:
    lines = (VOCABULARIES / "distractors.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _group_of(label: str, groups: Mapping[str, Sequence[str]]) -> str:
    of_label = {label, *(f"*{word}" for word in label.split())}
    return next((name for name, members in groups.items() if of_label & {*members}), label)
