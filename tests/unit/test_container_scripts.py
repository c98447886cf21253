"""What a release does with a built image: the table of its layers, and the job that is run in it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from comfy_common.paths import REPO
from tests.container import layers

COMMANDS = (
    ("/bin/sh -c #(nop) ADD file:1 in /", 200_000_000),
    ('/bin/sh -c #(nop)  CMD ["bash"]', 0),
    ("RUN |1 APT_PACKAGES= /bin/sh -c printf x && useradd --create-home", 51_000_000),
    ("WORKDIR /worker", 4_000),
    ("COPY requirements requirements # buildkit", 600_000),
    ("COPY comfy_setup comfy_setup # buildkit", 400_000),
    (
        "RUN |4 CUDA=13 /bin/sh -c UV_LINK_MODE=copy python3 -m comfy_setup install --cuda",
        6_373_000_000,
    ),
    ("COPY /worker/models models # buildkit", 0),
    ("COPY custom_nodes.txt ./ # buildkit", 200),
    ("COPY . . # buildkit", 2_000_000),
    ("RUN .venv/bin/python -m compileall -q handler.py comfy_setup", 1_000_000),
)
TABLE = """\
| layer | size |
| --- | --- |
| the base image | 200 MB |
| ca-certificates, python3, tini | 51 MB |
| lock files and `comfy_setup` | 1 MB |
| Python packages and ComfyUI, with bytecode | 6373 MB |
| the worker | 2 MB |
| the worker's bytecode | 1 MB |
| in all | 6628 MB |
"""


def history() -> str:
    """What `docker history` prints, newest first."""
    entries = [{"CreatedBy": command, "Size": str(size)} for command, size in COMMANDS]
    return "".join(f"{json.dumps(entry)}\n" for entry in reversed(entries))


def test_docker_layers_become_a_table() -> None:
    assert layers.table(layers.of_docker(history())) == TABLE


def test_buildah_layers_become_the_same_table() -> None:
    inspected = {
        "OCIv1": {
            "history": [
                {"created_by": command, "empty_layer": not size} for command, size in COMMANDS
            ],
            "rootfs": {"diff_ids": [command for command, size in COMMANDS if size]},
        }
    }
    storage = [{"diff-digest": command, "diff-size": size} for command, size in COMMANDS]
    assert layers.table(layers.of_buildah(inspected, storage)) == TABLE


def test_a_page_gets_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- layers -->\nold\n<!-- /layers -->\nafter\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(history()))
    assert layers.main(["--page", str(page)]) == 0
    assert page.read_text() == f"before\n<!-- layers -->\n{TABLE}<!-- /layers -->\nafter\n"
    page.write_text("no table here\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(history()))
    assert layers.main(["--page", str(page)]) == 1


def test_deploy_has_a_place_for_the_table() -> None:
    assert layers.TABLE.search((REPO / "docs" / "deploy.md").read_text(encoding="utf-8"))


def smoke(folder: Path, exit_code: int) -> tuple[int, list[str]]:
    """Run smoke.sh with a program that notes its arguments; gives the code and the calls."""
    engine = folder / "engine"
    fails = f'case "$*" in *inside.py*) exit {exit_code};; esac\n'
    engine.write_text(
        f'#!/bin/sh\necho "$*" | tr "\\n" " " >>{folder}/calls\necho >>{folder}/calls\n{fails}'
    )
    engine.chmod(0o755)
    script = REPO / "tests" / "container" / "smoke.sh"
    environ = {**os.environ, "ENGINE": str(engine), "TMPDIR": str(folder)}
    finished = subprocess.run([script, "an/image:1"], env=environ, capture_output=True, text=True)
    return finished.returncode, (folder / "calls").read_text().splitlines()


def test_the_smoke_test_runs_one_job(tmp_path: Path) -> None:
    code, calls = smoke(tmp_path, 0)
    assert code == 0
    assert len(calls) == 3
    assert all("an/image:1" in call for call in calls)
    assert "write_checkpoint" in calls[0]
    assert calls[1].rstrip().endswith("an/image:1 python /tests/inside.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calls", "engine"]


def test_a_failing_job_fails_the_smoke_test(tmp_path: Path) -> None:
    code, calls = smoke(tmp_path, 7)
    assert code == 7
    assert "rm -rf /volume/models" in calls[-1]


def test_a_release_is_attested_and_run() -> None:
    text = (REPO / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["image"]["steps"]
    commands = "\n".join(step.get("run", "") for step in steps)
    assert "bake --push --sbom=true --provenance=mode=max" in commands
    assert commands.index("bake --push") < commands.index('smoke.sh "$IMAGE"')
    assert "layers.py >>" in commands
