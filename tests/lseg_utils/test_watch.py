"""Several processes that end together, without any training: what the others say, and the exit codes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest

from scripts import REPOSITORY, environment, python_file

SCRIPT = """
import os, sys, time
import torch, torch.distributed as dist
from lseg_utils import watch
from lseg_utils.distributed import join_group, run_distributed, watch_others
from lseg_utils.errors import InputError

watch.BEAT, watch.SILENCE = 0.5, 5  # seconds

def main():
    rank, kind = int(os.environ["RANK"]), sys.argv[1]
    join_group(torch.device("cpu"))
    watch_others()
    dist.barrier()
    if kind == "all":
        raise InputError("no such folder")
    if kind == "one" and rank == 1:
        raise InputError("a.jpg is cut off")
    if kind == "bug" and rank == 0:
        raise KeyError("x")
    if kind == "wait":
        print(os.getpid(), flush=True)
        time.sleep(60)
    dist.all_reduce(torch.ones(1))

run_distributed(main)
"""


def start(kind: str) -> list[subprocess.Popen]:
    """Two processes of SCRIPT, joined as a launcher would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    common["PYTHONPATH"] = str(REPOSITORY)
    return [
        subprocess.Popen(
            [python_file(), "-c", SCRIPT, kind],
            env=environment(RANK=str(rank), **common),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]


@pytest.mark.parametrize(
    ("kind", "codes", "said"),
    [
        ("none", [0, 0], ["", ""]),
        ("one", [1, 2], ["ends, because process 1 has failed: a.jpg is cut", "error: a.jpg is cut off"]),
        ("bug", [1, 1], ["KeyError: 'x'", "error: process 1 ends, because process 0 has failed: KeyError"]),
    ],
)
def test_all_end_and_say_why(kind, codes, said):
    processes = start(kind)
    texts = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == codes, texts
    assert all(part in text for part, text in zip(said, texts, strict=True)), texts
    assert kind == "bug" or not any("Traceback" in text for text in texts)


@pytest.mark.slow
def test_what_all_find_wrong_is_said_once():
    texts = [process.communicate(timeout=300)[1] for process in start("all")]
    assert "".join(texts).count("no such folder") == 1


@pytest.mark.slow
def test_a_process_that_gives_no_sign_of_life_ends_the_others():
    processes = start("wait")
    ids = [int(process.stdout.readline()) for process in processes]
    time.sleep(2)  # long enough for it to have counted
    os.kill(ids[1], signal.SIGSTOP)
    try:
        text = processes[0].communicate(timeout=300)[1]
        assert "process 1 has failed: no sign of life" in text and processes[0].returncode == 1
    finally:
        processes[1].kill()
        processes[1].communicate()
