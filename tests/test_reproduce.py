"""reproduce.py: the ledger lists everything, bad input is explained, a dry run trains, tests, reports and resumes."""

from __future__ import annotations

import json

import pytest

import reproduce
from lseg_utils.errors import InputError
from modules.released import RELEASED, published
from paper.entries import entries
from scripts import python_file

pytestmark = pytest.mark.usefixtures("one_thread")


def test_published_figures_agree_with_the_model_zoo():
    for entry in entries()[:3]:
        for row in entry.rows:
            known = published(entry.dataset, row.backbone)
            assert known.miou == row.published.get("mean", row.published.get("mIoU"))[0]
    files = {
        row.released.replace("%", str(fold)) for e in entries() for row in e.rows if row.released for fold in e.folds
    }
    assert files == {file.file for file in RELEASED}


def test_the_ledger_lists_every_row(tmp_path, capsys):
    reproduce.main(["--json", "--output_dir", str(tmp_path)])
    rows = json.loads(capsys.readouterr().out)
    assert {row["entry"] for row in rows} >= {f"table{number}" for number in range(1, 7)}
    assert all(row["published"] and row["here"] == "not run" for row in rows)


def test_bad_input_is_reported_at_once(tmp_path):
    where = [
        "--output_dir",
        str(tmp_path),
        "--fewshot_path",
        str(tmp_path / "no"),
        "--ade20k_path",
        str(tmp_path / "no"),
    ]
    with pytest.raises(InputError, match="table3"):
        reproduce.main(["tabel3", *where])
    with pytest.raises(InputError, match="all, or the names of tables"):
        reproduce.main(["--dry-run"])
    with pytest.raises(InputError, match="bottleneck_2"):
        reproduce.main(["table4", "--row", "bottleneck2", *where])
    with pytest.raises(InputError, match="--lrs is for zero-shot training"):
        reproduce.main(["table6", "--lrs", "0.1", *where])
    with pytest.raises(InputError, match="--seeds, --train_options would have no effect"):
        reproduce.main(["table6", "--weights", "released", "--seeds", "2", "--train_options=--compile", *where])
    with pytest.raises(InputError) as error:
        reproduce.main(["table1", "demo", "figures", "--weights", "released", *where])
    assert all(text in str(error.value) for text in ("VOC2012", "demo_e200.ckpt", "prepare_ade20k.py", "figures:"))


def test_figures_begin_with_a_photograph_or_ask_for_one(tmp_path, monkeypatch):
    network = tmp_path / "demo.ckpt"
    network.touch()
    command = ["figures", "--weights", str(network), "--output_dir", str(tmp_path)]
    monkeypatch.setattr("reproduce.sample_pictures", lambda checkpoint: [])
    with pytest.raises(InputError, match="name a picture with --image"):
        reproduce.main(command)
    options = reproduce.build_parser().parse(command)
    monkeypatch.setattr("reproduce.sample_pictures", lambda checkpoint: [tmp_path / "cat.png", tmp_path / "cup.png"])
    assert reproduce.pictures(options) == [tmp_path / "cat.png"]
    monkeypatch.setattr("reproduce.is_miniature", lambda checkpoint: True)
    assert reproduce.pictures(options) == [reproduce.SAMPLE]


@pytest.mark.slow
def test_a_dry_run_of_every_entry_trains_tests_reports_and_resumes(tmp_path, capsys, monkeypatch):
    """One row of each table: all that differ in what they train or test."""
    out = tmp_path / "out"
    monkeypatch.setattr(reproduce.sys, "executable", python_file())
    rows = ["resnet101", "bottleneck_2", "text_rn50x4", "dpt", "demo_e200"]
    command = ["--dry-run", "all", "--fold", "0", "--row", *rows, "--output_dir", str(out)]
    reproduce.main(command)
    tables = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/table.json")}
    assert set(tables) == {entry.name for entry in entries() if entry.kind != "figures"}
    assert all(run["measures"] for content in tables.values() for row in content["rows"] for run in row["runs"])
    content = tables["table6"]
    (run,) = content["rows"][0]["runs"]
    assert len(run["identity"]["labels_sha256"]) == len(run["identity"]["tensors_sha256"]) == 64
    assert (out / "figures" / "sample.png").is_file() and (out / "figures" / "figures.html").is_file()
    capsys.readouterr()
    reproduce.main(command)
    assert "test_lseg" not in capsys.readouterr().out  # everything was finished
