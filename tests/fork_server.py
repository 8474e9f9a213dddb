"""A process that imports torch once and then forks for every script that a test runs: six seconds less per script.

Started by ``scripts.fork_server`` with the path of a Unix socket. A request is one JSON object (``argv`` as after
``python``, ``cwd``, ``env``) together with the file descriptors for stdout and stderr (see ``fork_client.py``). The
answer, when the script has ended, is its exit code. If the connection is closed before, the script is killed.

What the script starts with ``sys.executable``, as torchrun and Lightning do, is forked in the same way.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent


def preload() -> None:
    """Import what most scripts import, and compute nothing: a process whose autograd has run cannot be forked."""
    sys.path.insert(0, str(REPOSITORY))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.modules["wandb"] = None  # type: ignore[assignment]  # timm would import it, which takes a second
        import clip  # noqa: F401
        import cv2  # noqa: F401
        import PIL.Image
        import pytorch_lightning  # noqa: F401
        import tensorboardX  # noqa: F401
        import timm  # noqa: F401
        import torch.distributed.run  # noqa: F401
        import torchvision.transforms.v2  # noqa: F401

        import data.lightning  # noqa: F401
        import modules.lseg_module_zs
        import modules.testing.episodes
        import modules.training.trainer  # noqa: F401

        PIL.Image.init()  # imports what reads and writes each format
        del sys.modules["wandb"]
    sys.path.remove(str(REPOSITORY))
    gc.collect()
    gc.freeze()  # a collection in a forked process would write to, and so copy, all memory that it shares


def serve(path: str) -> list[str]:
    """Fork for each request. Returns in the forked process only: what that must run."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen()
    os.rename(f"{path}.new", path)  # so that whoever sees it can connect
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the supervisors
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            sys.exit()  # the tests have ended
        connection, _ = listener.accept()
        if os.fork() == 0:
            break
        connection.close()
    # The supervisor leads the group that ends with the connection.
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listener.close()
    enter_network_of(connection)
    content, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 2)
    if script := os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        while not (ended := os.waitpid(script, os.WNOHANG))[0]:
            if select.select([connection], [], [], 0.02)[0]:
                os.killpg(0, signal.SIGKILL)
        connection.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
        os._exit(0)
    connection.close()
    for target, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *descriptors]):
        os.dup2(descriptor, target)
        os.close(descriptor)
    request = json.loads(content)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.executable = f"{Path(path).parent}/python"
    return request["argv"]


def enter_network_of(connection: socket.socket) -> None:
    """Use the network namespace of the process that asks: tests make hosts of such namespaces."""
    (asking, *_) = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    with suppress(FileNotFoundError), open(f"/proc/{asking}/ns/net") as theirs:  # it may have been killed
        if os.fstat(theirs.fileno()).st_ino != os.stat("/proc/self/ns/net").st_ino:
            assert ctypes.CDLL(None).setns(theirs.fileno(), 0) == 0


def run(argv: list[str]) -> None:
    """What ``python <argv>`` does: a script, a module after ``-m``, or code after ``-c``."""
    random.seed()
    if argv[0] == "-u":
        sys.stdout.reconfigure(line_buffering=True)
        argv = argv[1:]
    if argv[0] in ("-c", "-m"):
        sys.path[:0] = ["", *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        sys.argv = argv[1:]
    if argv[0] == "-c":
        exec(argv[1], {"__name__": "__main__"})
    elif argv[0] == "-m":
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(argv[0]).parent))
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


def run_and_end(argv: list[str]) -> NoReturn:
    """End as Python does after ``run``, but without freeing objects, which takes two seconds of copying memory."""
    code: object = 0
    try:
        run(argv)
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 255)


if __name__ == "__main__":
    place = sys.argv[1]
    preload()
    sys.path.pop(0)  # this folder
    run_and_end(serve(place))
