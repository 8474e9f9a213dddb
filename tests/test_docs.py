"""The README and docs/ tell the truth: links lead somewhere, commands are accepted, code runs as printed."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
from typing import Any

import pytest
from PIL import Image

from checkpoint_files import tiny_checkpoint
from pages import PAGES, anchors, commands, fenced, links
from scripts import REPOSITORY
from user_strings import Text, all_texts, habits

DOCS = REPOSITORY / "docs"
# Those of extending.md are run by test_extending.py, with the changes that they need.
COMMANDS = sorted({command for page in PAGES if page.name != "extending.md" for command in commands(page)})


def mentioning(pattern: str) -> list[str]:
    return [command for command in COMMANDS if re.match(pattern, command)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_every_page_is_linked_from_the_readme():
    linked = {target.partition("#")[0] for target in links(PAGES[0])}
    assert {f"docs/{page.name}" for page in DOCS.glob("*.md")} <= linked


@pytest.mark.parametrize("line", mentioning(r"python \w+\.py [^.]"))
def test_every_command_of_a_script_is_accepted(line):
    _, script, *arguments = shlex.split(line)
    module = importlib.import_module(script.removesuffix(".py"))
    assert module.build_parser().parse(arguments)  # an unknown flag would raise SystemExit


def test_everything_that_commands_name_is_there():
    for line in COMMANDS:
        words = shlex.split(line.split(" --labels")[0], comments=True)
        for word in words:
            if word.endswith((".py", ".sh")) or re.fullmatch(r"requirements.*\.txt", word):
                assert (REPOSITORY / word).is_file(), line
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), line


@pytest.mark.parametrize("script", sorted({*re.findall(r"(?:bash|sbatch) .*?([\w/]+\.sh)", "\n".join(COMMANDS))}))
def test_every_recipe_is_valid_bash(script):
    result = subprocess.run(["bash", "-n", str(REPOSITORY / script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_train_zs_passes_options_on_that_training_takes():
    parser = importlib.import_module("train_lseg_zs").build_parser()
    own = {"--lrs": 1, "--folds": 1, "--control": 0}  # of train_zs.sh itself
    for line in mentioning(r"bash train_zs\.sh [a-z]"):
        words, passed = shlex.split(line)[4:], []
        while words:
            word = words.pop(0)
            if word in own:
                del words[: own[word]]
            else:
                passed.append(word)
        assert parser.parse(passed)


def test_texts_for_users_and_pages_avoid_the_phrases_that_the_project_avoids():
    pages = [Text(page, 0, line) for page in PAGES for line in page.read_text().splitlines()]
    found = [f"{text}: {habits(text.text)}" for text in [*all_texts(), *pages] if habits(text.text)]
    assert not found, "\n".join(found)


def test_the_snippet_of_the_predicting_page_runs(tmp_path, monkeypatch):
    (snippet,) = fenced(DOCS / "predicting.md", "python")
    tiny_checkpoint(tmp_path / "checkpoints" / "demo_e200.ckpt")
    Image.new("RGB", (50, 40), "green").save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert (tmp_path / "cat_overlay.jpg").is_file()
    assert names["best"].shape == names["scores"].shape == (2, 40, 50)
    assert names["tail"].shape == (40, 50) and names["again"].labels == ["animal", "plant"]
    assert names["embedding"].shape == (20, 25, 64)


def test_every_optional_package_has_its_purpose_in_install_md():
    page = (DOCS / "install.md").read_text(encoding="utf-8")
    extras = (REPOSITORY / "requirements-extras.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in extras if line and not line.startswith("#") and not line.startswith("nb")]
    assert [line for line in wanted if f'"{line}"' not in page] == []
    table = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    names = re.findall(r"^(\w+) = \[", table.split("\n[")[0], re.M)
    assert names and [name for name in names if f"`{name}`" not in page] == []
