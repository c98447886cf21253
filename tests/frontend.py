"""ComfyUI's own frontend, driven in Chromium: opens a workflow, and exports it as the menu's "Export (API)" does.

Owns the browser and a ComfyUI of its own to serve the page. It knows nothing of templates or of the worker.

To make or renew a shipped template, from the repository root:

    python -m tests.frontend DRAFT.json workflows/NAME.json [MORE.json ...]

opens DRAFT.json (API or editor format), and writes the export to the path after it; any number of such pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from comfy_common.paths import comfyui_dir

# Declarations of classes that templates have and that ComfyUI 0.33 lacks.
NEWER_PACKS = Path(__file__).parent / "comfyui" / "newer_node_packs"
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Far more than a busy machine needs: each wait ends with its event.
BOOT_TIMEOUT_S = 300
STEP_TIMEOUT_S = 120
# An export hands its text to the browser as a Blob. The browser's download of it may come late or
# never on a busy machine, so the text is read from the Blob itself.
KEEP_BLOBS = """
    const createObjectURL = URL.createObjectURL.bind(URL);
    window.jsonBlobs = [];
    URL.createObjectURL = (object) => {
        if (object.type === 'application/json') window.jsonBlobs.push(object);
        return createObjectURL(object);
    };
"""


class Frontend:
    """ComfyUI's page in a browser tab."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def load(self, workflow: Mapping[str, Any]) -> None:
        """Open a workflow through the frontend's own loader.

        Args:
            workflow: editor format (it has `nodes`) or API format.

        Raises:
            AssertionError: when the frontend did not open it, as with a class_type that it does not know.
        """
        if "nodes" in workflow:
            self._page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)
            expected = [node["type"] for node in workflow["nodes"]]
        else:
            self._page.evaluate("(workflow) => app.loadApiJson(workflow, 'workflow')", workflow)
            expected = [node["class_type"] for node in workflow.values()]
        # Newer frontends draw a placeholder for a class that they do not know.
        known = "(node) => node.type in LiteGraph.registered_node_types"
        opened = self._page.evaluate(
            f"() => app.graph.nodes.filter({known}).map((node) => node.type)"
        )
        assert sorted(opened) == sorted(expected), (
            f"the frontend opened {opened} instead of {expected}"
        )

    def graph_to_prompt(self, workflow: Mapping[str, Any]) -> dict[str, Any]:
        """What the frontend would queue for a workflow in editor format."""
        script = (
            "async (workflow) => { await app.loadGraphData(workflow); "
            "return (await app.graphToPrompt()).output }"
        )
        found: dict[str, Any] = self._page.evaluate(script, workflow)
        return found

    def export_api(self) -> str:
        """Export the open workflow by the menu's own command.

        Returns:
            The text of the file that the browser downloads.
        """
        self._page.evaluate("() => { window.jsonBlobs.length = 0 }")
        self._page.evaluate("() => app.extensionManager.command.execute('Comfy.ExportWorkflowAPI')")
        self._page.wait_for_function("() => window.jsonBlobs.length > 0")
        text: str = self._page.evaluate("() => window.jsonBlobs[0].text()")
        return text


@contextmanager
def open_frontend(url: str) -> Iterator[Frontend]:
    """Open the page of a running ComfyUI.

    Args:
        url: the root of that ComfyUI, as in `http://127.0.0.1:8188`.

    Yields:
        The page, ready to load a workflow.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        try:
            page = browser.new_page(accept_downloads=False)
            page.set_default_timeout(STEP_TIMEOUT_S * 1000)
            page.add_init_script(KEEP_BLOBS)
            page.goto(url)
            page.wait_for_function("() => window.app?.vueAppReady && app.extensionManager")
            # With this setting on, an export waits for a person to type a file name.
            page.evaluate("() => app.extensionManager.setting.set('Comfy.PromptFilename', false)")
            yield Frontend(page)
        finally:
            browser.close()


@contextmanager
def running_comfyui(comfyui_dir: Path, node_packs: Path | None = None) -> Iterator[str]:
    """Start ComfyUI on the CPU, with nothing in its folders but its own input images.

    Args:
        comfyui_dir: where ComfyUI lies.
        node_packs: a folder of node packs; it has no others.

    Yields:
        Its root URL. It is stopped afterwards.

    Raises:
        AssertionError: when it does not answer in time; the message ends with its log.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="comfyui-") as folder:
        root = Path(folder)
        command = [sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
        command += [
            "--disable-auto-launch",
            "--disable-all-custom-nodes",
            "--database-url",
            "sqlite:///:memory:",
        ]
        if node_packs is not None:
            config = root / "folders.yaml"
            config.write_text(json.dumps({"tests": {"custom_nodes": str(node_packs)}}))
            command += ["--extra-model-paths-config", str(config), "--whitelist-custom-nodes"]
            command += [pack.name for pack in node_packs.iterdir()]
        for name in ("user", "output", "temp"):
            (root / name).mkdir()
            command += [f"--{name}-directory", str(root / name)]
        log = root / "comfyui.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, cwd=comfyui_dir, stdout=sink, stderr=subprocess.STDOUT
            )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_up(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=STEP_TIMEOUT_S)


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            text = log.read_text(encoding="utf-8", errors="replace")
            raise AssertionError(f"ComfyUI did not come up:\n{text[-4000:]}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/system_stats", timeout=STEP_TIMEOUT_S).close()
    except urllib.error.URLError:
        return False
    return True


def main(arguments: list[str]) -> None:
    """Export each draft to the path named after it.

    Args:
        arguments: the command line, without the program's name.
    """
    parser = argparse.ArgumentParser(description="Export workflows with ComfyUI's own frontend.")
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="DRAFT EXPORT", help="a draft, then its export"
    )
    paths = parser.parse_args(arguments).paths
    if len(paths) % 2:
        parser.error("each draft needs a path for its export after it")
    folder = comfyui_dir(os.environ)
    with running_comfyui(folder, NEWER_PACKS) as url, open_frontend(url) as frontend:
        for draft, export in zip(paths[::2], paths[1::2], strict=True):
            frontend.load(json.loads(draft.read_text(encoding="utf-8")))
            export.write_text(frontend.export_api(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
