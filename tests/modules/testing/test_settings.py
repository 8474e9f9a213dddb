"""What a test is asked to do: protocols and their names, folders, bad values, and the precision of the forward."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest
import torch

import test_lseg as fixed_script
import test_lseg_zs as zero_shot_script
from encoding_ext.evaluator import MultiScaleEvaluator
from lseg_utils.cli import chosen
from lseg_utils.errors import InputError
from lseg_utils.files import REPOSITORY
from modules.choices import Speed, block_options
from modules.device import dtype_name, reduced_dtype
from modules.testing.common import derangement, prepare_forward
from modules.testing.label_sets import LabelSetTest
from modules.testing.settings import Protocol, TestRun
from tiny import LABELS, pictures, tiny_net

CPU = torch.device("cpu")


class Images:
    name, split, base_size, crop_size = "ade20k", "val", 70, 64

    def __len__(self) -> int:
        return 0


def parse(line: str = "", script=fixed_script) -> argparse.Namespace:
    return script.build_parser().parse(["--weights", "x.ckpt", *shlex.split(line)])


def protocol_of(line: str) -> Protocol:
    options = parse(line)
    return Protocol.named(options.protocol, options.scales, options.no_flip, options.window_batch)


@pytest.mark.parametrize(
    ("line", "expected", "named"),
    [
        ("", Protocol(), "official (six scales, flip)"),
        ("--scales 0.5 .75 1 1.25 1.5 1.75", Protocol((0.5, 0.75, 1, 1.25, 1.5, 1.75)), "official (six scales, flip)"),
        ("--protocol single", Protocol((1.0,), False), "single (scale 1, no flip)"),
        ("--scales 1 --no_flip", Protocol((1.0,), False), "single (scale 1, no flip)"),
        ("--scales 1 2", Protocol((1.0, 2.0)), "scales 1.0 2.0, flip"),
        ("--protocol single --scales 0.5", Protocol((0.5,), False), "scales 0.5, no flip"),
        ("--no-flip", Protocol(flip=False), "scales 0.5 0.75 1.0 1.25 1.5 1.75, no flip"),
        ("--window_batch 7", Protocol(window_batch=7), "official (six scales, flip)"),
    ],
)
def test_protocols_and_their_names(line, expected, named):
    assert protocol_of(line) == expected
    assert expected.describe(520, 480) == f"{named}, windows of 480, base 520"


def test_the_evaluator_follows_the_protocol(tmp_path):
    (tmp_path / "a.ckpt").touch()

    def evaluator_of(protocol: Protocol) -> MultiScaleEvaluator:
        run = TestRun("ade20k", tmp_path / "a.ckpt", output_dir=tmp_path)
        return LabelSetTest(tiny_net(), Images(), (), run, protocol, Speed(), CPU).evaluator

    evaluator = evaluator_of(Protocol((1.0, 2.0), flip=False, window_batch=3))
    assert evaluator.scales == (1.0, 2.0) and not evaluator.flip and evaluator.window_batch == 3
    assert (evaluator.base_size, evaluator.crop_size, evaluator.num_classes) == (70, 64, len(LABELS))
    assert len(evaluator_of(Protocol()).scales) == 6


def test_impossible_values_are_named(capsys):
    for line, fact in (("--window_batch 0", "--window_batch is 0"), ("--scales 1 nan", "nan"), ("--scales 0", "0.0")):
        with pytest.raises(InputError, match=fact):
            protocol_of(line)
    with pytest.raises(SystemExit):
        parse("--window_batch many")
    assert "--window_batch" in capsys.readouterr().err


def test_results_are_named_after_the_test_and_the_control_has_its_own_folder(tmp_path):
    weights = tmp_path / "runs" / "mine" / "version_2" / "checkpoints" / "last.ckpt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"PK")
    run = TestRun("ade20k", weights)
    assert run.folder == REPOSITORY / "outputs" / "ade20k_mine_version_2_last"
    assert TestRun("ade20k", weights, shuffle_labels=3).folder.name == "ade20k_mine_version_2_last_shuffled3"
    assert TestRun("ade20k", weights, output_dir=tmp_path).folder == tmp_path
    given = TestRun("a", weights, arch_option=1, activation="tanh")
    assert block_options(given) == {"arch_option": 1, "activation": "tanh"}


def test_all_that_is_wrong_with_a_run_is_named():
    with pytest.raises(InputError) as caught:
        TestRun("ade20k", Path("no.ckpt"), seed=-1, shuffle_labels=-2)
    assert all(fact in str(caught.value) for fact in ("no.ckpt", "--seed is -1", "--shuffle_labels is -2"))


@pytest.mark.parametrize("script", [fixed_script, zero_shot_script])
@pytest.mark.parametrize(("precision", "dtype"), [("auto", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_of_a_test_reaches_the_network(script, precision, dtype):
    speed, net = chosen(Speed, parse(f"--precision {precision}", script)), tiny_net()
    images, text = pictures(1, 64, 64), net.encode_labels(LABELS)
    exact = net.half_logits(images, text)
    forward = prepare_forward(net, speed, CPU)
    assert net.decoder.embedding.weight.dtype == dtype
    with torch.inference_mode():
        logits = forward(images, text)
    assert logits.dtype == torch.float32 and logits.shape == exact.shape
    assert torch.equal(logits, exact) == (dtype == torch.float32)
    assert (logits - exact).abs().max() < 0.5
    assert dtype_name(reduced_dtype(speed.precision, CPU)) == str(dtype)[6:]


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_in_the_control_no_label_keeps_its_place(count):
    order = derangement(count, seed=1)
    assert sorted(order) == list(range(count)) and order == derangement(count, seed=1)
    assert count == 1 or all(place != other for place, other in enumerate(order))
