"""The ledger of the paper without training: scripts that leave behind what real ones would; tables, kills, refusals."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import stdev

import pytest
import torch

import reproduce as script
from lseg_utils.errors import InputError
from paper import running
from paper.dry_run import WARNING
from paper.entries import DATA, Entry, Row, entries
from paper.report import MARK, describe, listing, report
from paper.running import Plan, reproduce, wrong_weights
from paper.stand_in import make_ade20k

ENTRIES = {entry.name: entry for entry in entries()}
STATES = ({"commit": "a" * 40, "changed": False}, {"commit": "b" * 40, "changed": False})


class Scripts:
    """Runs nothing: writes the checkpoint or the result of each call, and notes its script and run.

    miou: (seed, fold) -> the result in percent. interrupt_at: the name of the call that a kill prevents. setting: what
    the tests say of the training.
    """

    def __init__(
        self,
        miou: Callable[[int, int], float] = lambda seed, fold: 40.0,
        interrupt_at: str = "",
        setting: str = "zero-shot",
    ) -> None:
        self.miou, self.interrupt_at, self.setting, self.calls = miou, interrupt_at, setting, []

    def __call__(self, script: str, arguments: Sequence[str]) -> None:
        def given(option: str) -> str:
            return arguments[arguments.index(option) + 1]

        tests = script.startswith("test")
        name = Path(given("--output_dir")).name if tests else given("--exp_name")
        call = f"{'test' if tests else 'train'} {name}"
        if call == self.interrupt_at:
            raise KeyboardInterrupt
        self.calls.append(call)
        if tests:
            assert Path(given("--weights")).is_file() and name in given("--weights")
            seed, fold = (int(part[4:]) for part in name.split("_"))
            Path(given("--output_dir")).mkdir(parents=True)
            result = {"miou": self.miou(seed, fold), "fb_iou": 60.0 + fold, "setting": self.setting}
            Path(given("--output_dir"), "results.json").write_text(json.dumps(result))
        else:
            folder = Path(given("--checkpoint_dir"), name, "version_0", "checkpoints")
            folder.mkdir(parents=True, exist_ok=True)
            for file in ("last.ckpt", "result-epoch=0.ckpt"):
                write_checkpoint(folder / file)


def write_checkpoint(path: Path) -> None:
    """One tensor and a validation mIoU."""
    torch.save({"state_dict": {"net.a": torch.zeros(1)}, "lseg": {"metric": {"val_miou_epoch": 0.5}}}, path)


def row_of(entry: str, name: str) -> tuple[Entry, Row]:
    """An entry and its row of this name."""
    return ENTRIES[entry], next(row for row in ENTRIES[entry].rows if row.name == name)


def table_of(plan: Plan, entry: Entry) -> dict:
    """``table.json``."""
    return json.loads((plan.folder / entry.name / "table.json").read_text())


def test_mean_and_deviation_over_seeds(tmp_path):
    entry, row = row_of("table1", "resnet101")
    plan = Plan(tmp_path, seeds=(0, 1, 2))
    reproduce(entry, row, plan, Scripts(lambda seed, fold: 40.0 + 10 * fold + seed**2))
    text = report(entry, plan)
    measured = table_of(plan, entry)["rows"][0]["measured"]
    assert measured["fold 1"]["values"] == [50.0, 51.0, 54.0]
    assert measured["mean"]["values"] == [55.0, 56.0, 59.0]  # over the folds of each seed
    assert measured["mean"]["mean"] == pytest.approx(170 / 3)
    assert measured["mean"]["deviation"] == pytest.approx(stdev([55, 56, 59]))
    assert measured["FB-IoU"]["values"] == [61.5] * 3 and measured["FB-IoU"]["deviation"] == 0
    line = next(line for line in text.splitlines() if line.startswith(row.title) and " mean " in line)
    assert "56.67 ± 2.08 (3 seeds)" in line and "47.40" in line and "+9.27" in line


def test_the_table_has_all_that_ran_and_what_is_not_zero_shot_is_told(tmp_path):
    (entry, first), (_, second) = row_of("table3", "resnet101"), row_of("table3", "vitl16")
    reproduce(entry, first, Plan(tmp_path), Scripts(setting="few-shot: fine-tuned on supports of the test classes"))
    given = Plan(tmp_path, weights=str(tmp_path / "seed0_fold0.ckpt"))
    write_checkpoint(Path(given.weights))
    reproduce(entry, second, given, Scripts())
    text = report(entry, given)  # a later call, which asked for one of the rows
    rows = table_of(given, entry)["rows"]
    assert [(row["row"], row["kind"]) for row in rows] == [
        ("resnet101", "trained"),
        ("vitl16", "given files tested"),
    ]
    assert f"{first.title}: few-shot" in text and f"{second.title} (given files tested)" in text
    assert text.count("few-shot") == 1


def test_a_given_file_is_tested_as_the_network_of_its_row(tmp_path):
    entry, row = row_of("table4", "bottleneck_2")
    plan = Plan(tmp_path, weights=str(tmp_path / "seed0_fold0.ckpt"))
    write_checkpoint(Path(plan.weights))
    calls, scripts = [], Scripts()
    reproduce(entry, row, plan, lambda name, words: calls.append(words) or scripts(name, words))
    (words,) = calls
    given = dict(pairwise(words))
    assert (given["--backbone"], given["--arch_option"], given["--block_depth"]) == ("clip_vitb32_384", "1", "2")


def test_a_file_that_cannot_be_all_that_is_asked_for_is_refused(tmp_path):
    entry, plan = ENTRIES["table1"], Plan(tmp_path, weights="mine.ckpt")
    rows, folds = wrong_weights(entry, entry.rows, plan)
    assert "--row: resnet101, vitl16" in rows and "4 folds" in folds and "%" in folds
    assert wrong_weights(entry, entry.rows[:1], replace(plan, folds=(1,))) == []
    assert wrong_weights(entry, entry.rows[:1], replace(plan, weights="fold%.ckpt")) == []
    assert wrong_weights(ENTRIES["table6"], ENTRIES["table6"].rows[:1], plan) == []


def test_what_has_no_folds_is_run_whole_whatever_the_fold():
    plan = Plan(Path(), folds=(2,))
    jobs = {name: plan.jobs(entry) for name, entry in ENTRIES.items()}
    assert jobs["table1"] == [(0, 2)] and jobs["table3"] == jobs["table6"] == [(0, 0)]


def test_a_mean_over_folds_needs_all_of_them_and_one_seed_has_no_deviation(tmp_path):
    entry, row = row_of("table1", "resnet101")
    plan = Plan(tmp_path, folds=(0, 2))
    reproduce(entry, row, plan, Scripts())
    assert "±" not in report(entry, plan)
    measured = table_of(plan, entry)["rows"][0]["measured"]
    assert set(measured) == {"fold 0", "fold 2"} and measured["fold 0"]["deviation"] is None


def test_rows_from_two_git_states_are_marked(tmp_path, monkeypatch):
    plan = Plan(tmp_path)
    (entry, first), (_, second) = row_of("table5", "text_vitb32"), row_of("table5", "text_vitb16")
    for row, state in zip((first, second), STATES):
        monkeypatch.setattr("lseg_utils.git.git_state", lambda state=state: state)
        reproduce(entry, row, plan, Scripts())
    text = report(entry, plan)
    marked = {row.title: f"{row.title} {MARK}" in text for row in (first, second)}
    assert marked == {first.title: True, second.title: False}  # the newest state is the table's
    assert table_of(plan, entry)["states"] == ["a" * 12, "b" * 12]
    # A change that was not committed is a state of its own, and one row may have two states.
    monkeypatch.setattr("lseg_utils.git.git_state", lambda: STATES[1] | {"changed": True})
    reproduce(entry, second, replace(plan, seeds=(0, 1)), Scripts())
    assert f"{second.title} {MARK}" in report(entry, plan)
    assert table_of(plan, entry)["states"] == ["a" * 12, "b" * 12, "b" * 12 + " with changes"]
    # The last run decides, not the last row.
    monkeypatch.setattr("lseg_utils.git.git_state", lambda: STATES[1])
    reproduce(entry, first, replace(plan, seeds=(1,)), Scripts())
    assert f"{second.title} {MARK}" in report(entry, plan) and f"than {'b' * 12}:" in report(entry, plan)


@pytest.mark.parametrize("interrupted", ["train seed1_fold2", "test seed1_fold2"])
def test_a_killed_run_does_only_what_is_left(tmp_path, interrupted):
    entry, row = row_of("table1", "vitl16")
    plan = Plan(tmp_path, seeds=(0, 1), folds=(0, 2))
    killed, finished = Scripts(interrupt_at=interrupted), ("seed0_fold0", "seed0_fold2", "seed1_fold0")
    with pytest.raises(KeyboardInterrupt):
        reproduce(entry, row, plan, killed)
    assert killed.calls[:6] == [f"{what} {run}" for run in finished for what in ("train", "test")]
    again = Scripts()
    reproduce(entry, row, plan, again)
    assert again.calls == ["train seed1_fold2", "test seed1_fold2"]  # the training script itself resumes
    reproduce(entry, row, plan, again)
    assert len(again.calls) == 2


def test_a_line_that_a_kill_cut_off_is_run_again(tmp_path):
    entry, row = row_of("table6", "vitl16_vitb32")
    plan = Plan(tmp_path, seeds=(0, 1))
    reproduce(entry, row, plan, Scripts())
    ledger = plan.row_folder(entry, row) / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-20])
    shutil.rmtree(plan.row_folder(entry, row) / "seed1_fold0")
    again = Scripts()
    reproduce(entry, row, plan, again)
    assert again.calls == ["train seed1_fold0", "test seed1_fold0"]
    assert len(ledger.read_text().splitlines()) == 3  # the header and two runs


def test_a_ledger_of_other_settings_is_refused(tmp_path):
    entry, row = row_of("table6", "vitl16_vitb32")
    plan = Plan(tmp_path)
    reproduce(entry, row, plan, Scripts())
    path = plan.row_folder(entry, row) / "ledger.jsonl"
    before, other = path.read_bytes(), Scripts()
    with pytest.raises(InputError) as error:
        reproduce(entry, row, replace(plan, train_options=("--batch_size", "2")), other)
    assert all(text in str(error.value) for text in (str(path), "train: [] there", "--batch_size", "--output_dir"))
    assert not other.calls and path.read_bytes() == before
    path.write_text("[]\n")
    with pytest.raises(InputError, match="ledger.jsonl"):
        reproduce(entry, row, plan, other)
    with pytest.raises(InputError, match="ledger.jsonl"):
        listing(tmp_path)
    assert not other.calls


def test_a_dry_run_is_marked_wherever_it_is_shown(tmp_path):
    entry, row = row_of("table6", "vitl16_vitb32")
    plan = Plan(tmp_path, warning=WARNING)
    reproduce(entry, row, plan, Scripts())
    report(entry, plan)
    assert (tmp_path / "table6" / "table.txt").read_text().startswith(WARNING)
    assert table_of(plan, entry)["warning"] == WARNING
    assert next(one["here"] for one in listing(tmp_path) if one["row"] == row.name) == "dry run, trained: 1 of 1"
    with pytest.raises(InputError, match="warning"):  # a real run does not count it as its own
        reproduce(entry, row, replace(plan, warning=""), Scripts())


def test_missing_data_and_checkpoints_are_reported_together_with_commands(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "REPOSITORY", tmp_path)  # no checkpoints there
    places = ["--ade20k_path", str(tmp_path / "ade"), "--fewshot_path", str(tmp_path / "few")]
    with pytest.raises(InputError) as error:
        script.main(["all", "--weights", "released", *places, "--output_dir", str(tmp_path / "out")])
    message = str(error.value)
    files = {row.released.replace("%", str(fold)) for e in entries() for row in e.rows for fold in e.folds} - {""}
    assert len(files) == 11 and all(str(tmp_path / "checkpoints" / file) in message for file in files)
    assert all(text in message for text in ("VOC2012", "COCO2014", "FSS-1000", "ADEChallengeData2016"))
    assert "python prepare_ade20k.py" in message and "python -m modules.zoo check" in message
    assert message.count("How to fix it") == 4  # once for each dataset, not for each fold
    assert message.count("--fewshot_path") == 3 and message.count("--ade20k_path") == 1 and "--datapath" not in message
    assert not (tmp_path / "out").exists()


def test_every_figure_has_a_tag_and_the_list_shows_it(tmp_path):
    tags = {text: tag for tag, text in DATA["sources"].items()}
    rows = listing(tmp_path)
    found = {row["entry"]: set() for row in rows}
    for row in rows:
        found[row["entry"]] |= {tags[known["source"]] for known in row["published"].values()}
    assert found["table4"] == found["table6"] == {"secondary", "unconfirmed"} and found["table5"] == {"secondary"}
    assert found["table3"] == {"readme"} and "readme" in found["table1"]
    printed = describe(rows, tmp_path)
    for text in ("fold 3 41.0 (unconfirmed); mean 52.3, FB-IoU 67.0 (secondary)", "mIoU 47.25 (secondary)"):
        assert text in printed
    assert "mIoU 46.28, pixel accuracy 82.46 (unconfirmed)" in printed and "mIoU 39.79 (unconfirmed)" in printed


STUB = """
import json, shutil, sys
from pathlib import Path
here = Path(__file__).parent
given = lambda option: Path(sys.argv[sys.argv.index(option) + 1])
with (here / "calls.txt").open("a") as file:
    file.write(Path(__file__).stem + chr(10))
