"""`edit`: a template is opened in Chromium, changed and saved, and is a template afterwards."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from comfy_common import paths
from comfy_common.job_options import add_job_options, job_input
from comfy_worker.planning.templates import Templates
from tests import placeholders
from tests.comfyui.conftest import RealComfyUI
from tests.frontend import CHROMIUM, CHROMIUM_ARGS, STEP_TIMEOUT_S
from tests.tools import require

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

NEW_STEPS = 3
SET_STEPS = """(steps) => {
    const node = app.graph.nodes.find((node) => node.type === 'KSampler');
    node.widgets.find((widget) => widget.name === 'steps').value = steps;
}"""
LOADED = "(name) => window.comfyWorkerOpened === name && app.graph.nodes.length > 0"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "workflows"
    yield folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    shutil.rmtree(paths.CACHE / "editor" / digest)


def save_as(page: Any, name: str) -> None:
    page.evaluate("() => { app.extensionManager.command.execute('Comfy.SaveWorkflowAs') }")
    box = page.locator(".p-dialog input[type=text], [role=dialog] input").first
    box.fill(name)
    box.press("Enter")


def test_a_saved_workflow_is_a_template(
    comfyui: RealComfyUI, model_root: Path, folder: Path
) -> None:
    require("chromium")
    environ = {
        **os.environ,
        "MODELS_DIR": str(model_root),
        "SD_MODEL": placeholders.CHECKPOINT,
        "PYTHONPATH": str(paths.REPO),
    }
    command = [sys.executable, "-m", "comfy_worker", "edit", "txt2img"]
    process = subprocess.Popen(
        [*command, "--port", str(free_port()), "--folder", str(folder)],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: http://127.0.0.1:"), line
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
            page = browser.new_page()
            page.set_default_timeout(STEP_TIMEOUT_S * 1000)
            page.goto(line.split()[1])
            page.wait_for_function(LOADED, arg="txt2img")
            page.evaluate(SET_STEPS, NEW_STEPS)
            save_as(page, "my poster")
            page.wait_for_function(
                "() => app.extensionManager.workflow.activeWorkflow.path"
                " === 'workflows/my poster.json'"
            )
            browser.close()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        process.stdout.close()
        code = process.wait(timeout=STEP_TIMEOUT_S)
    assert code == 0
    assert [path.name for path in folder.iterdir()] == ["my-poster.json"]
    assert Templates([folder]).names() == ["my-poster"]
    parser = argparse.ArgumentParser()
    add_job_options(parser)
    file = str(folder / "my-poster.json")
    checkpoint = f"checkpoint={placeholders.CHECKPOINT}"
    arguments = ["--template", file, "--prompt", "a red fox", "--set", checkpoint]
    plan = comfyui.plan(**job_input(parser.parse_args(arguments)))
    assert plan.parameters["steps"] == NEW_STEPS
    assert plan.parameters["prompt"] == "a red fox"
    assert list(plan.findings) == []
