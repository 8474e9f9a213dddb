"""Where the label sets of several datasets agree, and where they contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

from data.relations import Relations
from lseg_utils.label_sets import LabelSet, plain_name

Places = dict[str, list[str]]
"""A name -> the datasets that have it."""

SUFFIXES = ("-merged", "-other", "-stuff")  # COCO's


def cleaned(name: str) -> str:
    """A name in lower case without COCO's endings, hyphens and the plural's s: what differs in spelling only."""
    name = plain_name(name)
    while name.endswith(SUFFIXES):
        name = name[: name.rindex("-")]
    words = name.replace("-", " ").split()
    last = words[-1]
    singular = last[:-1] if len(last) > 3 and last.endswith("s") and not last.endswith("ss") else last
    return " ".join([*words[:-1], singular])


def compare_sets(sets: Sequence[LabelSet], relations: Relations) -> dict[str, Any]:
    """What the label sets have to do with each other.

    Returns:
        ``counts``: labels of each dataset, ``total``, ``distinct`` names, and names that two or more sets ``shared``.
        ``same``: name -> datasets, for names in two or more. ``synonyms``: groups of names that mean the same or
        differ in their spelling only. ``parts``: whole -> its parts and kinds in other sets, by the list of
        ``relations`` or because the part's last words are the whole ('pool table' and 'table'). ``catch_all``: labels
        of one set whose extent depends on the rest of it.
    """
    places: Places = {}
    for one in sets:
        for label in one.labels:
            places.setdefault(plain_name(label), []).append(one.name)
    # Synonyms: the groups of the file, and equal names after cleaning; groups with a common name are one.
    groups: dict[str, set[str]] = {name: {name} for name in places}
    spelt: dict[str, str] = {}
    pairs = [(name, other) for name, others in relations.other_names().items() for other in others]
    pairs += [(spelt.setdefault(cleaned(name), name), name) for name in places]
    for one, other in pairs:
        if one in groups and other in groups and groups[one] is not groups[other]:
            groups[one] |= groups[other]
            groups.update(dict.fromkeys(groups[other], groups[one]))
    synonyms = {tuple(sorted(group)) for group in groups.values() if len(group) > 1}

    def apart(whole: str, part: str) -> bool:
        """Whether some set has one of them and another set the other."""
        return part not in groups[whole] and len({*places[whole], *places[part]}) > 1

    listed = [(whole, part) for whole, parts in relations.contains.items() for part in parts]
    listed += [(whole, part) for whole, part in permutations(places, 2) if part.endswith(f" {whole}")]
    parts = [(whole, part) for whole, part in dict.fromkeys(listed) if whole in places and part in places]
    catch_all = [name for name in places if _is_catch_all(name, relations.catch_all)]
    return {
        "counts": {one.name: len(one.labels) for one in sets},
        "total": sum(len(one.labels) for one in sets),
        "distinct": len(places),
        "shared": sum(len(names) > 1 for names in places.values()),
        "same": {name: found for name, found in places.items() if len(found) > 1},
        "synonyms": [{name: places[name] for name in group} for group in sorted(synonyms)],
        "parts": {
            whole: {part: places[part] for one, part in parts if one == whole and apart(whole, part)}
            for whole in dict.fromkeys(whole for whole, part in parts if apart(whole, part))
        },
        "catch_all": {name: places[name] for name in catch_all},
    }


def _is_catch_all(name: str, words: Sequence[str]) -> bool:
    """Whether one of the words is a word of the name, or the name itself."""
    return name in words or not {*name.replace("-", " ").split()}.isdisjoint(words)


def conflict_rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(kind, labels with their datasets, what to do), for the table."""

    def named(places: Places) -> str:
        return "; ".join(f"{name} ({', '.join(sets)})" for name, sets in places.items())

    rows = [("synonyms", named(group), "rename to one name") for group in found["synonyms"]]
    # Which sets have the parts is in the JSON file; here the line would be too long.
    rows += [("whole", f"{whole}: {', '.join(parts)}", "unite the whole") for whole, parts in found["parts"].items()]
    everything = [named({name: sets}) for name, sets in found["catch_all"].items()]
    return rows + [("catch-all", one, "drop, or keep knowingly") for one in everything]
