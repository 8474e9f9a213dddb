"""Run this project's scripts as a user does: in a process of their own, from another folder."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from fork_client import request

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
    """Run a script to its end, check its exit code and return what it printed.

    Its process is forked from one that has already imported torch (see ``fork_server.py``).
    """
    variables = environment(**({} if script.endswith(".py") else {"PYTHONPATH": str(REPOSITORY)}))
    line = command(script, *arguments)[1:]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        with request(fork_server(), line, variables, str(cwd), out.fileno(), error.fileno()) as server:
            server.settimeout(300)
            found = int(server.makefile().readline())
        for file in (out, error):
            file.seek(0)
        output = out.read() + error.read()
    assert found == code, output[-3000:]
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


def forked(script: str, *arguments: object) -> list[str]:
    """As ``command``, for a process that does not import torch but lets ``fork_server.py`` run the script.

    The script ends when this process is killed. Other signals do not reach it.
    """
    return [python_file(), *command(script, *arguments)[1:]]


def python_file() -> str:
    """An executable that stands for ``python``, see ``fork_client.py``."""
    return f"{Path(fork_server()).parent}/python"


@cache
def fork_server() -> str:
    """Start ``fork_server.py``, once per test process, and return the path of its socket."""
    folder = Path(tempfile.mkdtemp())
    place, python = folder / "socket", folder / "python"
    client = [sys.executable, "-S", "-E", str(REPOSITORY / "tests" / "fork_client.py"), str(place)]
    python.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
    python.chmod(0o755)
    line = [sys.executable, str(REPOSITORY / "tests" / "fork_server.py"), str(place)]
    server = subprocess.Popen(line, env=environment(), stdin=subprocess.PIPE)  # it ends when its input does
    atexit.register(shutil.rmtree, folder)
    while not place.exists():
        assert server.poll() is None, "tests/fork_server.py could not start"
        time.sleep(0.05)
    return str(place)


def torchrun(processes: int, script: str, *arguments: object, cwd: Path) -> str:
    """``run`` a script in several processes joined by torchrun."""
    options = ("--standalone", f"--nproc_per_node={processes}", REPOSITORY / script)
    return run("torch.distributed.run", *options, *arguments, cwd=cwd)