if Path(__file__).stem == "train_lseg":
    if not (here / "network.ckpt").exists():
        sys.exit(3)
    folder = given("--checkpoint_dir") / given("--exp_name") / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(here / "network.ckpt", folder / "last.ckpt")
else:
    given("--output_dir").mkdir(parents=True)
    (given("--output_dir") / "results.json").write_text(json.dumps({"miou": 47.0, "pixel_accuracy": 80.0}))
"""


def test_processes_that_fail_are_named_and_the_same_command_resumes(tmp_path, monkeypatch, capfd):
    """The real path: scripts in processes of their own. The training exits with 3 at first, then with 0."""
    for name in ("train_lseg", "test_lseg"):
        (tmp_path / f"{name}.py").write_text(STUB)
    monkeypatch.setattr(script, "REPOSITORY", tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    command = ["table6", "--backbone", "clipRN50x16_vitl16_384", "--output_dir", str(tmp_path / "out")]
    command += ["--ade20k_path", str(make_ade20k(tmp_path / "data"))]
    with pytest.raises(InputError) as error:
        script.main(command)
    assert all(text in str(error.value) for text in ("train_lseg.py", "exit code 3", "same command"))
    write_checkpoint(tmp_path / "network.ckpt")
    capfd.readouterr()
    script.main(command)
    calls = (tmp_path / "calls.txt").read_text().split()
    assert calls == ["train_lseg", "train_lseg", "test_lseg"]
    assert "-0.25" in capfd.readouterr().out  # 47.0 next to 47.25
    script.main(command)
    assert (tmp_path / "calls.txt").read_text().split() == calls


@pytest.mark.parametrize(("gpus", "launcher"), [(1, []), (2, ["torch.distributed.run", "2"])])
def test_a_test_uses_all_gpus(monkeypatch, gpus, launcher):
    commands = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(script.subprocess, "run", lambda words: commands.append(words) or Finished)
    script.run_process("test_lseg.py", ["--eval"])
    script.run_process("train_lseg.py", [])
    tested, trained = commands
    assert tested[0] == trained[0] == sys.executable and tested[-1] == "--eval"
    assert [word for word in tested if word in ("torch.distributed.run", "2")] == launcher
    assert "torch.distributed.run" not in trained


class Finished:
    """A process that ended well."""

    returncode = 0
