"""Stands in for Python: what it is asked to run runs in a process forked by ``fork_server.py``, and ends with this one.

``python -S fork_client.py SOCKET ARGUMENTS``, with arguments as Python takes them. Whoever kills this process kills the
other too, before the pipe for its output is closed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence


def request(place: str, argv: Sequence[str], env: Mapping[str, str], cwd: str, out: int, error: int) -> socket.socket:
    """Ask the server at ``place`` to run ``python <argv>`` with these files for its output.

    Returns the connection: its first and only line is the exit code. Closing it earlier kills what runs.
    """
    server = socket.socket(socket.AF_UNIX)
    server.connect(place)
    content = json.dumps({"argv": list(argv), "cwd": cwd, "env": dict(env)}).encode()
    socket.send_fds(server, [content], [out, error])
    return server


if __name__ == "__main__":
    with request(sys.argv[1], sys.argv[2:], os.environ, os.getcwd(), 1, 2) as connection:
        code = int(connection.makefile().readline())
    if code < 0:  # it was killed, and so must this be
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
