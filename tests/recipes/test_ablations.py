"""The paper's ablations: each row can be built, has a source, and gives commands that our parsers accept."""

from __future__ import annotations

import pytest
import torch

import test_lseg
import train_lseg
from lseg_utils.errors import InputError
from modules.models import TEXT_TOWERS, build_lseg
from modules.models.backbones import BACKBONES
from modules.options import training_settings
from recipes.ablations import ablation, ablations, main

TEXT_DIMENSIONS = {"text_vitb32": 512, "text_vitb16": 512, "text_rn50x4": 640, "text_rn50x16": 768}


def test_rows_have_names_and_sources_of_their_own():
    rows = ablations()
    assert len({row.name for row in rows}) == len(rows) and all(row.source and row.options_source for row in rows)
    assert {row.options["backbone"] for row in rows} <= set(BACKBONES)
    blocks = {
        row.name: (row.options["arch_option"], row.options.get("block_depth"))
        for row in rows
        if "arch_option" in row.options
    }
    assert blocks["block_none"] == (0, None) and blocks["depthwise_4"] == (2, 4) and blocks["bottleneck_2"] == (1, 2)


@pytest.mark.parametrize("row", ablations(), ids=lambda row: row.name)
def test_commands_pass_our_own_parsers(row, tmp_path):
    words = row.train_command()[2:]
    settings = training_settings(train_lseg.build_parser().parse([*words, "--checkpoint_dir", str(tmp_path)]))
    assert settings.network.backbone == row.options["backbone"] and settings.optimization.max_epochs == 240
    assert settings.network.arch_option == row.options.get("arch_option")
    tested = test_lseg.build_parser().parse(row.test_command()[2:])
    assert f"ablation_{row.name}" in str(tested.weights) and settings.run.exp_name == f"ablation_{row.name}"


@pytest.mark.parametrize(("name", "dimensions"), TEXT_DIMENSIONS.items())
def test_the_text_encoder_decides_the_embedding(name, dimensions):
    backbone = ablation(name).options["backbone"]
    assert TEXT_TOWERS[BACKBONES[backbone].text].embed_dim == dimensions
    with torch.device("meta"):
        net = build_lseg(backbone, None)
    assert net.decoder.embedding.out_channels == dimensions and net.image_encoder.hooks == (2, 5, 8, 11)


def test_an_unknown_name_gets_the_nearest(capsys):
    with pytest.raises(InputError, match="did you mean bottleneck_2"):
        main(["botleneck_2"])
    main(["bottleneck_2"])
    printed = capsys.readouterr().out
    assert "--arch_option 1 --block_depth 2" in printed and "unconfirmed" in next(
        line for line in printed.splitlines() if "39.79" in line
    )
    main([])
    printed = capsys.readouterr().out
    assert all(row.name in printed for row in ablations())
