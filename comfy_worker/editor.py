"""The command `edit`: ComfyUI's own page, whose saved workflows become templates."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

from comfy_common import paths
from comfy_common.console import DRAW_EVERY_S, Console, Step
from comfy_common.exit_codes import FAILED, OK
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.process import ComfyUIProcess
from comfy_worker.errors import InvalidInput, WorkerError
from comfy_worker.planning.templates import PARAMS, Templates
from comfy_worker.workflow.convert.ui_format import is_editor_file

__all__ = ["SavedWorkflows", "edit"]

EDITOR_NODES = Path(__file__).parent / "comfyui" / "editor_nodes"
# Tells our node pack that one person works here, so that jobs need not be kept apart.
EDITOR_VARIABLE = "COMFY_WORKER_EDITOR"
LOOK_S = 0.3
LAST_PORT = 65535
NOT_IN_A_NAME = re.compile(r"[^\w.-]+")


class SavedWorkflows:
    """The workflows that the page has saved, and the templates that they become.

    A file is copied with its time, so of two files the newer one is the one to keep.

    Args:
        user_dir: ComfyUI's user folder. It stays between calls.
        templates_dir: the folder of templates.
    """

    def __init__(self, user_dir: Path, templates_dir: Path) -> None:
        self.folder = user_dir / "default" / "workflows"
        self._opened = user_dir / "default" / "open"
        self._index = user_dir / "copied.json"
        self._templates_dir = templates_dir

    def provide(self) -> None:
        """Give the page all templates in its own format; removed ones are removed there too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._templates_dir.mkdir(parents=True, exist_ok=True)
        copied = set(_read_json(self._index) or [])
        for path in self._saved():
            name = self._target(path).name
            if name in copied and not (self._templates_dir / name).exists():
                path.unlink()
        for template in sorted(self._templates_dir.glob("*.json")):
            if template.name.endswith(PARAMS) or not is_editor_file(_read_json(template) or {}):
                continue
            page_file = self.folder / template.name
            if not page_file.exists() or _time(page_file) < _time(template):
                shutil.copy2(template, page_file)
                self._note_copied(template.name)

    def provide_template(self, name: str, workflow: Mapping[str, Any]) -> None:
        """Let the page open a template that is not in its own format.

        Args:
            name: the template's name.
            workflow: its content.
        """
        if is_editor_file(dict(workflow)):
            target = self.folder / f"{name}.json"
            if target.exists():
                return
        else:
            target = self._opened / f"{name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(workflow), encoding="utf-8")

    def copy_new(self) -> Iterator[Path]:
        """Copy what the page has saved to the templates.

        Yields:
            Each template that was written.
        """
        for path in self._saved():
            target = self._target(path)
            is_known = target.exists() and _time(target) >= _time(path)
            # A file that is being written is not JSON yet.
            if is_known or not is_editor_file(_read_json(path) or {}):
                continue
            part = target.with_name(f".{target.name}.part")
            shutil.copy2(path, part)
            part.replace(target)
            self._note_copied(target.name)
            yield target

    def _note_copied(self, name: str) -> None:
        names = {*(_read_json(self._index) or []), name}
        self._index.write_text(json.dumps(sorted(names)), encoding="utf-8")

    def _saved(self) -> list[Path]:
        return sorted(self.folder.rglob("*.json"))

    def _target(self, path: Path) -> Path:
        """The template of a saved workflow. A template's name has no folder and no space."""
        name = "-".join(path.relative_to(self.folder).with_suffix("").parts)
        return self._templates_dir / f"{NOT_IN_A_NAME.sub('-', name).strip('-') or 'workflow'}.json"


def edit(options: LaunchOptions, name: str, port: int, folder: Path, templates: Templates) -> int:
    """Serve ComfyUI's page until Ctrl-C.

    Args:
        options: how the worker starts ComfyUI.
        name: a template to open; empty for none.
        port: of this machine's loopback address.
        folder: where saved workflows go.
        templates: all templates.

    Returns:
        The exit code: 0 after Ctrl-C, 1 if ComfyUI ended by itself.

    Raises:
        WorkerError: the port is taken, there is no such template, or ComfyUI does not start.
    """
    _check_port(port)
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    user_dir = paths.CACHE / "editor" / digest
    saved = SavedWorkflows(user_dir, folder)
    saved.provide()
    address = f"http://127.0.0.1:{port}/"
    if name:
        saved.provide_template(name, templates.load(name).workflow)
        address += f"?open={quote(name)}"
    paths.OUTPUT.mkdir(exist_ok=True)
    kept = ("--user-directory", str(user_dir), "--output-directory", str(paths.OUTPUT))
    options = replace(
        options,
        port=port,
        custom_nodes=(*options.custom_nodes, EDITOR_NODES),
        args=(*options.args, *kept),
    )
    os.environ[EDITOR_VARIABLE] = "1"
    signal.signal(signal.SIGTERM, _interrupt)
    process = ComfyUIProcess(options)
    console = Console(sys.stderr)
    try:
        with console.step("Starting ComfyUI") as step:
            process.start()
            _wait_ready(process, step)
        Console(sys.stdout).say(f"ready: {address} (Ctrl-C ends it)")
        console.say(f"What you save there becomes a template in {folder}")
        return _watch(process, saved, console)
    finally:
        _report(saved, console)
        process.stop()


def _watch(process: ComfyUIProcess, saved: SavedWorkflows, console: Console) -> int:
    try:
        while (failure := process.failure()) is None:
            _report(saved, console)
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        return OK
    console.say(f"{failure.code}: {failure}")
    return FAILED


def _report(saved: SavedWorkflows, console: Console) -> None:
    for path in saved.copy_new():
        console.say(f"Saved {path}: template {path.stem}")


def _wait_ready(process: ComfyUIProcess, step: Step) -> None:
    """Wait until the page can be opened, and show that time passes."""
    cancelled = threading.Event()
    problems: list[WorkerError] = []

    def wait() -> None:
        try:
            process.wait_ready(cancelled)
        except WorkerError as error:
            problems.append(error)

    thread = threading.Thread(target=wait, name="editor-boot", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(DRAW_EVERY_S)
            step.tick()
    finally:
        cancelled.set()
    if problems:
        raise problems[0]


def _check_port(port: int) -> None:
    if not 1 <= port <= LAST_PORT:
        raise InvalidInput(f"--port must be from 1 to {LAST_PORT}, not {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InvalidInput(
                f"port {port} cannot be used ({error.strerror}); choose another with --port"
            ) from error


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns
