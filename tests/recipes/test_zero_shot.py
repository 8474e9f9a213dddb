"""The zero-shot recipes: every row has a source, official numbers are the golden ones, and what is missing is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.episodes import BENCHMARKS
from lseg_utils.errors import InputError
from modules.models.backbones import BACKBONES
from recipes.report_zs import read_folds
from recipes.zero_shot import main, recipe_for, recipes
from train_lseg_zs import build_parser, check_all, fill_from_recipe

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "zero_shot_training.json").read_text())["rate_factors"]


def test_each_published_benchmark_and_backbone_has_one_row_with_sources():
    rows = [(recipe.benchmark, recipe.backbone) for recipe in recipes()]
    assert len(set(rows)) == len(rows) and {backbone for _, backbone in rows} <= set(BACKBONES)
    assert {(name, backbone) for name in BENCHMARKS for backbone in ("clip_resnet101", "clip_vitl16_384")} <= set(rows)
    for recipe in recipes():
        assert recipe.values.keys() == recipe.sources.keys() and all(recipe.sources.values())


@pytest.mark.parametrize("backbone", ["clip_resnet101", "clip_vitl16_384"])
@pytest.mark.parametrize("name", ["pascal", "coco"])
def test_pascal_and_coco_stop_long_before_their_schedule_ends(name, backbone):
    recipe, note = recipe_for(name, backbone)
    assert recipe.values["schedule_epochs"] == GOLDEN["length_of_schedule"] and not note
    assert recipe.values["max_epochs"] == GOLDEN["training_ends_after_epoch"][name] + 1


def test_fss_has_its_own_recipe_that_is_not_stopped():
    values, sources = recipe_for("fss", "clip_resnet101")[0].values, recipe_for("fss", "clip_resnet101")[0].sources
    assert GOLDEN["training_ends_after_epoch"]["fss"] is None
    assert (values["base_lr"], values["max_epochs"], values["schedule_epochs"]) == (0.05, 60, None)
    assert "secondary source" in sources["base_lr"] and "our choice" in sources["schedule_epochs"]


def test_a_backbone_without_a_recipe_gets_the_nearest_and_a_note():
    recipe, note = recipe_for("coco", "clip_vitb32_384")
    assert recipe.backbone == "clip_vitl16_384" and "clip_vitb32_384" in note and "clip_resnet101" in note
    assert recipe_for("pascal", "tiny_resnet")[0].benchmark == "pascal"


def test_a_benchmark_without_recipes_is_told_with_those_that_have_some(capsys):
    with pytest.raises(InputError, match="'ade20k'; choose one of pascal, coco, fss, miniature_zs"):
        recipe_for("ade20k", "clip_resnet101")
    with pytest.raises(InputError, match="did you mean pascal"):
        recipe_for("pascla", "clip_resnet101")
    with pytest.raises(InputError, match="no 'epochs'; choose one of base_lr, batch_size"):
        main(["pascal", "clip_resnet101", "--value", "epochs"])


def test_the_command_prints_the_table_or_a_value(capsys):
    main(["fss", "clip_resnet101", "--value", "base_lr"])
    assert capsys.readouterr().out == "0.05\n"
    main(["fss", "clip_vitb32_384"])
    printed = capsys.readouterr().out
    assert "max_epochs" in printed and "note: " in printed and "secondary source" in printed


def filled(*arguments):
    options = build_parser().parse(list(arguments))
    fill_from_recipe(options)
    return options


def test_the_script_takes_from_the_recipe_what_is_not_given(capsys):
    options = filled("--dataset", "fss", "--batch_size", "8")
    assert (options.base_lr, options.batch_size, options.nshot, options.max_epochs) == (0.05, 8, 1, 60)
    assert options.schedule_epochs is None and "recipe fss clip_resnet101: base_lr 0.05" in capsys.readouterr().out
    options = filled("--dataset", "coco", "--backbone", "clip_vitb32_384", "--nshot", "0")
    assert (options.schedule_epochs, options.max_epochs, options.nshot) == (200, 4, 0)
    assert "note: there is no recipe for coco with clip_vitb32_384" in capsys.readouterr().out
    assert filled("--dataset", "coco", "--schedule", "cosine").schedule_epochs is None


def test_fine_tuning_says_what_it_cannot_do(tmp_path):
    arguments = ["--data_path", str(tmp_path), "--finetune_mode", "--select", "held_out", "--nshot", "0"]
    with pytest.raises(InputError) as caught:
        check_all(build_parser().parse(arguments))
    for piece in ("give --nshot 1 or 5", "leave out --select held_out"):
        assert piece in str(caught.value)
    with pytest.raises(InputError, match="pascal, fold 0, finetune and val"):
        check_all(build_parser().parse(["--data_path", str(tmp_path), "--finetune_mode", "--nshot", "5"]))


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"miou": 1.0}', '{"miou": NaN, "fb_iou": 1, "trained": {}}', "[" * 5000]
)
def test_a_result_that_is_damaged_is_named(content, tmp_path):
    path = tmp_path / "fold0" / "results.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(InputError, match=r"fold0/results\.json"):
        read_folds(tmp_path)
