"""What a worker that is gone has left behind goes when the next one starts; what a living one holds stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_common.paths import REPO
from comfy_worker.comfyui.workdirs import OwnFolder

HOLD = (
    "import sys; from pathlib import Path; from comfy_worker.comfyui.workdirs import OwnFolder; "
    + ("print(OwnFolder(Path(sys.argv[1])).path, flush=True); sys.stdin.read()")
)


def test_a_killed_workers_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        theirs = Path(worker.stdout.readline().strip())
        (theirs / "picture.png").touch()
        ours = OwnFolder(tmp_path)
        assert theirs.is_dir(), "its worker lives"
        worker.kill()
        worker.wait()
        next_one = OwnFolder(tmp_path)
        assert not theirs.exists()
    assert sorted(tmp_path.iterdir()) == sorted([ours.path, next_one.path, tmp_path / "other"])
    for folder in (ours, next_one, ours):
        folder.remove()
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]


FORK = """
import os, sys, time
from pathlib import Path
from comfy_worker.comfyui.workdirs import OwnFolder
folder = OwnFolder(Path(sys.argv[1]))
heartbeat = os.fork()
if heartbeat == 0:
    time.sleep(60)
    os._exit(0)
print(folder.path, heartbeat, flush=True)
sys.stdin.read()
"""


def test_a_forked_heartbeat_holds_no_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        theirs, heartbeat = worker.stdout.readline().split()
        try:
            OwnFolder(tmp_path).remove()
            assert Path(theirs).is_dir(), "its worker lives"
            worker.kill()
            worker.wait()
            OwnFolder(tmp_path).remove()
            assert not Path(theirs).exists()
        finally:
            os.kill(int(heartbeat), signal.SIGKILL)


def test_a_root_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        OwnFolder(tmp_path / "nowhere")
