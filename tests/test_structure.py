"""The house: which folder may import which, no circles, few files at the top, sizes of the rooms."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from scripts import REPOSITORY

# folder -> the folders that it may import; what is not named here (scripts, tests, benchmarks) may import anything
MAY_IMPORT = {
    "additional_utils": {"encoding_ext"},
    "lseg_utils": set(),
    "encoding_ext": {"lseg_utils"},
    "modules": {"encoding_ext", "lseg_utils"},
    "data": {"encoding_ext", "lseg_utils"},
    "miniature": {"data", "modules", "encoding_ext", "lseg_utils"},
    "apps": {"modules", "data", "encoding_ext", "lseg_utils"},
    "openvocab": {"modules", "data", "encoding_ext", "lseg_utils"},
    "recipes": {"modules", "data", "encoding_ext", "lseg_utils"},
    "paper": {"recipes", "modules", "data", "encoding_ext", "lseg_utils"},
}
ROOMS = set(MAY_IMPORT)


@cache
def imports(path: Path) -> frozenset[str]:
    """The dotted names of this repository that a file imports anywhere, type checking aside."""
    own = path.relative_to(REPOSITORY).with_suffix("").parts
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            for name in (f"{module}.{alias.name}" for alias in node.names):
                place = REPOSITORY / name.replace(".", "/")
                found.add(name if place.is_dir() or place.with_suffix(".py").is_file() else module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(name for name in found if name.split(".")[0] in ROOMS)


def files(room: str) -> list[Path]:
    return sorted((REPOSITORY / room).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_arrows_run_down(room):
    for path in files(room):
        used = {name.split(".")[0] for name in imports(path)} - {room}
        assert used <= MAY_IMPORT[room], f"{path} imports {sorted(used - MAY_IMPORT[room])}"


def test_models_import_no_other_folder():
    for path in files("modules/models"):
        for name in imports(path):
            assert (name + ".").startswith("modules.models."), f"{path} imports {name}"


def test_imports_inside_modules_are_relative():
    for path in files("modules"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.split(".")[0] != "modules", f"{path}:{node.lineno}"


def test_there_is_no_circle():
    modules = {module_of(path): path for room in ROOMS for path in files(room)}
    arrows = {name: {used for used in imports(path) if used in modules} - {name} for name, path in modules.items()}
    # A package's __init__ that resolves its names at first use imports nothing, so it closes no circle.
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for used in sorted(arrows[name]):
                walk(used, (*way, name))
            done.add(name)

    for name in sorted(arrows):
        walk(name, ())


def test_few_files_lie_at_the_top():
    aside = {"LICENSE", "CONTRIBUTING.md", "CITATION.cff", "CHANGELOG.md"}
    top = {path.name for path in REPOSITORY.iterdir() if path.is_file() and path.name[0] != "."} - aside
    assert len(top) <= 24, sorted(top)


def test_modules_is_about_a_third_of_the_source():
    lines = {room: sum(len(path.read_text().splitlines()) for path in files(room)) for room in ROOMS | {"benchmarks"}}
    lines["scripts"] = sum(len(path.read_text().splitlines()) for path in REPOSITORY.glob("*.py"))
    assert lines["modules"] < 0.36 * sum(lines.values()), lines
