"""Recipes of whole trainings as YAML files: the options of ``train_lseg.py``, the source of each, and all licences.

``train_lseg.py --recipe NAME`` trains by one; further options take precedence. ``python -m recipes.training`` lists
them, and with a NAME it prints one. Importing this file does not import torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.description import read_description
from data.joint import split_sets
from data.yaml_file import YamlFile
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, did_you_mean, run_script
from lseg_utils.files import REPOSITORY
from lseg_utils.results import text_table

FOLDER = Path(__file__).resolve().parent / "trainings"
KEYS = ("about", "sources", "options", "licences", "cost")


@dataclass(frozen=True)
class TrainingRecipe:
    """A training.

    Attributes:
        name: of the file.
        about: what it trains, and what is unknown about it.
        options: of ``train_lseg.py``, by their names: value, and where it is from. A flag has the value "true".
        licences: of the weights that it starts from, by name; those of datasets are in their descriptions.
        cost: lines about time and memory, each with the command that computes it.
    """

    name: str
    about: str
    options: dict[str, tuple[str, str]]
    licences: dict[str, str]
    cost: list[str]

    def words(self) -> list[str]:
        """The options as a command line has them; files of this repository by their whole path."""
        words = []
        for option, (value, _) in self.options.items():
            path = REPOSITORY / value
            words += [f"--{option}", *([] if value == "true" else [str(path) if path.is_file() else value])]
        return words


def names() -> list[str]:
    """The recipes of this repository."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> TrainingRecipe:
    """One of ``names``, or a YAML file. Raises ``InputError`` with everything that is wrong with it."""
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = did_you_mean(name, names())
        raise InputError(f"there is no recipe {name}{known}; give one of {', '.join(names())}, or a YAML file")
    file = YamlFile(path)
    content = file.mapping((), file.content, KEYS, required=("about", "sources", "options"))
    sources = file.mapping(("sources",), content.get("sources", {}))
    options = {}
    for option, entry in file.mapping(("options",), content.get("options", {})).items():
        place = ("options", option)
        if not (isinstance(entry, list) and len(entry) == 2 and entry[1] in sources):
            file.fail(place, f"{option} needs [VALUE, SOURCE], with one of the sources {', '.join(sources)}")
        else:
            options[option] = (file.text(place, entry[0]), sources[entry[1]])
    licences = file.mapping(("licences",), content.get("licences", {}))
    cost = [file.text(("cost", i), line) for i, line in enumerate(file.sequence(content.get("cost")))]
    file.raise_problems()
    return TrainingRecipe(path.stem, file.text(("about",), content.get("about")), options, licences, cost)


def with_recipe(argv: Sequence[str]) -> list[str]:
    """A command line whose ``--recipe NAME`` is replaced by the recipe's options, before all others, which win."""
    rest, recipe = [], None
    words = iter(argv)
    for word in words:
        if word == "--recipe":
            recipe = next(words, "")
        elif word.startswith("--recipe="):
            recipe = word.partition("=")[2]
        else:
            rest.append(word)
    return rest if recipe is None else [*read_recipe(recipe).words(), *rest]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the names, or one recipe."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="print this recipe; default: list all")
    options = parser.parse(argv)
    if options.name is None:
        print(text_table(("recipe", "about"), [(name, read_recipe(name).about.split(". ")[0]) for name in names()]))
        return
    recipe = read_recipe(options.name)
    print(recipe.about)
    rows = [(option, value, source) for option, (value, source) in recipe.options.items()]
    print(text_table(("option", "value", "source"), rows))
    datasets = [read_description(name) for name, _ in split_sets(recipe.options["dataset"][0])]
    licences = [*recipe.licences.items(), *((one.name, one.licence or "not stated") for one in datasets)]
    print(text_table(("what", "licence"), licences))
    for line in recipe.cost:
        print(line)
    print(shlex.join(["python", "train_lseg.py", "--recipe", options.name]))


if __name__ == "__main__":
    run_script(main)
