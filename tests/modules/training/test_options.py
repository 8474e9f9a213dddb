"""Command lines: the official ones are accepted as they are, impossible ones are answered with an instruction."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

import test_lseg as test_script
import train_lseg as train_script
from data.choice import DataChoice
from lseg_utils.cli import Parser, chosen
from lseg_utils.errors import InputError
from modules.choices import block_options
from modules.device import reduced_dtype, resolve_device
from modules.options import add_data_options, compatibility_problems, training_settings
from modules.training.trainer import build_logger, lightning_precision

NO_EFFECT = (
    "--widehead --widehead_hr --no-scaleinv --module lseg --model encnet --no-batchnorm --use_relabeled "
    "--aux-weight 0.2 --se-weight 0.2"
)
REPOSITORY = Path(__file__).resolve().parents[3]


def parse_train(line: str = ""):
    return train_script.build_parser().parse(shlex.split(line))


def parse_test(line: str = "--weights x.ckpt"):
    return test_script.build_parser().parse(shlex.split(line))


def recipe(script: str, program: str) -> str:
    """The arguments of a shell recipe, without what the shell adds."""
    text = (REPOSITORY / script).read_text().replace("\\\n", " ")
    line = next(line for line in text.splitlines() if program in line and line.startswith("exec"))
    return line.split(f'{program}"', 1)[1].replace('"$@"', "")


# --------------------------------------------------------------------------------- official command lines


def test_the_training_command_of_the_readme():
    options = parse_train(
        "--dataset ade20k --data_path ../datasets --batch_size 4 --exp_name lseg_ade20k_l16 --base_lr 0.004 "
        "--weight_decay 1e-4 --no-scaleinv --max_epochs 240 --widehead --accumulate_grad_batches 2 "
        "--backbone clip_vitl16_384"
    )
    assert (options.dataset, options.data_path, options.exp_name) == ("ade20k", Path("../datasets"), "lseg_ade20k_l16")
    assert (options.backbone, options.accumulate_grad_batches) == ("clip_vitl16_384", 2)
    config = training_settings(options).optimization
    assert (config.batch_size, config.base_lr, config.weight_decay, config.max_epochs) == (4, 0.004, 1e-4, 240)
    assert compatibility_problems(options) == []


def test_the_test_command_of_the_readme():
    options = parse_test(
        "--backbone clip_vitl16_384 --eval --dataset ade20k --data-path ../datasets/ "
        "--weights checkpoints/lseg_ade20k_l16.ckpt --widehead --no-scaleinv"
    )
    assert options.eval and options.data_path == Path("../datasets")
    assert options.weights == Path("checkpoints/lseg_ade20k_l16.ckpt")
    assert compatibility_problems(options) == []


@pytest.mark.parametrize(
    ("script", "program", "parse"),
    [("train.sh", "train_lseg.py", parse_train), ("test.sh", "test_lseg.py", parse_test)],
)
def test_the_recipes_are_understood(script, program, parse):
    options = parse(recipe(script, program))
    assert (options.dataset, options.backbone) == ("ade20k", "clip_vitl16_384")
    # Options given after a recipe's own win, as its comment promises.
    assert parse(recipe(script, program) + " --batch_size 3").batch_size == 3


@pytest.mark.parametrize("extra", ["", "--weights x.ckpt"])
def test_flags_without_effect_change_nothing(extra):
    parse = parse_test if extra else parse_train
    plain, flagged = vars(parse(extra)), vars(parse(f"{extra} {NO_EFFECT}"))
    ignored = {"widehead", "widehead_hr", "no_scaleinv", "module", "model", "no_batchnorm", "use_relabeled"}
    ignored |= {"aux_weight", "se_weight"}
    assert {name for name in plain if plain[name] != flagged[name]} == ignored


@pytest.mark.parametrize("parse", [parse_train, lambda line: parse_test(f"--weights x.ckpt {line}")])
@pytest.mark.parametrize("flag", ["--aux", "--se-loss", "--se_loss"])
def test_heads_that_do_not_exist_are_refused(parse, flag):
    [problem] = compatibility_problems(parse(flag))
    assert flag.replace("-l", "_l") in problem and "leave it out" in problem


def test_all_refused_flags_are_named_before_anything_is_built(tmp_path):
    with pytest.raises(InputError) as caught:
        train_script.main(["--aux", "--se-loss", "--data_path", str(tmp_path), "--checkpoint_dir", str(tmp_path / "c")])
    assert "--aux" in str(caught.value) and "--se_loss" in str(caught.value)


@pytest.mark.parametrize("spelling", ["--data-path", "--data_path", "--datapath"])
def test_every_spelling_of_the_data_folder(spelling):
    for parse in (parse_train, lambda line: parse_test(f"--weights x.ckpt {line}")):
        assert parse(f"{spelling} somewhere").data_path == Path("somewhere")
        assert parse(f"{spelling}=some-where").data_path == Path("some-where")


def test_dashes_and_underscores_are_one_and_values_are_left_alone():
    assert parse_train("--max-epochs 3 --dry-run --exp-name my-run").__dict__.items() >= {
        "max_epochs": 3, "dry_run": True, "exp_name": "my-run",
    }.items()  # fmt: skip
    assert parse_train("--max_epochs 3 --dry_run --exp_name my_run").exp_name == "my_run"
    assert parse_test("--weights a-b/c-d.ckpt --no-flip --acc-bn").weights == Path("a-b/c-d.ckpt")


def test_abbreviations_are_not_guessed(capsys):
    with pytest.raises(SystemExit):
        parse_train("--max 3")
    assert "--max" in capsys.readouterr().err


@pytest.mark.parametrize("build", [train_script.build_parser, test_script.build_parser])
def test_help_explains_every_option(build):
    parser = build()
    text = " ".join(parser.format_help().split())
    for flag in ("--widehead", "--no_scaleinv", "--aux_weight"):
        action = parser._option_string_actions[flag]
        assert "changes nothing" in action.help
    assert "refused: the network has no such head" in text and "changes nothing" in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [("", []), ("--crop_size 480 --workers 0", []), ("--crop_size 100", ["such as 128"]), ("--crop_size 0", ["as 32"]),
     ("--workers -1 --crop_size 33", ["--workers is -1", "such as 64"])],
)  # fmt: skip
def test_sizes_and_workers_with_which_nothing_would_run(line, expected):
    problems = ""
    try:
        chosen(DataChoice, parse_train(line))
    except InputError as error:
        problems = str(error)
    assert len(problems.splitlines()) == len(expected) and all(part in problems for part in expected)


# -------------------------------------------------------------------------------------------- translations


def test_optimisation_options_reach_the_configuration():
    given = "--optimizer adamw --schedule cosine --warmup_steps 7 --scratch_factor 2 --momentum 0.8 --ignore_index 255"
    config = training_settings(parse_train(given)).optimization
    assert (config.optimizer, config.schedule, config.warmup_steps) == ("adamw", "cosine", 7)
    assert (config.scratch_factor, config.momentum, config.ignore_index) == (2.0, 0.8, 255)
    assert training_settings(parse_train("--midasproto")).optimization.optimizer == "adam"
    assert training_settings(parse_train()).optimization == type(config)()  # the defaults are the paper's


def test_impossible_optimisation_is_an_instruction():
    with pytest.raises(InputError, match="batch_size is 0.*positive"):
        training_settings(parse_train("--batch_size 0"))
    with pytest.raises(InputError, match="warmup_steps.*cosine"):
        training_settings(parse_train("--warmup_steps 10"))


def test_only_the_block_options_that_were_given_are_passed_on():
    assert block_options(parse_train()) == {}
    assert block_options(parse_train("--arch_option 2 --block-depth 4 --activation tanh")) == {
        "arch_option": 2, "block_depth": 4, "activation": "tanh",
    }  # fmt: skip
    assert block_options(parse_test("--weights x --arch_option 0")) == {"arch_option": 0}


@pytest.mark.parametrize(
    "line", ["--arch_option 3", "--backbone vgg", "--activation gelu", "--schedule step", "--precision 8"]
)
def test_unknown_choices_list_the_known_ones(line, capsys):
    with pytest.raises(SystemExit):
        parse_train(line)
    message = capsys.readouterr().err
    assert line.split()[0] in message and "choose from" in message


def test_a_parser_reads_the_process_arguments_by_default(monkeypatch):
    parser = Parser("x")
    add_data_options(parser)
    monkeypatch.setattr("sys.argv", ["script", "--crop-size", "96"])
    assert parser.parse(None).crop_size == 96
    assert parser.parse([]).crop_size is None


# ------------------------------------------------------------------------------------ device and precision


def test_devices_that_are_there():
    assert resolve_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto").type == expected


def test_auto_takes_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match="cuda:2.*2 GPUs"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "no CUDA GPU.*use cpu"), ("cuda:1", "no CUDA GPU"), ("mps", "no Apple GPU.*use cpu")],
)
def test_devices_that_are_not_there(device, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        resolve_device(device)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "0x", "", "meta", "xla"])
def test_what_is_no_device_to_compute_on(device):
    with pytest.raises(InputError, match="use auto, cpu, cuda, cuda:1 or mps"):
        resolve_device(device)


def test_lightning_precision(monkeypatch):
    assert lightning_precision("auto", on_gpu=False) == "32-true"
    assert lightning_precision("32", on_gpu=True) == "32-true"
    assert lightning_precision("bf16", on_gpu=True) == lightning_precision("bf16-mixed", on_gpu=False) == "bf16-mixed"
    assert lightning_precision("16", on_gpu=True) == "16-mixed"
    for has_bf16, expected in ((True, "bf16-mixed"), (False, "16-mixed")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bf16, **_: has)
        assert lightning_precision("auto", on_gpu=True) == expected


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", None), ("32", None), ("32-true", None), ("bf16", torch.bfloat16), ("bf16-mixed", torch.bfloat16),
     ("16", torch.float16), ("16-mixed", torch.float16)],
)  # fmt: skip
def test_precision_on_the_cpu(precision, dtype):
    assert reduced_dtype(precision, torch.device("cpu")) is dtype


def test_logs_go_to_the_given_folder_and_project(tmp_path, monkeypatch):
    monkeypatch.setattr("modules.training.run.find_spec", lambda name: name)  # as if wandb were installed
    monkeypatch.setattr("modules.training.trainer.WandbLogger", lambda **given: given)
    line = f"--exp_name run --project_name other --logpath '{tmp_path / 'logs'}' --clip_weights random"
    assert Path(build_logger(training_settings(parse_train(line)).run, 2).log_dir) == tmp_path / "logs/run/version_2"
    given = build_logger(training_settings(parse_train(f"{line} --logger wandb")).run, 2)
    assert (given["project"], given["save_dir"]) == ("other", tmp_path / "logs")
