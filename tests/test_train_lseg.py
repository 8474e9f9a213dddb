"""train_lseg.py as a user runs it: trains, resumes, survives kills, refuses bad input before it builds anything."""

from __future__ import annotations

import json
import random
import shlex
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

import test_lseg
import train_lseg
from ade_tree import image_path, make_tree, truncate
from data import get_labels
from lseg_utils.errors import InputError, clean_message
from modules.checkpoints import load_lseg
from modules.lseg_module import LSegModule
from modules.options import training_settings
from modules.safe_load import read_torch_file
from modules.training.trainer import CheckpointFiles, build_trainer
from modules.zoo import identify
from scripts import REPOSITORY, TINY, environment, forked, run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "datasets", train=9, val=3)


def arguments(root: Path, *more: object) -> list[object]:
    return ["--dataset", "ade20k", "--data_path", root, "--checkpoint_dir", root.parent / "runs", *TINY, *more]


def last_checkpoint(root: Path, name: str, version: int = 0) -> Path:
    return root.parent / "runs" / name / f"version_{version}" / "checkpoints" / "last.ckpt"


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return read_torch_file(path)["state_dict"]


def logged_tags(path: Path) -> set[str]:
    """What a TensorBoard file shows: records of (length 8, checksum 4, event, checksum 4) bytes."""
    content, place, tags = path.read_bytes(), 0, set()
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        tags |= {value.tag for value in Event.FromString(content[place + 12 : place + 12 + length]).summary.value}
        place += 16 + length
    return tags


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights_of(one), weights_of(other)
    assert a.keys() == b.keys()
    unlike = [name for name in a if not torch.equal(a[name], b[name])]
    assert not unlike, f"{len(unlike)} differ, first {unlike[:3]}"


def test_trains_saves_a_file_that_explains_itself_and_resumes(root, tmp_path):
    output = run("train_lseg.py", *arguments(root, "--exp_name", "run", "--max_epochs", 1, "--seed", 3), cwd=tmp_path)
    assert "0.004 / 16 * 1 = 0.00025" in output and "0.0025" in output
    last = last_checkpoint(root, "run")
    metadata = read_torch_file(last)["lseg"]
    assert metadata["architecture"]["backbone"] == "tiny_vit" and metadata["labels"] == get_labels("ade20k")
    assert metadata["step"] == 9 and {"val_miou_epoch", "val_acc_epoch"} <= metadata["metric"].keys()
    assert load_lseg(last).labels == get_labels("ade20k")
    assert all(name.startswith(("net.pretrained", "net.scratch", "net.clip_pretrained")) for name in weights_of(last))
    (command,) = identify(last).commands  # it works as printed: options stand before --weights
    test = [*shlex.split(command)[2:], "--scales", 1, "--crop_size", 64, "--base_size", 64, "--workers", 0]
    run("test_lseg.py", *test, "--output_dir", tmp_path / "out", "--log_dir", tmp_path / "logs", cwd=tmp_path)
    (events,) = last.parent.parent.glob("events.out.tfevents*")
    assert {"val_loss", "val_miou_epoch", "lr_encoder", "validation"} <= logged_tags(events)
    report = last.parent.parent / "report.html"
    assert f"report: {report}" in output and "data:image/jpeg" in report.read_text(encoding="utf-8")

    output = run("train_lseg.py", *arguments(root, "--exp_name", "run", "--max_epochs", 2, "--seed", 3), cwd=tmp_path)
    assert f"resuming {last}" in output and read_torch_file(last)["lseg"]["step"] == 18
    history = json.loads((last.parent.parent / "history.json").read_text(encoding="utf-8"))
    assert [row["epoch"] for row in history["epochs"]] == [1, 2] and history["state"] == "finished"
    assert {"train_loss", "val_miou_epoch", "lr_encoder", "seconds"} <= history["epochs"][0].keys()
    other = arguments(root, "--exp_name", "run", "--max_epochs", 2, "--arch_option", 1)
    output = run("train_lseg.py", *other, cwd=tmp_path, code=2)
    assert "started differently" in output and "--no_resume" in output


