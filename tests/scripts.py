"""Run this project's scripts as a user does: in a process of their own, from another folder."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
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
    """Run a script to its end, check its exit code and return what it printed.

    Its process is forked from one that has already imported torch (see ``fork_server.py``).
    """
    variables = environment(**({} if script.endswith(".py") else {"PYTHONPATH": str(REPOSITORY)}))
    request = {"argv": command(script, *arguments)[1:], "cwd": str(cwd), "env": variables}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        with socket.socket(socket.AF_UNIX) as server, server.makefile() as answers:
            server.connect(fork_server())
            socket.send_fds(server, [json.dumps(request).encode()], [out.fileno(), error.fileno()])
            server.settimeout(300)
            group = int(answers.readline())
            try:
                found = int(answers.readline())
            except TimeoutError:
                os.killpg(group, signal.SIGKILL)
                raise
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


@cache
def fork_server() -> str:
    """Start ``fork_server.py``, once per test process, and return the path of its socket."""
    folder = tempfile.mkdtemp()
    place = f"{folder}/socket"
    line = [sys.executable, str(REPOSITORY / "tests" / "fork_server.py"), place]
    server = subprocess.Popen(line, env=environment(), stdin=subprocess.PIPE)  # it ends when its input does
    atexit.register(shutil.rmtree, folder)
    while not Path(place).exists():
        assert server.poll() is None, "tests/fork_server.py could not start"
        time.sleep(0.05)
    return place


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
