"""Runs in the container, by its Python and its user: what must not be there, a picture, the health check."""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import requests
from PIL import Image

from comfy_common import paths
from comfy_local.endpoint import LocalEndpoint

JOB = {
    "workflow": "txt2img",
    "prompt": "a lighthouse",
    "width": 64,
    "height": 64,
    "steps": 2,
    "seed": 1,
}


def check_what_is_there() -> None:
    assert os.getuid() != 0
    assert [tool for tool in ("gcc", "cc", "g++", "git", "make") if shutil.which(tool)] == []
    assert not os.access(paths.REPO, os.W_OK)
    site_packages = next(paths.VENV.glob("lib/python*/site-packages"))
    assert [path for path in site_packages.rglob("tests") if path.is_dir()] == []
    caches = [Path("/root/.cache"), Path.home() / ".cache", Path("/var/lib/apt/lists")]
    assert [
        path for cache in caches if os.access(cache, os.R_OK) for path in cache.glob("**/*.*")
    ] == []
    for module in (paths.REPO / "comfy_worker" / "runner.py", paths.comfyui_dir({}) / "nodes.py"):
        [compiled] = (module.parent / "__pycache__").glob(f"{module.stem}.*.pyc")
        # The compiled file names the time of its source; another one would be compiled at each start.
        assert int.from_bytes(compiled.read_bytes()[8:12], "little") == int(module.stat().st_mtime)


def main() -> int:
    check_what_is_there()
    log = Path("/tmp/worker.log")
    with LocalEndpoint(environ=os.environ, log_path=log) as endpoint:
        assert endpoint.wait_ready(300), log.read_text()
        answer = requests.post(
            f"{endpoint.url}/runsync?wait=280000", json={"input": JOB}, timeout=300
        ).json()
        assert answer["status"] == "COMPLETED", answer
        assert subprocess.run([sys.executable, "-m", "comfy_setup.health"]).returncode == 0
    for pack in paths.NODE_PACKS.glob("*"):
        assert f"seconds: {pack}\n" in log.read_text()
    [picture] = answer["output"]["images"]
    assert Image.open(io.BytesIO(base64.b64decode(picture["data"]))).size == (64, 64)
    model = next(path for path in Path("/runpod-volume").rglob("*.safetensors"))
    print(  # noqa: T201
        f"a picture of {picture['bytes']} bytes with {model}, in {answer['output']['timings']['stages']} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