@pytest.mark.slow
def test_wandb_has_numbers_and_pictures_and_goes_on_as_the_same_run(root, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for epochs in (1, 2):
        options = arguments(root, "--exp_name", "run", "--logger", "wandb", "--max_epochs", epochs)
        run("train_lseg.py", *options, cwd=tmp_path)
    files = sorted((tmp_path / "runs" / "run" / "wandb").glob("offline-run-*/run-run_v0.wandb"))
    assert len(files) == 2  # two parts of one run, by their names
    for file in files:
        content = file.read_bytes()
        assert all(name in content for name in (b"train_loss", b"val_miou_epoch", b"lr_encoder"))
        assert len(list((file.parent / "files" / "media" / "images").glob("validation_*.png"))) == 1
    assert not list((tmp_path / "runs" / "run").glob("**/events.out.tfevents*"))


@pytest.mark.parametrize(
    ("recipe", "kills"),
    [("--optimizer sgd --dropout 0.1", 2), ("--optimizer adamw --schedule cosine --warmup_steps 3", 1)],
)
@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(recipe, kills, root, tmp_path):
    options = [*arguments(root, "--max_epochs", 4, "--batch_size", 2, *recipe.split()), "--exp_name"]
    run("train_lseg.py", *options, "undisturbed", cwd=tmp_path)

    last, rng = last_checkpoint(root, "killed"), random.Random(0)
    for kill in range(kills):
        line, pipes = (
            forked("train_lseg.py", *options, "killed"),
            {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL},
        )
        process = subprocess.Popen(line, cwd=tmp_path, env=environment(), **pipes)
        before = last.stat().st_mtime if last.exists() else 0
        deadline = time.monotonic() + 120
        while not (last.exists() and last.stat().st_mtime > before):  # at least one more epoch is on disk
            assert process.poll() is None or kill, "ended before it could be killed"
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()  # until the pipe is closed: the training has ended
    run("train_lseg.py", *options, "killed", cwd=tmp_path)
    assert_same_weights(last, last_checkpoint(root, "undisturbed"))


@pytest.mark.slow
def test_number_of_workers_does_not_change_the_weights(root, tmp_path):
    for workers in (0, 2):
        options = arguments(root, "--max_epochs", 1, "--batch_size", 2, "--exp_name", f"workers{workers}")
        options[options.index("--workers") + 1] = workers
        run("train_lseg.py", *options, cwd=tmp_path)
    assert_same_weights(last_checkpoint(root, "workers0"), last_checkpoint(root, "workers2"))


@pytest.mark.slow
def test_two_processes_train_and_resume(root, tmp_path):
    for epochs in (1, 2):
        options = arguments(root, "--exp_name", "two", "--devices", 2, "--max_epochs", epochs, "--batch_size", 2)
        output = run("train_lseg.py", *options, cwd=tmp_path)
    assert "sync-BN needs GPUs" in output
    assert read_torch_file(last_checkpoint(root, "two"))["lseg"]["epoch"] == 1


def train(root: Path, *more: object) -> None:
    """The script's ``main`` in this process."""
    train_lseg.main(list(map(str, more if "--data_path" in more else arguments(root, *more))))


def refused(root: Path, *more: object) -> str:
    """What the script answers to bad input."""
    with pytest.raises(InputError) as caught:
        train(root, *more)
    return clean_message(caught.value)


@pytest.mark.usefixtures("one_thread")
def test_finetune_starts_from_a_checkpoint(root, capsys):
    train(root, "--exp_name", "first", "--max_epochs", 1)
    first = last_checkpoint(root, "first")
    # Where the file says it, the width of the decoder need not be given, neither at first nor on resuming.
    said = ("--clip_weights", "--backbone_weights", "random", "--num_features", "16")
    without = [option for option in arguments(root) if option not in said]
    without += ["--finetune_weights", first]
    assert "--dropout" in refused(root, *without, "--dropout", 0.1)
    options = [*without, "--base_lr", 1e-12, "--weight_decay", 0, "--max_epochs", 1]
    train(root, *options, "--exp_name", "second")
    name = "net.scratch.head1.weight"
    torch.testing.assert_close(weights_of(last_checkpoint(root, "second"))[name], weights_of(first)[name])
    train(root, *options, "--exp_name", "second", "--max_epochs", 2)
    assert "resuming" in capsys.readouterr().out
    other_backbone = ["tiny_resnet" if option == "tiny_vit" else option for option in options]
    assert "is a tiny_vit" in refused(root, *other_backbone, "--exp_name", "third")


@pytest.mark.usefixtures("one_thread")
def test_a_plain_classifier_trains_resumes_and_is_tested_with_its_own_labels_only(root, tmp_path):
    for epochs in (1, 2):
        train(root, "--exp_name", "plain", "--head", "classes", "--max_epochs", epochs)
    last = last_checkpoint(root, "plain")
    metadata = read_torch_file(last)["lseg"]
    assert metadata["architecture"]["classes"] == get_labels("ade20k") and metadata["epoch"] == 1
    assert not any("clip" in name for name in weights_of(last))
    test = ["--eval", "--weights", last, "--data_path", root, "--protocol", "single", "--workers", 0]
    test = list(map(str, [*test, "--output_dir", tmp_path / "out", "--log_dir", tmp_path / "logs"]))
    test_lseg.main(test)
    assert 0 <= json.loads((tmp_path / "out" / "results.json").read_text())["miou"] <= 100
    with pytest.raises(InputError, match="plain classifier of 150 classes"):
        test_lseg.main([*test, "--label_src", "corrected"])


@pytest.mark.usefixtures("one_thread")
def test_a_bad_image_stops_by_name_or_is_skipped_and_counted(root, capsys):
    bad = image_path(root, "train", "a4")
    truncate(bad)
    assert str(bad) in refused(root, "--max_epochs", 1, "--exp_name", "stop")
    train(root, "--max_epochs", 1, "--exp_name", "skip", "--on_bad_image", "skip")
    output = capsys.readouterr().out
    assert "skipped 1 unreadable" in output and str(bad) in output


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_loss_that_is_not_finite_names_step_and_files_and_keeps_the_last_checkpoint(root):
    options = ("--exp_name", "wild", "--batch_size", 3)
    train(root, *options, "--max_epochs", 1)
    before = last_checkpoint(root, "wild").read_bytes()
    output = refused(root, *options, "--max_epochs", 5, "--base_lr", 1e30)
    assert "the loss is" in output and "step" in output and ".jpg" in output
    assert f"is intact ({last_checkpoint(root, 'wild')})" in output
    assert last_checkpoint(root, "wild").read_bytes() == before


@pytest.mark.usefixtures("one_thread")
def test_scores_in_validation_that_are_not_finite_name_the_files_and_choose_no_checkpoint(root, monkeypatch):
    def break_statistics(module: LSegModule) -> None:
        """Training goes on with the statistics of each batch; validation would give every pixel label 0."""
        next(m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_var.fill_(torch.nan)
        module.metric.reset()

    monkeypatch.setattr(LSegModule, "on_validation_epoch_start", break_statistics)
    output = refused(root, "--exp_name", "wild", "--max_epochs", 1, "--batch_size", 9)
    assert "validation" in output and "NaN" in output and ".jpg" in output
    assert not list((root.parent / "runs").rglob("*.ckpt"))


def test_all_problems_are_reported_at_once_by_a_process_of_its_own(tmp_path):
    options = ["--data_path", tmp_path / "nowhere", "--aux", "--clip_weights", tmp_path / "no.pt", "--devices", 0]
    output = run("train_lseg.py", *options, "--checkpoint_dir", tmp_path / "runs", cwd=tmp_path, code=2)
    for part in ("nowhere", "prepare_ade20k.py", "--aux", "no.pt", "--devices is 0"):
        assert part in output
    assert "Traceback" not in output


@pytest.mark.parametrize("script", ["train_lseg", "train_lseg_zs"])
def test_bad_input_is_answered_before_torch_is_imported(script, tmp_path):
    cases = [
        ["--help"],
        ["--no_such_option"],
        ["--data_path", tmp_path / "nowhere"],
        ["--dataset", "no_such_dataset"],
        ["--data_path", tmp_path, "--clip_weights", tmp_path / "no.pt"],
    ]
    code = f"""
import contextlib, io, sys
from lseg_utils.errors import InputError
import {script}
for options in {[list(map(str, case)) for case in cases]}:
    with contextlib.suppress(SystemExit, InputError), contextlib.redirect_stdout(io.StringIO()):
        {script}.main(options)
        raise AssertionError(options)
print(sorted({{"torch", "timm", "pytorch_lightning", "torchvision", "cv2"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_gpus_that_are_not_there(root):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "no CUDA GPU" in refused(root, "--dry-run", "--accelerator", "gpu")


def test_a_folder_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    output = refused(root, "--dry-run", "--checkpoint_dir", tmp_path / "file" / "runs")
    assert "not writable" in output and "--checkpoint_dir" in output


def test_batch_normalisation_needs_more_than_one_value(root):
    output = refused(root, "--dry-run", "--crop_size", 32, "--batch_size", 1)
    assert "--batch_size 2" in output and "--crop_size 64" in output


@pytest.mark.usefixtures("one_thread")
def test_a_resumed_run_refuses_other_sizes_and_weights_and_tells_another_seed(root, tmp_path, capsys):
    run_of = ("--exp_name", "run", "--max_epochs", 1, "--batch_size", 9)
    train(root, *run_of)
    version = last_checkpoint(root, "run").parent.parent
    assert read_torch_file(last_checkpoint(root, "run"))["lseg"]["sizes"] == {"base": 64, "crop": 64}
    assert "backbone: tiny_vit" in (version / "hparams.yaml").read_text()
    assert not (version.parent / ".lock").exists()
    clip = tmp_path / "other.pt"
    clip.write_bytes(b"x")
    for other in (["--crop_size", 96], ["--base_size", 96], ["--clip_weights", clip]):
        output = refused(root, *run_of, *other)
        assert "started differently" in output and f"{other[0][2:]} was" in output
    capsys.readouterr()
    moved = make_tree(tmp_path / "moved", train=10, val=3)
    train(root, *run_of, "--seed", 7, "--accumulate_grad_batches", 2, "--datapath", moved)
    output = capsys.readouterr().out
    assert "seed was 0" in output and "accumulate_grad_batches was 1" in output
    assert f"data_path was {root.resolve()}" in output and "note: images was 9" in output
    assert "validation_images was" not in output


def test_two_trainings_of_one_run_at_once_are_refused(root):
    holder = f"from lseg_utils.lock import locked\nwith locked({str(root.parent / 'runs' / 'run')!r}, ''):\n    "
    holder += "print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        output = refused(root, "--exp_name", "run", "--max_epochs", 1)
        process.communicate("\n")
    assert f"process {process.pid}" in output and "--exp_name" in output
    train(root, "--exp_name", "run", "--max_epochs", 1, "--batch_size", 9)


@pytest.mark.parametrize(
    ("started_by_srun", "world"),
    [({"SLURM_NTASKS": "1"}, 2), ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_NUM_TASKS": "2"}, 2)],
    ids=["one task", "a task per process"],
)
def test_all_processes_train_in_a_slurm_job(started_by_srun, world, root, monkeypatch):
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "x", "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    for name, value in (job | started_by_srun).items():
        monkeypatch.setenv(name, value)
    options = train_lseg.build_parser().parse([*map(str, arguments(root)), "--devices", "2", "--logger", "none"])
    trainer = build_trainer(training_settings(options), 0, CheckpointFiles({}))
    assert trainer.world_size == world
    assert trainer.strategy.cluster_environment.creates_processes_externally == (
        "SLURM_STEP_NUM_TASKS" in started_by_srun
    )


def test_official_flags_with_a_dry_run_leave_nothing_behind(root):
    flags = "--base_lr 0.004 --weight_decay 1e-4 --no-scaleinv --max_epochs 240 --widehead --accumulate_grad_batches 2"
    train(root, "--exp_name", "dry", "--dry-run", *flags.split())
    assert not (root.parent / "runs" / "dry").exists()
