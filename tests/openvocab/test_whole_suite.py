"""The whole suite over stand-ins of all benchmarks: one command, killed in the middle, one table."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

import test_openvocab as script
from data.description import read_description
from modules.checkpoints import save_file, to_official
from openvocab import suite
from openvocab.benchmarks import BENCHMARKS, GROUPS, MESS
from openvocab.mess import PUBLISHED, domain_rows
from scripts import environment, forked
from stand_ins import make_stand_in
from tiny import tiny_net


@pytest.mark.slow
def test_one_command_is_killed_once_and_gives_one_table(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("scipy.io")
    for dataset in {benchmark.dataset for benchmark in BENCHMARKS.values()}:
        make_stand_in(read_description(dataset), tmp_path / "datasets", count=1)
    save_file({"state_dict": to_official(tiny_net("tiny_vit", None).state_dict())}, tmp_path / "tiny.ckpt")
    places = ["--data_path", tmp_path / "datasets", "--output_dir", tmp_path / "out"]
    places += ["--weights", tmp_path / "tiny.ckpt"]
    options = ["--datasets", "all,mess", *places, "--protocol", "short-side", "--short_side", 64]
    options += ["--workers", 0, "--device", "cpu"]

    def done() -> int:
        """Pictures that the records on the disk count, complete lines only."""
        return sum(file.read_text().count("\n") - 1 for file in (tmp_path / "out").rglob("pictures_*.jsonl"))

    with subprocess.Popen(forked("test_openvocab.py", *options), cwd=tmp_path, env=environment()) as process:
        while done() < len(BENCHMARKS) // 2:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.05)
        process.kill()
    kept, counted, calls = done(), suite.counted, []
    monkeypatch.setattr(suite, "counted", lambda *arguments: calls.append(1) or counted(*arguments))
    script.main([str(option) for option in options])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [result["benchmark"] for result in found["results"]] == list(BENCHMARKS) and not found["missing"]
    pictures = sum(result["pictures"] for result in found["results"])
    assert 0 < len(calls) == pictures - kept  # what was recorded before is not computed again
    own, *published = found["mess"]
    assert own["datasets"] == 22 and len(published) == len(PUBLISHED)
    table = (tmp_path / "out" / "table.txt").read_text()
    assert table in capsys.readouterr().out + "\n" and all(name in table for name in BENCHMARKS)
    assert "MESS by domain" in (tmp_path / "out" / "report.html").read_text()


def scored(**scores: float) -> list[dict]:
    return [{"benchmark": name, "scores": {"m": score}, "quoted_score": "m"} for name, score in scores.items()]


def test_the_mean_of_a_domain_counts_paxray_once_and_tells_what_is_missing() -> None:
    assert domain_rows(scored(**{"A-150": 50.0})) == []
    paxray = {f"PAXRay-{part}": value for part, value in zip(("Lungs", "Bones", "Mediastinum"), (40.0, 20.0, 30.0))}
    (own, *_) = domain_rows(scored(**paxray, **{"CHASE DB1": 10.0}))
    assert own == ["this run", "-", "-", "10.00 (1)", "-", "-", "10.00 (1)", 1]  # three of PAXRay's four do not count
    (own, *_) = domain_rows(scored(**paxray, **{"PAXRay-Diaphragm": 10.0, "CHASE DB1": 11.0, "CWFID": 30.0}))
    assert own[3] == "18.00 (2)" and own[5] == "30.00 (1)" and own[6] == "22.00 (3)" and own[7] == 3
    whole = {name: 12.0 for name in GROUPS["mess"]}
    (own, *published) = domain_rows(scored(**whole))
    assert own == ["this run", *[12.0] * 6, 22] and all(len(row) == len(MESS) + 3 for row in published)
