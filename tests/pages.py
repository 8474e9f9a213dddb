"""Reading this project's Markdown pages: their code blocks, commands, links and headings."""

from __future__ import annotations

import re
from pathlib import Path

from scripts import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def fenced(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [body for found, body in blocks if found == language]


def commands(page: Path) -> list[str]:
    """The command lines of a page: those of its bash blocks, and those quoted in its text."""
    text = page.read_text(encoding="utf-8")
    lines = "\n".join(fenced(page, "bash")).replace("\\\n", " ").splitlines()
    quoted = re.findall(r"`((?:python|bash|torchrun|sbatch|pip|streamlit) [^`]+)`", text)
    return [line for line in (line.split("  #")[0].strip() for line in [*lines, *quoted]) if line and line[0] != "#"]


def links(page: Path) -> list[str]:
    """What a page links to inside the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [target for target in targets if not target.startswith("http")]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
