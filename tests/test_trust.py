"""Every test that docs/trust.md names for an attack or a silent fault exists, so that none is lost by renaming."""

from __future__ import annotations

import ast
import re

import pytest

from scripts import REPOSITORY

ROWS = [line for line in (REPOSITORY / "docs" / "trust.md").read_text().splitlines() if line.startswith("| ")]
NAMED = sorted({found for row in ROWS for found in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)})


def test_every_row_names_a_test():
    assert len(ROWS) > 20
    assert all("::" in row for row in ROWS if not re.match(r"\| (---|attack|what) ", row))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_it_exists(file, name):
    functions = [node.name for node in ast.parse((REPOSITORY / file).read_text()).body if hasattr(node, "name")]
    assert name in functions
