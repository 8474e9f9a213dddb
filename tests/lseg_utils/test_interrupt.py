"""Ctrl-C while a script is being imported: one line, exit code 130, no traceback."""

from __future__ import annotations

import signal
import subprocess

import pytest

from ade_tree import make_tree
from scripts import TINY, command, environment

SCRIPTS = ("train_lseg", "train_lseg_zs", "test_lseg", "test_lseg_zs", "predict_lseg", "export_lseg", "prepare_ade20k")
# What stands in for a package: it presses Ctrl-C while it is being imported.
STAND_IN = f"import os, time\nos.kill(os.getpid(), {int(signal.SIGINT)})\ntime.sleep(60)\n"


def interrupted_import(package, tmp_path, *line):
    """(exit code, standard error) of a command during which the import of ``package`` is interrupted."""
    (tmp_path / f"{package}.py").write_text(STAND_IN)
    done = subprocess.run(
        command(*line),
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_before_the_options_are_read(script, tmp_path):
    code, said = interrupted_import("tqdm", tmp_path, f"{script}.py", "--help")
    assert code == 130 and "Traceback" not in said and "interrupted from the keyboard" in said


def test_while_the_heavy_packages_are_imported(tmp_path):
    root = make_tree(tmp_path / "datasets")
    options = ("--data_path", root, "--checkpoint_dir", tmp_path / "runs", *TINY)
    code, said = interrupted_import("pytorch_lightning", tmp_path, "train_lseg.py", *options)
    assert code == 130 and "Traceback" not in said and "interrupted from the keyboard" in said
