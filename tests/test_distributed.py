"""Several processes train as one does, whoever starts them; when one fails, all end, and the run goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ade_tree import image_path, make_tree, mask_path
from modules.safe_load import read_torch_file
from scripts import REPOSITORY, TINY, environment, python_file

pytestmark = pytest.mark.slow

ALTERED = "tests/altered_training.py"


def arguments(root: Path, *more: object) -> list[str]:
    places = ("--dataset", "ade20k", "--data_path", root, "--checkpoint_dir", root.parent / "runs")
    return [str(option) for option in (*places, "--exp_name", "run", *TINY, *more)]


def last_checkpoint(root: Path) -> Path:
    return root.parent / "runs" / "run" / "version_0" / "checkpoints" / "last.ckpt"


def epochs_done(root: Path) -> int:
    return read_torch_file(last_checkpoint(root))["lseg"]["epoch"] + 1


def torchrun(*options: object) -> list[str]:
    return [python_file(), "-m", "torch.distributed.run", *map(str, options)]


def finish(line: Sequence[str], alter: str) -> tuple[int, str]:
    """Exit code and output of a command, when all that it started has ended: then nobody holds its output open."""
    result = subprocess.run(line, env=environment(ALTER=alter), capture_output=True, text=True, timeout=200)
    return result.returncode, result.stdout + result.stderr


def fully_labelled(root: Path) -> Path:
    """Large enough for every crop to lie inside, no pixel unlabelled: each process's mean counts as many pixels."""
    make_tree(root, train=16, val=2)
    for number in range(16):
        rng = np.random.default_rng(number)
        name = f"a{number}"
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(image_path(root, "train", name))
        Image.fromarray(rng.integers(1, 151, (96, 128), dtype=np.uint8)).save(mask_path(root, "train", name))
    return root


