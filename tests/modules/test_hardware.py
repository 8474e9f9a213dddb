"""What the machine computes fast, and the warning about a precision that is slower than float32."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch

import predict_lseg
import test_lseg
import train_lseg
from lseg_utils.errors import InputError
from modules import hardware
from modules.device import reduced_dtype
from modules.predictor import LSegPredictor
from scripts import REPOSITORY
from tiny import tiny_net

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def measure_anew():
    hardware.slowdown.cache_clear()
    yield
    hardware.slowdown.cache_clear()


def rates(monkeypatch, bfloat16: float) -> None:
    """A machine on which bfloat16 is ``bfloat16`` times as fast as float32."""
    monkeypatch.setattr(
        hardware, "product_rate", lambda device, dtype: 100.0 * (bfloat16 if dtype == torch.bfloat16 else 1.0)
    )


def test_a_slow_precision_is_used_with_a_warning_that_gives_the_factor(monkeypatch):
    rates(monkeypatch, 0.125)
    with pytest.warns(UserWarning, match="bfloat16 is 8.0 times slower"):
        assert reduced_dtype("bf16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("precision", "factor"), [("bf16", 1.6), ("bf16", 0.95), ("auto", 0.125), ("32", 0.125)])
def test_no_warning_without_need(monkeypatch, precision, factor):
    rates(monkeypatch, factor)
    with warnings.catch_warnings(record=True) as caught:
        reduced_dtype(precision, CPU)
    assert not caught


def test_only_the_first_process_warns(monkeypatch):
    rates(monkeypatch, 0.125)
    monkeypatch.setenv("RANK", "1")
    with warnings.catch_warnings(record=True) as caught:
        reduced_dtype("bf16", CPU)
    assert not caught


def test_the_default_on_a_cpu_is_float32():
    assert reduced_dtype("auto", CPU) is None


def test_int8_is_refused_with_the_figures(capsys):
    with pytest.raises(InputError, match=r"int8.*86 %.*1\.4 times"):
        LSegPredictor(tiny_net("tiny_vit"), "cpu", "int8")
    for script in (predict_lseg, test_lseg, train_lseg):
        with pytest.raises(SystemExit):
            script.build_parser().parse(["--precision", "int8"])
        assert "86 %" in capsys.readouterr().err


def test_the_table_lists_every_precision_of_the_cpu(monkeypatch, capsys):
    monkeypatch.setitem(hardware.SIDE, "cpu", 32)
    hardware.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("cpu")] == ["float32", "bfloat16", "float16"]
    for feature in hardware.cpu_features():
        assert feature in lines[2]


def test_help_imports_no_torch():
    code = "import sys, modules.hardware as it\ntry: it.main(['-h'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert "usage" in done.stdout and done.stdout.endswith("False\n")
