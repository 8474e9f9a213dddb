"""Print every text that users of the scripts may see, for a review of the language alone.

python tests/user_strings.py                 all texts: help, errors, warnings, notes, reports, app
python tests/user_strings.py --docstrings    docstrings and comments as well
python tests/user_strings.py --habits        only texts that match one of HABITS, phrases this project avoids
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = (
    "apps",
    "benchmarks",
    "data",
    "encoding_ext",
    "examples",
    "lseg_utils",
    "miniature",
    "modules",
    "openvocab",
    "recipes",
)

# What a native technical writer would put otherwise, each with the better word.
HABITS = {
    r"(?<!there )(?<!There )\b(is|are) no\b(?! longer| more| faster| larger)": "is not",
    r"\b(has|have) not\b(?! been)": "does not have",
    r"\bbeside\b": "next to, besides",
    r"\b(goes|go|going|went) on\b": "resumes, continues",
    r"\bholds?\b(?! out)": "contains",
    r"\b(stands|stood)\b(?! for)": "is",
    r"\b(knows|knew)\b": "has, supports",
    r"\b[Oo]ne a line\b": "one per line",
    r"\b(take|takes|took|taken|taking) up\b": "resume",
    r"\bsaid\b": "given, reported",
    r"\b(is|are|was|were) named\b|\bnamed (at|by|in) ": "is listed, reported, called",
    r"^Of (a|an|the|one|what|two|several)\b|(?<=[.;:] )Of (a|an|the|one|what|two|several)\b": "start with the subject",
    r"\b(where|what) to\b(?= *$)": "give the noun",
    r"\bput right\b|\bmend(ed|s)?\b": "fix",
}


class Text(NamedTuple):
    """One text, and where it is."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(REPOSITORY)}:{self.line}: {self.text}"


def sources() -> list[Path]:
    """The Python files that users run or import, without the tests."""
    return sorted([*REPOSITORY.glob("*.py"), *(path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))])


def texts(path: Path, docstrings: bool = False) -> Iterator[Text]:
    """Every string of a file that contains several words; placeholders of f-strings become {...}.

    A module's docstring is always one of them, because parsers show it in their help.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            if is_text and not docstrings and not isinstance(node, ast.Module):
                inner.add(first.value)
        if isinstance(node, ast.JoinedStr):
            inner.update(node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{...}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
            text = node.value
        else:
            continue
        if re.search(r"[A-Za-z]{2}.*\s.*[A-Za-z]{2}", text, re.DOTALL):
            yield Text(path, node.lineno, " ".join(text.split()))
    if docstrings:
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            if token.type == tokenize.COMMENT:
                yield Text(path, token.start[0], token.string.lstrip("# "))


def shell_texts(path: Path) -> Iterator[Text]:
    """The comments of a shell script, which are its help, and what it prints."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#") or re.search(r"\b(say|echo|printf)\b", line):
            yield Text(path, number, line.strip().lstrip("# "))


def all_texts(docstrings: bool = False) -> list[Text]:
    """The texts of all Python files and shell scripts."""
    shell = sorted([*REPOSITORY.glob("*.sh"), *REPOSITORY.glob("recipes/*.sh"), *REPOSITORY.glob("benchmarks/*.sh")])
    return [
        *(text for path in sources() for text in texts(path, docstrings)),
        *(text for path in shell for text in shell_texts(path)),
    ]


def habits(text: str) -> list[str]:
    """The phrases of a text that match HABITS, each with what to write instead."""
    return [f"{found[0]} -> {better}" for habit, better in HABITS.items() for found in re.finditer(habit, text)]


def main(arguments: list[str]) -> None:
    """Print the texts."""
    for text in all_texts("--docstrings" in arguments):
        found = habits(text.text)
        if "--habits" not in arguments:
            print(text)
        elif found:
            print(f"{text}\n    {'; '.join(found)}")


if __name__ == "__main__":
    main(sys.argv[1:])
