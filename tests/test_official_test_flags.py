"""Every flag of the official test scripts is accepted by ours: with its official meaning, or without any."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest

import test_lseg
import test_lseg_zs

BOTH = {
    **{"--model": "encnet", "--module": "lseg", "--backbone": "clip_vitl16_384", "--workers": "4"},
    **{"--base-size": "520", "--crop-size": "480", "--train-split": "train", "--se-weight": "0.2"},
    **{"--batch-size": "16", "--test-batch-size": "16", "--seed": "1", "--label_src": "default", "--jobname": "x"},
    **{"--ignore_index": "-1", "--arch_option": "0", "--block_depth": "0", "--activation": "lrelu"},
    **dict.fromkeys(("--no-cuda", "--no-val", "--no-strict", "--no-scaleinv", "--widehead", "--widehead_hr")),
    **dict.fromkeys(("--eval", "--acc-bn", "--test-val")),
}
FLAGS = {
    test_lseg: {**BOTH, "--dataset": "ade20k", "--data-path": "../datasets", "--export": "x"},
    test_lseg_zs: {
        **BOTH,
        **{"--dataset": "pascal", "--datapath": "data", "--nshot": "0", "--fold": "1", "--nworker": "0", "--bsz": "1"},
        **{"--benchmark": "pascal", "--logpath": "logs", "--use_pretrained": "True", "--ignore_index": "255"},
    },
}
# What they change: the parsed value of our own option. All others of the list have the option of their own name.
MEANING = {"--no-cuda": ("device", "cpu"), "--logpath": ("log_dir", "logs"), "--nworker": ("workers", "0")}


def parsed(script, *flags: str) -> dict:
    return vars(script.build_parser().parse(["--weights", "x.ckpt", *flags]))


@pytest.mark.parametrize("script", FLAGS, ids=lambda script: script.__name__)
def test_every_official_flag_is_accepted_alone_and_all_together(script):
    words = [[flag] if value is None else [flag, value] for flag, value in FLAGS[script].items()]
    for each in words:
        parsed(script, *each)
    parsed(script, *(word for each in words for word in each))


@pytest.mark.parametrize("script", FLAGS, ids=lambda script: script.__name__)
def test_flags_with_a_meaning_change_our_options(script):
    for flag, (name, expected) in MEANING.items():
        value = FLAGS[script].get(flag, "missing")
        if value != "missing":
            assert str(parsed(script, *([flag] if value is None else [flag, value]))[name]) == expected
    if script is test_lseg:
        options = parsed(script, "--eval", "--acc-bn", "--test-val", "--train-split", "val", "--batch-size", "2")
        assert options["eval"] and options["acc_bn"] and options["test_val"]
        assert (options["train_split"], options["batch_size"]) == ("val", 2)


def test_flags_without_effect_are_listed_as_such_in_the_help():
    for script, flags in (
        (test_lseg, ("no_val", "test_batch_size")),
        (test_lseg_zs, ("no_val", "test_batch_size", *test_lseg_zs.UNUSED)),
    ):
        text = io.StringIO()
        with redirect_stdout(text), pytest.raises(SystemExit):
            script.main(["--help"])
        entries = " ".join(text.getvalue().split()).split(" --")
        for flag in flags:
            assert any(entry.startswith(flag) and "changes nothing" in entry for entry in entries), flag
