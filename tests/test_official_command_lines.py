"""Every official command line, and every flag of the official parsers, through ours: the table says what each does."""

from __future__ import annotations

import io
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import test_lseg
import test_lseg_zs
import train_lseg
import train_lseg_zs
from lseg_utils.errors import InputError
from modules.options import training_settings

SAME, NOTHING, REFUSED = "same", "no effect", "refused"
SCRIPTS = {"train": train_lseg, "train_zs": train_lseg_zs, "test": test_lseg, "test_zs": test_lseg_zs}
ZS_TEST = "--nshot 0 --module clipseg_DPT_test_v2 --widehead --no-scaleinv --arch_option 0 --ignore_index 255"

# The official README (four zero-shot tests; the COCO one names Pascal's files by mistake), train.sh with its
# variant for eight GPUs, and test.sh.
COMMAND_LINES = [
    (
        "test_zs",
        f"--backbone clip_resnet101 --dataset pascal --fold 0 {ZS_TEST} --weights checkpoints/pascal_fold0.ckpt",
    ),
    (
        "test_zs",
        f"--backbone clip_resnet101 --dataset coco --fold 1 {ZS_TEST} --weights checkpoints/pascal_fold1.ckpt",
    ),
    (
        "test_zs",
        f"--backbone clip_vitl16_384 --dataset fss --fold 0 {ZS_TEST} --weights checkpoints/fss_l16.ckpt",
    ),
    (
        "test_zs",
        f"--backbone clip_resnet101 --dataset fss --fold 0 {ZS_TEST} --weights checkpoints/fss_rn101.ckpt",
    ),
    *(
        (
            "train",
            f"--dataset ade20k --data_path ../datasets --batch_size {size} --exp_name lseg_ade20k_l16 --base_lr 0.004 "
            "--weight_decay 1e-4 --no-scaleinv --max_epochs 240 --widehead --accumulate_grad_batches 2 --backbone "
            "clip_vitl16_384",
        )
        for size in (1, 4)
    ),
    (
        "test",
        "--backbone clip_vitl16_384 --eval --dataset ade20k --data-path ../datasets/ --weights "
        "checkpoints/lseg_ade20k_l16.ckpt --widehead --no-scaleinv",
    ),
]

