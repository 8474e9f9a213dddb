"""predict_lseg.py and lseg_app.py answer what is wrong with a command before they import torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import REPOSITORY, environment

HEAVY = ("torch", "cv2", "timm", "lightning")

# Runs main with the arguments, and prints as its last line: how it ended, and what it imported.
PROBE = """
import json, sys
arguments, heavy = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.argv = [arguments[0], *arguments[1:]]
from importlib import import_module
script = import_module(arguments[0])
try:
    ended = (script.main if arguments[0] == "predict_lseg" else script.refuse)()
except SystemExit as error:
    ended = error.code
except ValueError as error:
    ended = str(error)
print(json.dumps([ended, [name for name in heavy if name in sys.modules]]))
"""


def probe(*arguments: object) -> tuple[object, list[str]]:
    """How a script ends with these arguments, and which heavy libraries it imported."""
    texts = json.dumps([str(one) for one in arguments])
    line = [sys.executable, "-c", PROBE, texts, json.dumps(HEAVY)]
    output = subprocess.run(line, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=120)
    assert output.returncode == 0, output.stderr
    return tuple(json.loads(output.stdout.splitlines()[-1]))


@pytest.mark.parametrize("script", ["predict_lseg", "lseg_app"])
def test_help_and_unknown_options_import_nothing_heavy(script: str) -> None:
    assert probe(script, "--help") == (0, [])
    assert probe(script, "--no_such_option", "x") == (2, [])


def test_missing_files_and_bad_numbers_are_reported_before_torch_is_imported(tmp_path: Path) -> None:
    missing, weights, labels = (tmp_path / name for name in ("missing.jpg", "missing.ckpt", "missing.txt"))
    options = ["--labels", labels, "--batch_size", 0, "--embeddings", "npy", "--embedding_size", "big"]
    ended, heavy = probe("predict_lseg", missing, "--weights", weights, "--output_dir", tmp_path / "out", *options)
    assert heavy == []
    for text in (missing, weights, labels, "--batch_size is 0", "'big'", "modules.zoo", "quickstart.sh"):
        assert str(text) in ended
