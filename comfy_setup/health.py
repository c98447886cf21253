"""Whether the ComfyUI of this machine answers: the container's HEALTHCHECK, run as `python -m comfy_setup.health`.

It knows of the worker only that it starts ComfyUI as a process, with its port on the command line.
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
        proc: where Linux shows its processes.

    Returns:
        The port, None if no ComfyUI runs.
    """
    for file in proc.glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0") if file.stat().st_uid == os.getuid() else []
        except OSError:
            continue  # it has just ended
        if b"main.py" in words and b"--port" in words:
            return int(words[words.index(b"--port") + 1])
    return None


def healthy(port: int | None) -> bool:
    """Tell whether ComfyUI answers.

    Args:
        port: that it listens on, None if it does not run.
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