def test_two_processes_learn_what_one_learns_from_the_double_batch(tmp_path):
    root = fully_labelled(tmp_path / "datasets")
    common = ("--backbone", "tiny_resnet", "--base_size", 256, "--max_epochs", 2, "--check_val_every_n_epoch", 2)
    losses = {}
    # The rate is base_lr / 16 * (images per process): halved, so that both learn at the same one.
    for processes, batch, rate in ((1, 4, 0.02), (2, 2, 0.04)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        options = arguments(root, *common, "--no_resume", "--batch_size", batch, "--base_lr", rate)
        launcher = torchrun("--standalone", "--nproc_per_node", 2) if processes == 2 else [python_file()]
        code, output = finish([*launcher, str(REPOSITORY / ALTERED), *options], f"freeze:{folder}")
        assert code == 0, output[-3000:]
        each = [np.loadtxt(folder / f"losses{rank}") for rank in range(processes)]
        losses[processes] = np.mean(each, axis=0)
    assert len(losses[1]) == 8
    np.testing.assert_allclose(losses[2], losses[1], atol=1e-4)
    assert losses[1][0] - losses[1][-1] > 0.01, "nothing was learned, so nothing was compared"


def test_killed_or_failing_processes_end_the_run_and_it_goes_on_from_the_last_checkpoint(tmp_path):
    root = make_tree(tmp_path / "datasets", train=8, val=3)
    line = [str(REPOSITORY / ALTERED), *arguments(root, "--batch_size", 2, "--max_epochs", 9)]

    code, output = finish([python_file(), *line, "--devices", "2", "--workers", "1"], "kill:1:3")  # 2 steps an epoch
    # Whichever notices first says it: this project, or Lightning.
    assert "process 1 has failed: ended by signal 9" in output or "terminated with code -9" in output, output[-3000:]
    assert code != 0
    assert epochs_done(root) == 1

    code, output = finish([*torchrun("--standalone", "--nproc_per_node", 2), *line], "nan:1:5")
    assert code != 0 and f"resuming {last_checkpoint(root)}" in output
    assert output.count("error: the loss is nan at step 5 of epoch 2 (process 1); the batch: ") == 1
    assert ".jpg" in output
    assert "error: process 0 ends, because process 1 has failed: the loss is nan" in output
    assert f"is intact ({last_checkpoint(root)})" in output and epochs_done(root) == 2

    code, output = finish([python_file(), *line, "--devices", "2", "--workers", "1"], "worker:1:4")
    assert code != 0
    assert "a data-loading worker died" in output and "killed by signal" in output, output[-3000:]
    assert "error: process 0 ends, because process 1 has failed" in output and epochs_done(root) == 2


def test_numbers_that_torchrun_contradicts_are_reported_together_and_once(tmp_path):
    root = make_tree(tmp_path / "datasets")
    options = arguments(root, "--devices", 3, "--num_nodes", 4, "--aux")
    line = [*torchrun("--standalone", "--nproc_per_node", 2), str(REPOSITORY / "train_lseg.py"), *options]
    code, output = finish(line, "")
    assert code != 0
    contradicted = ("--devices 3, but torchrun started 2 processes", "--num_nodes 4, but torchrun joined 1 nodes")
    for part in ("--aux", *contradicted):
        assert output.count(part) == 1, output[-3000:]


# ---------------------------------------------------------------------------------------------------- two hosts


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def kill_host(name: str) -> None:
    """SIGKILL for all that runs in a network namespace."""
    for process in subprocess.check_output(["ip", "netns", "pids", name], text=True).split():
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(int(process), signal.SIGKILL)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces, joined by a cable: their names, also those of the ends; addresses 10.77.0.1 and .2."""
    names = [f"lseg{uuid.uuid4().hex[:6]}{number}" for number in (1, 2)]
    with ExitStack() as undo:
        try:
            for name in names:
                ip("netns", "add", name)
                undo.callback(ip, "netns", "delete", name)
                undo.callback(kill_host, name)
            ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
            for number, name in enumerate(names, start=1):
                ip("link", "set", name, "netns", name)
                ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", name)
                for device in (name, "lo"):
                    ip("-n", name, "link", "set", device, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces need root and iproute2: {getattr(error, 'stderr', None) or error}")
        yield names


def start_node(number: int, name: str, line: list[str], log: Path) -> subprocess.Popen:
    """One of two nodes: torchrun and one process, in a network namespace."""
    # Namespaces share a host name, so torchrun has to be told which address is whose.
    mine = ("--local_addr", f"10.77.0.{number}", "--rdzv_conf", f"is_host={int(number == 1)}")
    rendezvous = ("--rdzv_backend", "c10d", "--rdzv_endpoint", "10.77.0.1:29400", "--rdzv_id", "test")
    launcher = torchrun("--nnodes", 2, "--nproc_per_node", 1, *rendezvous, *mine)
    with open(log, "w") as output:
        return subprocess.Popen(
            ["ip", "netns", "exec", name, *launcher, *line],
            env=environment(GLOO_SOCKET_IFNAME=name, LSEG_SILENCE="15"),
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def test_two_hosts_train_and_when_one_dies_the_other_ends_and_both_resume(hosts, tmp_path):
    root = make_tree(tmp_path / "datasets", train=8, val=3)

    def start(epochs: int) -> tuple[list[subprocess.Popen], list[Path]]:
        options = arguments(root, "--batch_size", 2, "--max_epochs", epochs, "--num_nodes", 2)
        line = [str(REPOSITORY / "train_lseg.py"), *options]
        logs = [tmp_path / f"host{number}_{epochs}.log" for number in (1, 2)]
        return [start_node(i, *each) for i, each in enumerate(zip(hosts, [line, line], logs), start=1)], logs

    nodes, logs = start(epochs=1000)
    while not last_checkpoint(root).exists():
        assert nodes[0].poll() is None, logs[0].read_text()[-3000:]
        time.sleep(0.1)
    kill_host(hosts[1])
    assert nodes[0].wait(timeout=100) != 0  # after LSEG_SILENCE, and what torchrun takes
    assert "error: process 0 ends" in logs[0].read_text(), logs[0].read_text()[-3000:]

    before = epochs_done(root)
    nodes, logs = start(epochs=before + 1)
    codes = [node.wait(timeout=200) for node in nodes]
    text = logs[0].read_text()
    assert codes == [0, 0], "\n".join(log.read_text()[-2000:] for log in logs)
    assert "1 process(es) on each of 2 node(s)" in text and "resuming" in text and epochs_done(root) == before + 1
