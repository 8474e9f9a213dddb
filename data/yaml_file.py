"""A YAML file as plain texts, lists and mappings, with the line of everything in it, so that errors can name it.

Every scalar stays the text that was typed: a label `no` is not a truth value, and `007` is not seven.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lseg_utils.errors import InputError, did_you_mean

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with it
Place = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


class YamlFile:
    """A parsed file, and readers of its values that note what is wrong instead of raising.

    ``content``: the document. ``problems``: a sentence with file and line for each fault found so far; call
    :meth:`raise_problems` at the end. Raises ``InputError`` at once for a file that cannot be read or is not YAML.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.problems, self._lines = path, list[str](), dict[Place, int]()
        self._seen = set[int]()
        try:
            node = yaml.compose(path.read_text(encoding="utf-8-sig"), _LOADER)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; check its name and access") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not a UTF-8 text file ({error.reason}); save it as UTF-8") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            advice = "correct it there (indent with spaces, and quote texts that contain ': ' or ' #')"
            raise InputError(f"{path}, line {line}: not valid YAML ({error.problem}); {advice}") from error
        except yaml.YAMLError as error:
            raise InputError(f"{path} is not a YAML file ({error}); write `key: value` lines") from error
        self.content = {} if node is None else self._plain(node, ())

    def fail(self, place: Place, text: str) -> None:
        """Note a fault of the value at ``place``."""
        while place and place not in self._lines:
            place = place[:-1]
        self.problems.append(f"{self.path}, line {self._lines.get(place, 1)}: {text}")

    def raise_problems(self) -> None:
        """One ``InputError`` with all that was noted, by line."""
        if self.problems:
            raise InputError("\n".join(self.problems))

    def mapping(self, place: Place, value: Any, known: Sequence[str] = (), required: Sequence[str] = ()) -> dict:
        """The entries of a mapping whose keys are ``known`` (none given: any); other keys are faults."""
        if not isinstance(value, dict):
            what = f"{place[-1]} is" if place else "the file is"
            keys = f" with the keys {', '.join(known)}" if known else ""
            self.fail(place, f"{what} {_kind(value)}; write a mapping{keys}")
            return {}
        strange = [key for key in value if known and key not in known]
        for key in strange:
            self.fail(
                (*place, key),
                f"unknown key {key!r}{did_you_mean(key, known)}; the keys here are {', '.join(known)}",
            )
        for key in required:
            if key not in value:
                where = f" in {place[-1]}" if place else ""
                self.fail(place, f"the key {key!r} is missing{where}; add it")
        return {key: entry for key, entry in value.items() if key not in strange}

    def text(self, place: Place, value: Any, default: str = "") -> str:
        """A text that is not empty; ``default`` if ``value`` is None or wrong."""
        if value is None:
            return default
        if isinstance(value, str) and value.strip():
            return value.strip()
        self.fail(place, f"{place[-1]} is {_kind(value)}; write a text")
        return default

    def file_name(self, place: Place, value: Any, default: str = "") -> str:
        """A text that can be a path: no part of it is too long for a file name."""
        text = self.text(place, value, default)
        if (
            "\0" in text
            or len(text.encode(errors="replace")) > 4000
            or any(len(p.encode()) > 255 for p in text.split("/"))
        ):
            self.fail(place, f"{place[-1]} is too long, or has a character that file names cannot have; write a path")
            return default
        return text

    def choice(self, place: Place, value: Any, choices: Sequence[str]) -> str:
        """One of ``choices``, the first by default."""
        text = self.text(place, value, choices[0])
        if text not in choices:
            self.fail(
                place, f"{place[-1]} is {text!r}{did_you_mean(text, choices)}; choose one of {', '.join(choices)}"
            )
            return choices[0]
        return text

    def number(self, place: Place, value: Any, kind: type, default: Any = None, least: float = 1) -> Any:
        """A number of type ``kind`` (int or float), at least ``least``."""
        if value is None:
            return default
        try:
            number = kind(value)
        except (TypeError, ValueError):
            number = None
        if number is not None and least <= number < float("inf"):
            return number
        whole = "whole " if kind is int else ""
        found = repr(value) if isinstance(value, str) else _kind(value)
        self.fail(place, f"{_name(place)} is {found}; give a {whole}number of at least {least:g}")
        return default

    def sequence(self, value: Any) -> list:
        """The entries of a list; a single value counts as a list of one, None as none."""
        if value is None:
            return []
        return value if isinstance(value, list) else [value]

    def _plain(self, node: yaml.Node, place: Place) -> Any:
        self._lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return node.value
        if id(node) in self._seen:
            self.fail(place, "an alias (*) repeats another part of the file; write that part out")
            return {}
        self._seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(child, (*place, i)) for i, child in enumerate(node.value)]
        plain: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._lines[place] = key.start_mark.line + 1
                self.fail(place, "a key is a list or a mapping; write a text or a number before the colon")
                continue
            below = (*place, key.value)
            if key.value in plain:
                first, again = self._lines[below], key.start_mark.line + 1
                repeated = f"the key {key.value!r} was given in line {first} already; keep one of them"
                self.problems.append(f"{self.path}, line {again}: {repeated}")
                continue
            plain[key.value] = self._plain(child, below)
            self._lines[below] = key.start_mark.line + 1
        return plain


def _name(place: Place) -> str:
    """What a number at ``place`` is called: its key, or that of the list it is in."""
    return str(next((key for key in reversed(place) if isinstance(key, str)), "the file"))


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value!r}" if value.strip() else "empty"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "missing"