# Scripts, flag and value, what it does here, and for SAME the option that it sets, for the others the reason.
BOTH_TRAIN, BOTH_TEST, ALL = "train train_zs", "test test_zs", "train train_zs test test_zs"
FLAGS = [
    (BOTH_TRAIN, "--exp_name x", SAME, ("exp_name", "x")),
    (BOTH_TRAIN, "--num_nodes 2", SAME, ("num_nodes", 2)),
    (BOTH_TRAIN, "--dry-run", SAME, ("dry_run", True)),
    (BOTH_TRAIN, "--no_resume", SAME, ("no_resume", True)),
    (BOTH_TRAIN, "--accumulate_grad_batches 2", SAME, ("accumulate_grad_batches", 2)),
    (BOTH_TRAIN, "--max_epochs 3", SAME, ("max_epochs", 3)),
    (BOTH_TRAIN, "--project_name lightseg2", SAME, ("project_name", "lightseg2")),
    (BOTH_TRAIN, "--data_path data", SAME, ("data_path", Path("data"))),
    (BOTH_TRAIN, "--batch_size 4", SAME, ("batch_size", 4)),
    (BOTH_TRAIN, "--base_lr 0.01", SAME, ("base_lr", 0.01)),
    (BOTH_TRAIN, "--momentum 0.8", SAME, ("momentum", 0.8)),  # officially never read
    (BOTH_TRAIN, "--dropout 0.1", SAME, ("dropout", 0.1)),  # officially never read
    (BOTH_TRAIN, "--weight_decay 0.001", SAME, ("weight_decay", 0.001)),
    (BOTH_TRAIN, "--midasproto", SAME, ("midasproto", True)),
    (BOTH_TRAIN, "--ignore_index -1", SAME, ("ignore_index", -1)),
    (BOTH_TRAIN, "--num_features 128", SAME, ("num_features", 128)),
    (BOTH_TRAIN, "--finetune_weights x.ckpt", SAME, ("finetune_weights", Path("x.ckpt"))),  # officially never read
    ("train_zs", "--use_pretrained False", SAME, ("use_pretrained", "False")),
    ("train_zs", "--use_pretrained clip", SAME, ("use_pretrained", "clip")),
    ("train_zs", "--use_pretrained clip_fixed", SAME, ("use_pretrained", "clip_fixed")),
    ("train_zs", "--logpath logs", SAME, ("logpath", Path("logs"))),
    ("train_zs", "--logpath ''", SAME, ("logpath", None)),
    ("train_zs", "--nworker 2", SAME, ("workers", 2)),
    ("train_zs", "--finetune_mode", SAME, ("finetune_mode", True)),
    ("train_zs test_zs", "--fold 2", SAME, ("fold", 2)),
    ("train_zs test_zs", "--nshot 5", SAME, ("nshot", 5)),
    (ALL, "--backbone clip_vitl16_384", SAME, ("backbone", "clip_vitl16_384")),
    (ALL, "--arch_option 1", SAME, ("arch_option", 1)),
    (ALL, "--block_depth 2", SAME, ("block_depth", 2)),
    (ALL, "--activation tanh", SAME, ("activation", "tanh")),
    ("train test", "--dataset ade20k", SAME, ("dataset", "ade20k")),
    ("train_zs test_zs", "--dataset coco", SAME, ("dataset", "coco")),
    (BOTH_TEST, "--workers 3", SAME, ("workers", 3)),
    (BOTH_TEST, "--weights x.ckpt", SAME, ("weights", Path("x.ckpt"))),
    (BOTH_TEST, "--jobname x", SAME, ("jobname", "x")),
    (BOTH_TEST, "--seed 1", SAME, ("seed", 1)),
    (BOTH_TEST, "--no-cuda", SAME, ("device", "cpu")),  # the zero-shot test ignored it and needed a GPU
    (BOTH_TEST, "--crop-size 480", SAME, ("crop_size", 480)),
    ("test", "--base-size 520", SAME, ("base_size", 520)),
    ("test", "--data-path data", SAME, ("data_path", Path("data"))),
    ("test", "--label_src default", SAME, ("label_src", "default")),
    ("test", "--eval", SAME, ("eval", True)),
    ("test", "--acc-bn", SAME, ("acc_bn", True)),  # officially it crashed
    ("test", "--test-val", SAME, ("test_val", True)),
    ("test", "--train-split val", SAME, ("train_split", "val")),
    ("test", "--batch-size 2", SAME, ("batch_size", 2)),
    ("test", "--export x", SAME, ("export", Path("x"))),
    ("test_zs", "--datapath data", SAME, ("data_path", Path("data"))),
    ("test_zs", "--nworker 0", SAME, ("workers", 0)),
    ("test_zs", "--bsz 4", SAME, ("bsz", 4)),
    ("test_zs", "--benchmark pascal", SAME, ("benchmark", "pascal")),  # officially --dataset replaced it
    (ALL, "--no-scaleinv", NOTHING, "no layer of the network is scale-invariant"),
    (ALL, "--widehead", NOTHING, "never read"),
    (ALL, "--widehead_hr", NOTHING, "never read"),
    (ALL, "--se-weight 0.2", NOTHING, "there is no SE loss"),
    (BOTH_TRAIN, "--no-batchnorm", NOTHING, "never read"),
    (BOTH_TRAIN, "--aux-weight 0.2", NOTHING, "there is no auxiliary loss"),
    ("train_zs", "--use_relabeled", NOTHING, "never read"),
    ("train_zs", "--augment", NOTHING, "never read"),
    (BOTH_TEST, "--model encnet", NOTHING, "never read"),
    (BOTH_TEST, "--module lseg", NOTHING, "never read"),
    (BOTH_TEST, "--no-val", NOTHING, "never read"),
    (BOTH_TEST, "--test-batch-size 16", NOTHING, "overwritten, or never read"),
    (BOTH_TEST, "--ignore_index 255", NOTHING, "the metric ignores unlabelled pixels whatever their value"),
    (BOTH_TEST, "--no-strict", NOTHING, "an incomplete checkpoint is refused in any case"),
    *(
        ("test_zs", flag, NOTHING, "the zero-shot test never reads it")
        for flag in ("--base-size 520", "--train-split train", "--batch-size 2", "--eval", "--acc-bn", "--test-val")
    ),
    ("test_zs", "--use_pretrained True", NOTHING, "the checkpoint replaces the weights"),
    ("train", "--augment", REFUSED, "--augment"),
    *((ALL, flag, REFUSED, flag.replace("-", "_")[2:]) for flag in ("--aux", "--se-loss")),
]
CASES = [(script, *rest) for scripts, *rest in FLAGS for script in scripts.split()]


