"""The settings of a page in its address, so that a link or a reload shows the same page again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

MAX_LETTERS = 1500  # of all values; browsers and chat programs cut longer addresses


class Link:
    """What the address asked for when this session began, and what it will ask for next time.

    Values come from visitors: each is used only if it is one of the page's own choices, or text for a text field.
    """

    def __init__(self) -> None:
        self._asked: dict[str, str] = st.session_state.setdefault("asked", dict(st.query_params))
        self._next: dict[str, str] = {}

    def text(self, name: str, default: str = "") -> str:
        """The text that was asked for under ``name``."""
        return self._asked.get(name, default)

    def position(self, name: str, choices: Sequence[str]) -> int:
        """The position in ``choices`` of what was asked for; 0 for anything else."""
        return choices.index(self._asked[name]) if self._asked.get(name) in choices else 0

    def share(self, name: str, default: float) -> float:
        """The number from 0 to 1 that was asked for, else the default."""
        try:
            return min(max(float(self._asked[name]), 0.0), 1.0)
        except (KeyError, ValueError):
            return default

    def keep(self, name: str, value: Any, default: Any = "") -> None:
        """Put a setting into the address, unless it is the default."""
        if value != default:
            self._next[name] = str(value)

    def write(self) -> None:
        """Show the settings in the browser's address; long label lists are left out."""
        if sum(map(len, self._next.values())) > MAX_LETTERS:
            self._next.pop("labels", None)
        if dict(st.query_params) != self._next:
            st.query_params.from_dict(self._next)
