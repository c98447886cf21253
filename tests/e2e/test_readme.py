"""The README's commands work as written; only the host differs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from comfy_common.paths import REPO
from tests.e2e.conftest import Client
from tests.tools import require

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

README = (REPO / "README.md").read_text(encoding="utf-8")
HOST = "http://127.0.0.1:8000/v2/local"


def run(command: list[str], folder: Path) -> None:
    subprocess.run(
        command, cwd=folder, check=True, timeout=120, env={**os.environ, "PYTHONWARNINGS": "error"}
    )


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_curl_command_makes_an_image(toy_worker: Client, tmp_path: Path) -> None:
    require("curl", "jq")
    (line,) = re.findall(r"^    (curl .*?png)$", README, re.MULTILINE | re.DOTALL)
    run(["bash", "-euo", "pipefail", "-c", line.replace(HOST, toy_worker.url)], tmp_path)
    assert size(tmp_path / "heart.png") == (256, 256)


def test_python_client_makes_an_image(toy_worker: Client, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    run([sys.executable, "-c", code.replace(HOST, toy_worker.url)], tmp_path)
    (picture,) = tmp_path.iterdir()
    assert size(picture) == (256, 256)


def test_worker_commands_run() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "comfy_worker", "templates"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )
    names = {line.split()[0] for line in listed.stdout.splitlines() if not line.startswith(" ")}
    assert names == {
        path.stem for path in (REPO / "workflows").glob("*.json") if ".params" not in path.name
    }
    schema = subprocess.run(
        [sys.executable, "-m", "comfy_worker", "schema", "nope"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert schema.returncode == 1
    assert schema.stderr.startswith("UNKNOWN_WORKFLOW: no workflow is named 'nope'")


def test_readme_names_every_key_and_command() -> None:
    from comfy_worker.request.schema import JobInput

    assert [key for key in JobInput.model_fields if f"`{key}`" not in README] == []
    for command in ("run", "test", "serve", "install", "models", "doctor"):
        assert re.search(rf"comfy_setup {command}\b|`{command}`", README), command
