"""The benchmarks compare equals, and every script runs to its end and writes what it promises."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks import measuring, plain, table
from encoding_ext.evaluator import MultiScaleEvaluator
from modules.lseg_module import LSegModule
from predict_script import tiny_weights
from predicting import picture
from scripts import REPOSITORY, environment, run
from tiny import LABELS, TINY, pictures, tiny_net

BLOCKS = ({}, {"arch_option": 1, "block_depth": 2}, {"arch_option": 2, "block_depth": 2})
ROW_FIELDS = {
    *("what", "procedure", "seconds", "least_seconds", "ratio", "memory_ratio", "per_second", "unit"),
    *("peak_bytes", "flop", "flop_per_s", "share"),
}
SCRIPTS = {
    "forward": (5, ["--batch", "2"]),
    "train_step": (4, ["--labels", "3"]),
    "evaluate": (3, ["--images", "2", "--texts", "1"]),
    "labels": (3, ["--labels", "2", "7", "--plain_up_to", "2"]),
    "openvocab": (3, []),
    "joint": (4, []),
    "dropin": (5, ["--labels", "3"]),
    "scaling": (2, ["--batch", "2"]),
}
IN_PROCESSES = "scaling"  # its processes also work together


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_plain_procedure_is_the_same_function(backbone, block, batch):
    net, images = tiny_net(backbone, **block), pictures(batch, 64, 96)
    ours = net(images)
    theirs = plain.logits(plain.prepare(deepcopy(net)), images, LABELS)
    assert ours.shape == theirs.shape == (batch, len(LABELS), 64, 96)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backbone", TINY)
def test_it_learns_the_same_and_goes_through_the_text_tower(backbone):
    net = tiny_net(backbone).train()
    twin = plain.prepare(deepcopy(net))
    images, target = pictures(2, 64, 64), torch.randint(-1, len(LABELS), (2, 64, 64))
    ours = LSegModule(net).loss(net.half_logits(images), target)
    theirs = plain.loss(twin, images, LABELS, target)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    ours.backward()
    theirs.backward()
    largest = max(p.grad.abs().max() for p in twin.decoder.parameters() if p.grad is not None)
    for (name, mine), other in zip(net.named_parameters(), twin.parameters(), strict=True):
        if name.startswith("text_encoder"):
            assert mine.grad is None
        elif mine.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, atol=1e-4 * float(largest), rtol=1e-3, msg=name)
    assert twin.text_encoder.text_projection.grad.abs().sum() > 0


def test_its_multi_scale_scores_are_the_evaluators():
    net, image = tiny_net("tiny_resnet"), pictures(1, 50, 77)
    black, scales = [-m / s for m, s in zip(net.mean, net.std)], (0.5, 1.0, 1.75)
    evaluator = MultiScaleEvaluator(net.half_logits, len(LABELS), 70, 64, scales, mean=net.mean, std=net.std)
    theirs = plain.multi_scale_scores(lambda crop: plain.logits(net, crop, LABELS), image, black, 70, 64, scales)
    torch.testing.assert_close(evaluator(image), theirs, atol=1e-4, rtol=1e-5)


class Here:
    """A ``measuring.Process`` that is none: the same work answers the same questions in the process of the test."""

    def __init__(self, maker: measuring.Maker, options: argparse.Namespace) -> None:
        self._server = measuring._Server(maker, deepcopy(options))  # a process has options of its own too

    def __call__(self, question: str) -> Any:
        """The answer, at once."""
        return getattr(self._server, question)()

    def close(self) -> None:
        """There is nothing to end."""


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.slow
def test_a_quick_run_writes_what_it_promises(name, tmp_path, monkeypatch, capsys, one_thread):
    """All but one in the process of the test: what makes and ends processes is the same code for all."""
    rows, arguments = SCRIPTS[name]
    script = f"benchmarks/bench_{name}.py"
    options = ["--quick", "--device", "cpu", "--output", str(tmp_path / "out"), *arguments]
    if name == IN_PROCESSES:
        output = run(script, *options, cwd=tmp_path)
    else:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        monkeypatch.setattr(module, "Process", Here)
        monkeypatch.setattr(sys, "argv", [script, *options])
        module.main()
        output = capsys.readouterr().out
    text = (tmp_path / "out" / f"{name}_cpu.json").read_text()
    result = json.loads(text)
    assert len(result["rows"]) == rows
    for row in result["rows"]:
        assert row.keys() >= ROW_FIELDS
        assert row["flop"] > 0 and row["peak_bytes"] > 1e6 and all(seconds > 0 for seconds in row["seconds"])
        assert row["procedure"] in output
    assert result["command"].startswith(f"python benchmarks/bench_{name}.py --")
    assert " ".join(arguments) in result["command"]
    assert {"processor", "features", "threads", "torch"} <= result["machine"].keys()
    assert set(result["matrix_product_flop_per_s"]) == {"float32", "bfloat16"}
    assert str(tmp_path) not in text, "nothing that names the machine"
    if name in ("forward", "evaluate"):
        plainly, ours = result["rows"][:2]
        assert (plainly["procedure"], ours["procedure"]) == ("plain", "project")
        assert plainly["agreement"] == 1 and ours["agreement"] > 0.999
    profiles = [row["profile"] for row in result["rows"] if row["profile"]]
    assert len(profiles) == (name in ("forward", "train_step", "labels"))
    assert all(0 < sum(profile.values()) <= 1 + 1e-6 for profile in profiles)
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.main(["--results", str(tmp_path / "out"), "--page", str(page)])
    assert result["rows"][0]["what"] in page.read_text() and "old" not in page.read_text()
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n")


def test_each_machine_has_a_table_of_its_own(tmp_path):
    row = {
        "what": "a",
        "procedure": "project",
        "seconds": [1.0],
        "least_seconds": 1.0,
        "ratio": 1.0,
        "memory_ratio": 1.0,
    }
    row |= {"per_second": 1.0, "unit": "images", "peak_bytes": 1, "flop": 1, "flop_per_s": 1.0, "share": 1.0}
    for name, processor in (("forward", "first"), ("labels", "second"), ("joint", "first")):
        machine = {"processor": processor, "threads": 1, "cores": 2, "torch": "2.9", "load_before": len(name) / 10}
        (tmp_path / f"{name}_cpu.json").write_text(json.dumps({"machine": machine, "rows": [row | {"what": name}]}))
    first, second = table.markdown(tmp_path).split("second, ")
    assert "forward" in first and "joint" in first and "labels" not in first
    assert "labels" in second


def test_numbers_that_do_not_fit_are_refused_together(tmp_path):
    wrong = ["--size", "50", "--batch", "0"]
    output = run("benchmarks/bench_forward.py", "--quick", *wrong, "--output", tmp_path, cwd=tmp_path, code=2)
    assert "--size is 50" in output and "--batch is 0" in output and "Traceback" not in output


@pytest.mark.slow
def test_the_store_is_measured_on_a_trained_network(tmp_path):
    world = tmp_path / "world" / "images" / "validation"
    world.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(picture(64, 64, number)).save(world / f"{number}.png")
    places = ["--weights", tiny_weights(tmp_path), "--world", tmp_path / "world", "--output", tmp_path]
    quick = ["--backbone", "tiny_vit", "--rounds", "1", "--pca", "8"]
    assert "read: codes" in run("benchmarks/bench_store.py", *places, *quick, cwd=tmp_path)
    rows = json.loads((tmp_path / "store.json").read_text())["agreement"]
    assert [(row["codes"], row["components"]) for row in rows] == [
        ("float16", None),
        ("int8", None),
        ("float16", 8),
        ("int8", 8),
    ]
    assert rows[0]["gigabytes"] == pytest.approx(19.66, abs=0.01) and rows[0]["synonyms"] > 99


def test_one_failing_benchmark_is_named_and_does_not_stop_the_others(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncase "$*" in *labels*|*pytest*) exit 1 ;; esac\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", REPOSITORY / "benchmarks" / "run_all.sh", "--gpu"],
        env=environment(PYTHON=str(python)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "the tests bench_labels.py" in done.stderr
    called = (tmp_path / "calls").read_text()
    assert "bench_scaling.py" in called and "table.py --page" in called and "bench_memory.py" not in called