def command_line(name: str, words: str) -> list[str]:
    """The words as a script gets them, with a checkpoint where it needs one."""
    weights = [] if name.startswith("train") or "--weights" in words else ["--weights", "x.ckpt"]
    return [*weights, *shlex.split(words)]


def parsed(name: str, words: str) -> dict:
    return vars(SCRIPTS[name].build_parser().parse(command_line(name, words)))


@pytest.mark.parametrize(("name", "words"), COMMAND_LINES)
def test_official_command_lines_are_accepted_unchanged(name, words):
    options = parsed(name, words)
    assert options["backbone"] in words and options["dataset"] in words


@pytest.mark.parametrize(("name", "words", "verdict", "detail"), CASES, ids=lambda value: str(value)[:30])
def test_each_official_flag_does_what_the_table_says(name, words, verdict, detail, tmp_path):
    options, without = parsed(name, words), parsed(name, "")
    if verdict == SAME:
        option, value = detail
        assert options[option] == value
    elif verdict == NOTHING:
        flag = words.split()[0][2:].replace("-", "_")
        changed = {option for option in options if options[option] != without[option]}
        assert changed <= {flag}, "it sets nothing but itself"
        assert detail and flag_help(name, flag)
    else:
        with pytest.raises(InputError, match=detail.replace("_", "[-_]")):
            SCRIPTS[name].main([*command_line(name, words), "--data_path", str(tmp_path)])


def flag_help(name: str, flag: str) -> bool:
    """Whether ``--help`` says of the flag that it changes nothing, or that it is accepted."""
    text = io.StringIO()
    with redirect_stdout(text), pytest.raises(SystemExit):
        SCRIPTS[name].main(["--help"])
    entries = " ".join(text.getvalue().split()).split(" --")
    return any(e.split(" ")[0] == flag and ("changes nothing" in e or "accepted;" in e) for e in entries)


@pytest.mark.parametrize("name", SCRIPTS)
def test_all_flags_of_a_script_together(name):
    cases = [(words, detail) for script, words, verdict, detail in CASES if script == name and verdict == SAME]
    every = parsed(name, " ".join(words for script, words, *_ in CASES if script == name))
    last = dict(detail for _, detail in cases)  # where two flags set one option, the later one decides
    assert {option: every[option] for option in last} == last


def test_clips_own_image_weights_need_an_encoder_of_their_shape(tmp_path):
    def settings(*words: str):
        options = ["--checkpoint_dir", str(tmp_path), "--max_epochs", "1", *words]
        return training_settings(train_lseg.build_parser().parse(options)).network

    assert settings("--backbone", "clip_vitb32_384", "--use_pretrained", "clip_fixed").from_clip
    with pytest.raises(InputError, match="--backbone clip_vitb32_384, not clip_vitl16_384"):
        settings("--use_pretrained", "clip")
    with pytest.raises(InputError, match="--clip_weights random"):
        settings("--backbone", "clip_vitb32_384", "--use_pretrained", "clip", "--clip_weights", "random")
