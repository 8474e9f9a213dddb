"""Which labels mean the same, which contain others, and which mean everything else. Read from YAML or JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data.labels import LABEL_FILES
from data.yaml_file import YamlFile
from lseg_utils.label_sets import plain_name

KNOWN = LABEL_FILES / "relations.yaml"


@dataclass(frozen=True)
class Relations:
    """All names in lower case.

    synonyms: groups of names of the same thing. contains: a name -> what is part or kind of it. catch_all: words.
    """

    synonyms: list[list[str]] = field(default_factory=list)
    contains: dict[str, list[str]] = field(default_factory=dict)
    catch_all: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path = KNOWN) -> Relations:
        """From a file with the keys of the attributes; ``InputError`` with everything wrong in it.

        ``synonyms``: a list of groups, or a map from names to another name or several, as in the vocabularies of
        openvocab, whose other keys are not read.
        """
        file = YamlFile(path)
        known = ("synonyms", "contains", "catch_all", "about", "groups", "languages")
        content = file.mapping((), file.content, known)
        groups = content.get("synonyms", [])
        if isinstance(groups, dict):
            groups = [[name, *file.sequence(others)] for name, others in groups.items()]
        synonyms = []
        for i, group in enumerate(file.sequence(groups)):
            place = ("synonyms", i)
            synonyms.append([plain_name(file.text(place, name, "?")) for name in file.sequence(group)])
            if len(synonyms[-1]) < 2:
                file.fail(place, "a group of synonyms has one name; write at least two, as in [couch, sofa]")
        contains = {
            plain_name(whole): [plain_name(file.text(("contains", whole), part, "?")) for part in file.sequence(parts)]
            for whole, parts in file.mapping(("contains",), content.get("contains", {})).items()
        }
        words = [plain_name(file.text(("catch_all",), word, "?")) for word in file.sequence(content.get("catch_all"))]
        file.raise_problems()
        return cls(synonyms, contains, words)

    def other_names(self) -> dict[str, list[str]]:
        """Name -> the other names of its groups."""
        names: dict[str, list[str]] = {}
        for group in self.synonyms:
            for name in group:
                names.setdefault(name, []).extend(other for other in group if other not in (name, *names.get(name, ())))
        return names
