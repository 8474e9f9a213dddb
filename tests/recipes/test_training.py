"""The recipes of whole trainings: they are command lines of train_lseg.py, and run on stand-ins of their datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

import train_lseg
from data.description import read_description
from data.joint import split_sets
from lseg_utils.errors import InputError
from recipes.training import main, names, read_recipe, with_recipe
from stand_ins import make_stand_in

SMALL = "--crop_size 64 --base_size 64 --batch_size 2 --workers 0 --accelerator cpu --dry_run --label_sampling 5"


@pytest.mark.parametrize("name", names())
def test_a_recipe_is_a_command_line_whose_options_give_way_to_others(name, capsys):
    options = train_lseg.build_parser().parse(with_recipe(["--recipe", name, "--max_epochs", "3"]))
    assert options.exp_name == name and options.max_epochs == 3
    main([name])
    output = capsys.readouterr().out
    assert "licence" in output and "non-commercial" in output
    assert all(source in output for _, source in read_recipe(name).options.values())


def test_what_is_known_of_the_demo_model_is_told_apart_from_what_is_chosen():
    options = read_recipe("demo_e200").options
    assert options["backbone"][1].startswith("stated by the authors") and options["dataset"][1] == "our choice"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("about: x\nsources: {a: b}\noptions: {lr: 3}\n", ["line 3", "lr needs [VALUE, SOURCE]", "a"]),
        ("about: x\nsources: {a: b}\noptions: {lr: [3, c]}\n", ["line 3", "one of the sources"]),
        ("about: x\nopts: {}\n", ["'opts'", "'sources' is missing"]),
    ],
)
def test_a_recipe_with_faults(text, pieces, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        with_recipe([f"--recipe={tmp_path / 'mine.yaml'}"])
    assert all(piece in str(caught.value) for piece in pieces), caught.value


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="demo2025.*did you mean demo2026"):
        with_recipe(["--recipe", "demo2025"])


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", names())
def test_a_recipe_runs_on_stand_ins_with_random_weights(name, tmp_path: Path, capsys):
    for dataset, _ in split_sets(read_recipe(name).options["dataset"][0]):
        make_stand_in(read_description(dataset), tmp_path)
    places = ["--data_path", str(tmp_path), "--checkpoint_dir", str(tmp_path / "runs")]
    train_lseg.main(["--recipe", name, *SMALL.split(), *places])
    output = capsys.readouterr().out
    assert "cityscapes" in output and not list((tmp_path / "runs").rglob("*"))
