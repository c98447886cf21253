"""Paths of this machine stand in no answer to a client."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from comfy_worker.error_response import error_response
from comfy_worker.errors import ExecutionFailed
from comfy_worker.server_paths import ServerPaths

PATHS = ServerPaths(
    {
        Path("/workspace/worker"): "worker",
        Path("/workspace/worker/.comfyui"): "ComfyUI",
        Path("/runpod-volume"): "volume",
    }
)
TMP = tempfile.gettempdir()


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ('File "/workspace/worker/.comfyui/nodes.py", line 3', 'File "ComfyUI/nodes.py", line 3'),
        ("[Errno 2] '/workspace/worker/models/x'", "[Errno 2] 'worker/models/x'"),
        (f"cannot read {TMP}/comfy_worker-a_b1/input/x.png", "cannot read input/x.png"),
        ("/dev/shm/comfy_worker-x1/raw.bin", "raw.bin"),
        (f"{TMP}/x.png and /runpod-volume", "tmp/x.png and volume"),
        (f"{sys.prefix}/lib/x.py", "python/lib/x.py"),
        # not this machine's
        (f"https://example.com{TMP}/x.png", f"https://example.com{TMP}/x.png"),
        ("/runpod-volumes/x", "/runpod-volumes/x"),
        ("a/runpod-volume", "a/runpod-volume"),
        ("image/png", "image/png"),
        ("/etc/passwd", "/etc/passwd"),
    ],
)
def test_a_folder_of_this_machine_is_named(text: str, public: str) -> None:
    assert PATHS.strip(text) == public


def test_a_link_is_known_by_its_real_path(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    paths = ServerPaths({tmp_path / "link": "ComfyUI"})
    assert paths.strip(f"{real}/a.py {tmp_path}/link/a.py") == "ComfyUI/a.py ComfyUI/a.py"


def test_an_error_shows_no_path_at_any_depth() -> None:
    where = "/workspace/worker/.comfyui/x.py"
    details = [{"log": [where], "cause": {"file": where}, "node_id": 1}]
    answer = error_response(ExecutionFailed(f"it failed in {where}", details), PATHS)
    assert answer["error"] == "EXECUTION_FAILED: it failed in ComfyUI/x.py"
    assert answer["details"] == [
        {"log": ["ComfyUI/x.py"], "cause": {"file": "ComfyUI/x.py"}, "node_id": 1}
    ]
