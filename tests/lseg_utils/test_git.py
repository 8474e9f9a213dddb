"""The state of the repository."""

from __future__ import annotations

import subprocess

import pytest

from lseg_utils.git import git_state
from scripts import REPOSITORY


def test_git_state_is_that_of_the_repository():
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    head = subprocess.run(["git", "-C", REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert git_state()["commit"] == head.stdout.strip()
    assert isinstance(git_state()["changed"], bool)
