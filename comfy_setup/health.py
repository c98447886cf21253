"""Checks that ComfyUI answers. The container's HEALTHCHECK runs `python -m comfy_setup.health`.

ComfyUI's port is read from the command line of its process.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

TIMEOUT_S = 5.0


def comfyui_port(proc: Path = Path("/proc")) -> int | None:
    """Find the port that the ComfyUI of our user listens on.

    Args:
        proc: the folder where Linux shows its processes.

    Returns:
        The port; None if no ComfyUI runs.
    """
    for file in proc.glob("[0-9]*/cmdline"):
        try:
            if file.stat().st_uid != os.getuid():
                continue
            arguments = file.read_bytes().split(b"\0")
        except OSError:
            continue  # the process has just ended
        if b"main.py" in arguments and b"--port" in arguments:
            return int(arguments[arguments.index(b"--port") + 1])
    return None


def healthy(port: int | None) -> bool:
    """Whether ComfyUI answers.

    Args:
        port: ComfyUI's port; None if ComfyUI does not run.
    """
    if port is None:
        return False
    with closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as connection:
        try:
            connection.request("GET", "/system_stats")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False


if __name__ == "__main__":
    sys.exit(0 if healthy(comfyui_port()) else 1)
