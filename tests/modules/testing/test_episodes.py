"""What a zero-shot test states about the network that it tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modules.choices import Speed
from modules.testing.episodes import EpisodeTest
from modules.testing.settings import TestRun
from tiny import tiny_net


class NoEpisodes:
    """A split without a single image."""

    name, fold, nshot, class_ids, labels, episodes = "pascal", 0, 0, (0,), ["dog"], ()

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("trained", "setting"),
    [
        ({}, "zero-shot"),
        ({"finetune_mode": True, "nshot": 5}, "zero-shot"),  # earlier runs learned from supports of training classes
        ({"finetune_mode": True, "nshot": 5, "trained_on": "supports of the test classes"}, "few-shot"),
    ],
)
def test_results_of_fine_tuned_networks_are_called_few_shot(trained, setting, tmp_path: Path):
    net = tiny_net(labels=["dog"])
    net.metadata = {"zero_shot": trained}
    (tmp_path / "a.ckpt").touch()
    run = TestRun("pascal", weights=tmp_path / "a.ckpt", output_dir=tmp_path)
    test = EpisodeTest(net, NoEpisodes(), lambda indices: (), run, Speed(), torch.device("cpu"))
    assert test.facts["setting"].split(":")[0] == setting
    assert setting == "zero-shot" or "5 per episode" in test.facts["setting"]
