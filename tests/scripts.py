"""Running this project's scripts as a user does: in a process of their own, from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

# The smallest network that has all the parts, on crops of 64 pixels.
TINY = (
    *("--backbone", "tiny_vit", "--num_features", "16", "--clip_weights", "random", "--backbone_weights", "random"),
    *("--crop_size", "64", "--base_size", "64", "--workers", "0", "--accelerator", "cpu"),
)


def command(script: str, *arguments: object) -> list[str]:
    """The command line of one of our scripts, a file or a module that ``python -m`` runs."""
    place = [str(REPOSITORY / script)] if script.endswith(".py") else ["-m", script]
    return [sys.executable, *place, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """One thread per process: results must not depend on how busy the machine is, and nor should time."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **more}


def run(script: str, *arguments: object, cwd: Path, code: int = 0) -> str:
    """Run a script to its end, check its exit code and return what it printed."""
    found = {} if script.endswith(".py") else {"PYTHONPATH": str(REPOSITORY)}  # python -m looks there
    line, variables = command(script, *arguments), environment(**found)
    result = subprocess.run(line, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)
    output = result.stdout + result.stderr
    assert result.returncode == code, output[-3000:]
    return output


HEAVY = ("torch", "torchvision", "timm", "pytorch_lightning", "cv2")

_LIGHT = """
import atexit, runpy, sys
atexit.register(lambda: print("imported:", *(name for name in {heavy} if name in sys.modules)))
sys.argv = sys.argv[1:]
sys.path.insert(0, {repository!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_light(script: str, *arguments: object, cwd: Path, code: int = 0) -> str:
    """Run a script as ``run`` does, and check that it ended without importing any of the ``HEAVY`` packages."""
    program = _LIGHT.format(heavy=HEAVY, repository=str(REPOSITORY))
    line = [sys.executable, "-c", program, str(REPOSITORY / script), *map(str, arguments)]
    result = subprocess.run(line, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    output, _, imported = result.stdout.rpartition("imported:")
    assert result.returncode == code and "Traceback" not in result.stderr, (result.stdout + result.stderr)[-3000:]
    assert not imported.split(), f"{script} {' '.join(map(str, arguments))} imported {imported}"
    return output + result.stderr


def torchrun(processes: int, script: str, *arguments: object, cwd: Path) -> str:
    """Run a script in several processes joined by torchrun."""
    launcher: Sequence[str] = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
    )
    line = [*launcher, str(REPOSITORY / script), *map(str, arguments)]
    result = subprocess.run(line, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return result.stdout + result.stderr
