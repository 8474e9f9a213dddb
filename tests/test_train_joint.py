"""train_lseg.py on several datasets: trains, resumes, survives kills, refuses what does not go together."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import test_lseg
import train_lseg
from data.joint import JointChoice
from data.loading import JointSampler, make_loader
from joint_sets import COLOURS, SHAPES, make_two
from lseg_utils.errors import InputError
from modules.checkpoints import load_lseg
from modules.lseg_module_joint import LSegModuleJoint
from modules.safe_load import read_torch_file
from modules.training.label_texts import TrainingTexts
from modules.zoo import identify
from scripts import TINY, environment, forked, run, torchrun
from tiny import tiny_net

ALL_AT_ONCE = ("--label_sampling", 2, "--synonyms", "known", "--templates", "imagenet")


@pytest.fixture
def datasets(tmp_path: Path) -> str:
    return make_two(tmp_path)


def arguments(tmp_path: Path, datasets: str, *more: object) -> list[object]:
    return ["--dataset", datasets, "--checkpoint_dir", tmp_path / "runs", *TINY, *more]


def train(tmp_path: Path, datasets: str, *more: object) -> None:
    train_lseg.main(list(map(str, arguments(tmp_path, datasets, *more))))


def last_checkpoint(tmp_path: Path, name: str) -> Path:
    return tmp_path / "runs" / name / "version_0" / "checkpoints" / "last.ckpt"


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return read_torch_file(path)["state_dict"]


@pytest.mark.usefixtures("one_thread")
def test_trains_says_what_it_trains_and_the_checkpoint_explains_itself(tmp_path, datasets, capsys):
    train(tmp_path, datasets, "--exp_name", "run", "--max_epochs", 1, "--batch_size", 2, *ALL_AT_ONCE)
    output = capsys.readouterr().out
    assert "shapes" in output and "colours+shapes" in output and "no label of colours" in output
    last = last_checkpoint(tmp_path, "run")
    metadata = read_torch_file(last)["lseg"]
    assert metadata["label_sets"] == {"colours": list(COLOURS), "shapes": list(SHAPES)}
    assert metadata["weights"] == {"colours": 1.0, "shapes": 2.0} and metadata["label_sampling"] == 2
    assert {"val_miou_epoch", "val_miou_colours", "val_miou_shapes"} <= metadata["metric"].keys()
    assert metadata["step"] == 7  # (6 + 2 * 4) / 2
    assert load_lseg(last).labels == [*COLOURS, *SHAPES]
    assert [command.split("--dataset ")[1].split()[0] for command in identify(last).commands] == ["colours", "shapes"]
    # A test on one of the datasets takes that dataset's labels.
    test = ["--eval", "--weights", last, "--dataset", tmp_path / "shapes.yaml", "--scales", 1, "--workers", 0]
    test_lseg.main(list(map(str, [*test, "--output_dir", tmp_path / "out", "--log_dir", tmp_path / "logs"])))
    assert list(json.loads((tmp_path / "out" / "results.json").read_text())["per_class_iou"]) == list(SHAPES)

    with pytest.raises(InputError) as caught:
        train(tmp_path, datasets + "0", "--exp_name", "run", "--max_epochs", 2, "--batch_size", 2, *ALL_AT_ONCE)
    assert "started differently" in str(caught.value) and "weights" in str(caught.value)


def test_problems_are_reported_together_before_anything_is_built(tmp_path, datasets):
    (tmp_path / "table.yaml").write_text("colours: {drop: [pink]}\n")
    options = ["--head", "classes", "--ignore_index", 7, "--label_table", tmp_path / "table.yaml"]
    with pytest.raises(InputError) as caught:
        train(tmp_path, datasets, *options, "--templates", "none.txt", "--synonyms", tmp_path / "no.json")
    for piece in ("--head classes", "--ignore_index 7", "'pink'", "none.txt", "no.json"):
        assert piece in str(caught.value)
    with pytest.raises(InputError, match="--label_sampling is 0"):
        train(tmp_path, datasets, "--label_sampling", 0)
    with pytest.raises(InputError, match="pascal"):
        train(tmp_path, f"{datasets},pascal")


@pytest.mark.usefixtures("one_thread")
def test_the_mean_of_two_processes_gradients_is_that_of_one_process_with_the_double_batch(tmp_path):
    # As DDP averages them. Every pixel has a label, no crop has a margin: each process's mean counts as many pixels.
    choice = JointChoice.of(make_two(tmp_path, gaps=False), label_sampling=1, base_size=256)
    dataset = choice.load("train")
    texts = TrainingTexts(choice.label_sets, {"red": ["crimson"], "sky": ["heaven"]}, ("{}", "a {}"))
    module = LSegModuleJoint(tiny_net(labels=dataset.labels), texts=texts)

    def steps(batch_size: int, rank: int, world: int) -> list[dict[str, torch.Tensor]]:
        """The gradients of each step of an epoch in one of so many processes."""
        sampler = JointSampler([6, 4], dataset.weights, 0, batch_size, rank, world)
        found = []
        for number, batch in enumerate(make_loader(dataset, batch_size, 0, True, drop_last=True, sampler=sampler)):
            module.zero_grad()
            module.batch_loss(batch, number)[0].backward()
            found.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
        return found

    one, two = steps(4, 0, 1), [steps(2, rank, 2) for rank in range(2)]
    assert len(one) == len(two[0]) == 3
    for together, *apart in zip(one, *two, strict=True):
        assert any(gradient.abs().max() > 1e-3 for gradient in together.values())
        for name, gradient in together.items():
            torch.testing.assert_close(sum(each[name] for each in apart) / 2, gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_killed_and_resumed_ends_with_the_same_weights(tmp_path, datasets):
    # 0.7 of an epoch: each epoch begins in the middle of an order.
    options = arguments(tmp_path, datasets[:-1] + "0.7", "--max_epochs", 4, "--batch_size", 2, *ALL_AT_ONCE)
    train_lseg.main(list(map(str, [*options, "--exp_name", "undisturbed"])))
    last = last_checkpoint(tmp_path, "killed")
    with subprocess.Popen(
        forked("train_lseg.py", *options, "--exp_name", "killed"),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.DEVNULL,
    ) as process:
        while not last.exists():
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    killed_at = read_torch_file(last)["lseg"]["epoch"]
    train_lseg.main(list(map(str, [*options, "--exp_name", "killed"])))
    assert killed_at < 3, "it was killed too late to resume"
    expected, found = weights_of(last_checkpoint(tmp_path, "undisturbed")), weights_of(last)
    assert not [name for name in expected if not torch.equal(expected[name], found[name])]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_double_batch(tmp_path, monkeypatch):
    # Every pixel has a label, and no crop has a margin, as above. The rate is per images of a process.
    datasets, losses = make_two(tmp_path, gaps=False), {}
    for processes, batch, rate in ((1, 4, 0.02), (2, 2, 0.04)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        sizes = ("--backbone", "tiny_resnet", "--max_epochs", 3, "--check_val_every_n_epoch", 3, "--base_size", 256)
        options = arguments(tmp_path, datasets, *sizes, "--batch_size", batch, "--base_lr", rate, *ALL_AT_ONCE)
        monkeypatch.setenv("ALTER", f"freeze:{folder}")
        start = run if processes == 1 else partial(torchrun, processes)
        start("tests/altered_training.py", *options, "--exp_name", processes, cwd=tmp_path)
        losses[processes] = np.mean([np.loadtxt(folder / f"losses{rank}") for rank in range(processes)], axis=0)
    assert len(losses[1]) == 9
    np.testing.assert_allclose(losses[2], losses[1], atol=1e-4)
