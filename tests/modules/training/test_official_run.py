"""A run of the official code is resumed from its last.ckpt: weights, momentum, epoch, step and rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import train_lseg
import train_lseg_zs
from ade_tree import make_tree
from checkpoint_files import momentum_of, official_training
from lseg_utils.errors import InputError
from miniature.dataset_zs import make_fewshot_world
from modules.checkpoints import metadata_of, to_official
from modules.lseg_module import LSegModule
from modules.safe_load import read_torch_file
from modules.training.official import official_run
from modules.training.optimization import OptimizationConfig
from scripts import TINY
from tiny import LABELS, tiny_net

EPOCH, STEP, EPOCHS = 3, 123, 6


def module_of(backbone: str = "tiny_vit", **options: Any) -> LSegModule:
    return LSegModule(tiny_net(backbone, seed=1), OptimizationConfig(**{"max_epochs": EPOCHS, **options}))


def content_of(backbone: str = "tiny_vit") -> dict[str, Any]:
    return official_training(tiny_net(backbone), EPOCH, STEP, EPOCHS)


def resumed(content: dict[str, Any], module: LSegModule) -> dict[str, Any]:
    return official_run(Path("last.ckpt"), content, module)


@pytest.mark.parametrize("backbone", ["tiny_vit", "tiny_resnet"])
@pytest.mark.parametrize("frozen", [False, True], ids=["all trained", "frozen as by clip_fixed"])
def test_each_momentum_arrives_at_its_own_parameter(backbone, frozen, capsys):
    module = module_of(backbone)
    content = content_of(backbone)
    if frozen:
        module.net.image_encoder.requires_grad_(False)
        for number in content["optimizer_states"][0]["param_groups"][0]["params"]:
            content["optimizer_states"][0]["state"].pop(number, None)
    result = resumed(content, module)
    optimizer = module.configure_optimizers()
    optimizer.load_state_dict(result["optimizer_states"][0])
    names = {parameter: name for name, parameter in module.net.named_parameters()}
    assert len(optimizer.state) > 10
    for parameter, state in optimizer.state.items():
        (official,) = to_official({names[parameter]: parameter})
        assert (state["momentum_buffer"] == momentum_of(official)).all(), official
        assert state["momentum_buffer"].shape == parameter.shape
    output = capsys.readouterr().out
    assert f"epoch {EPOCH}" in output and f"{STEP} steps" in output
    assert all(unknown in output for unknown in ("seed", "order", "precision", "dataset"))
    assert "weight_decay was" not in output and "rate was" not in output  # as in the file


def test_other_rates_are_reported(capsys):
    resumed(content_of(), module_of(base_lr=0.01, weight_decay=0.0, momentum=0.5))
    output = capsys.readouterr().out
    assert all(fact in output for fact in ("weight_decay was 0.0001", "momentum was 0.9", "--base_lr"))


def edited(**changes: Any) -> dict[str, Any]:
    return {**content_of(), **changes}


def adam(content: dict[str, Any]) -> dict[str, Any]:
    for state in content["optimizer_states"][0]["state"].values():
        momentum = state.pop("momentum_buffer")
        state.update(step=STEP, exp_avg=momentum, exp_avg_sq=momentum)
    return content


def misshapen() -> dict[str, Any]:
    content = content_of()
    content["optimizer_states"][0]["state"][0]["momentum_buffer"] = torch.zeros(1, 1, 7)
    return content


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda: content_of("tiny_resnet"), "is a tiny_resnet"),
        (lambda: official_training(tiny_net("tiny_vit", features=32), EPOCH, STEP, EPOCHS), "wrong shape"),
        (lambda: edited(epoch=EPOCHS), "--max_epochs"),
        (lambda: edited(state_dict={"x": 1}), "state_dict"),
        (lambda: edited(optimizer_states=[]), "optimizer_states"),
        (lambda: edited(**{"pytorch-lightning_version": "2.1.0"}), "2.1.0"),
        (lambda: adam(content_of()), "--optimizer adam"),
        (misshapen, "another shape"),
    ],
    ids=["backbone", "width", "finished", "weights", "no optimiser", "version", "adam", "momentum"],
)
def test_what_does_not_fit_is_one_clear_error(make, fact):
    with pytest.raises(InputError, match=fact):
        resumed(make(), module_of())


def test_weights_that_the_official_run_froze_are_not_trained_silently():
    content = content_of()
    del content["optimizer_states"][0]["state"][content["optimizer_states"][0]["param_groups"][0]["params"][0]]
    with pytest.raises(InputError, match="--use_pretrained"):
        resumed(content, module_of())


def test_adam_is_resumed_too():
    module = module_of(optimizer="adam")
    optimizer = module.configure_optimizers()
    optimizer.load_state_dict(resumed(adam(content_of()), module)["optimizer_states"][0])
    assert {float(state["step"]) for state in optimizer.state.values()} == {STEP}


def train(root: Path, *more: object) -> None:
    places = ("--dataset", "ade20k", "--data_path", root, "--checkpoint_dir", root.parent / "runs", "--exp_name", "run")
    train_lseg.main(list(map(str, (*places, *TINY, *more))))


@pytest.mark.usefixtures("one_thread")
def test_the_script_resumes_the_file_where_the_official_code_leaves_it(tmp_path, capsys):
    root = make_tree(tmp_path / "datasets", train=9, val=3)
    run = tmp_path / "runs" / "run"
    last, own = (run / f"version_{version}" / "checkpoints" / "last.ckpt" for version in (0, 1))
    last.parent.mkdir(parents=True)
    torch.save(content := content_of(), last)
    before = last.read_bytes()
    train(root, "--max_epochs", EPOCH + 1, "--schedule_epochs", EPOCHS)
    output = capsys.readouterr().out
    assert f"resuming the official run of {last}" in output and last.read_bytes() == before
    after = read_torch_file(own)
    assert (after["lseg"]["epoch"], after["lseg"]["step"]) == (EPOCH, STEP + 9)
    (optimizer,) = after["optimizer_states"]
    factor = (1 - EPOCH / EPOCHS) ** 0.9
    rates = [group["lr"] for group in optimizer["param_groups"]]
    assert rates == pytest.approx([0.00025 * factor, 0.0025 * factor])
    # Nine steps from weights and momentum of the file: w - rate * m * (0.9 + ... + 0.9 ** 9), and the gradients.
    name = "net.pretrained.model.cls_token"
    moved = content["state_dict"][name] - after["state_dict"][name]
    expected = rates[0] * momentum_of(name) * sum(0.9**k for k in range(1, 10))
    torch.testing.assert_close(moved.mean().item(), expected, rtol=0.2, atol=0)

    train(root, "--max_epochs", EPOCH + 2, "--schedule_epochs", EPOCHS)  # from now on it is a run like any other
    output = capsys.readouterr().out
    assert f"resuming {own}" in output and read_torch_file(own)["lseg"]["epoch"] == EPOCH + 1


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["weights", "a list", "own weights"])
def test_a_file_that_is_not_a_training_checkpoint_is_refused(kind, tmp_path):
    root = make_tree(tmp_path / "datasets", train=9, val=3)
    last = tmp_path / "runs" / "run" / "version_0" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    weights = to_official((net := tiny_net("tiny_vit", LABELS)).state_dict())
    own = {"state_dict": weights, "lseg": metadata_of(net)}
    torch.save({"weights": weights, "a list": [1], "own weights": own}[kind], last)
    with pytest.raises(InputError, match="optimizer_states") as caught:
        train(root, "--max_epochs", 4)
    assert str(last) in str(caught.value) and "--finetune_weights" in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_zero_shot_training_resumes_such_a_file_too(tmp_path, capsys):
    make_fewshot_world(tmp_path, seed=0, training=4, test=2)
    last, own = (tmp_path / "runs" / "run" / f"version_{n}" / "checkpoints" / "last.ckpt" for n in (0, 1))
    last.parent.mkdir(parents=True)
    torch.save(content_of(), last)
    places = ("--dataset", "miniature_zs", "--data_path", tmp_path, "--checkpoint_dir", tmp_path / "runs")
    place = TINY.index("--base_size")
    options = (*places, "--exp_name", "run", *TINY[:place], *TINY[place + 2 :], "--batch_size", 8, "--nshot", 0)
    train_lseg_zs.main(list(map(str, (*options, "--max_epochs", EPOCH + 1))))
    output = capsys.readouterr().out
    assert f"resuming the official run of {last}" in output and "zero_shot" in output
    assert read_torch_file(own)["lseg"]["epoch"] == EPOCH and read_torch_file(own)["lseg"]["step"] > STEP
