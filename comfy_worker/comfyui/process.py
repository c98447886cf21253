"""Starts ComfyUI as a child of the worker and ends it.

Owns the child, its port, its folders and its log. Knows nothing of prompts.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import requests

from comfy_worker.errors import ComfyUIUnavailable

__all__ = ["ComfyUIProcess", "LaunchOptions", "has_accelerator"]

log = logging.getLogger(__name__)
comfyui_log = logging.getLogger("comfy_worker.comfyui.log")

GUARD = Path(__file__).with_name("guard.py")
TAIL_LINES = 40


@dataclass(frozen=True)
class LaunchOptions:
    """How ComfyUI is to be started.

    Attributes:
        comfyui_dir: the folder with its ``main.py``.
        model_roots: folders that hold ``checkpoints/``, ``loras/`` ..., searched in order after ComfyUI's own.
        custom_nodes: folders of node packs beside ComfyUI's own.
        args: further command line flags (``COMFY_ARGS``); the last word is theirs.
        log_level: DEBUG, INFO, WARNING or ERROR, for ComfyUI's own log.
        api_nodes: whether nodes that call paid services are loaded.
        boot_timeout_s: how long it may take until ``/system_stats`` answers.
    """

    comfyui_dir: Path
    model_roots: tuple[Path, ...] = ()
    custom_nodes: tuple[Path, ...] = ()
    args: tuple[str, ...] = ()
    log_level: str = "INFO"
    api_nodes: bool = False
    boot_timeout_s: float = 300.0


class ComfyUIProcess:
    """One run of ComfyUI on a free loopback port, with folders of its own.

    Attributes:
        base_url: ``http://127.0.0.1:<port>``.
        input_dir: where ``LoadImage`` finds its files.
        output_dir: where ``SaveImage`` writes.
        temp_dir: where previews go.
    """

    def __init__(self, options: LaunchOptions) -> None:
        self.options = options
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="comfy-worker-"))
        self.input_dir, self.output_dir = self.runtime_dir / "input", self.runtime_dir / "output"
        self.temp_dir, self.user_dir = self.runtime_dir / "temp", self.runtime_dir / "user"
        for folder in (self.input_dir, self.output_dir, self.temp_dir, self.user_dir):
            folder.mkdir()
        self._port = _free_port()
        self.base_url = f"http://127.0.0.1:{self._port}"
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._spawned = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        # The guard ends with the thread that started it; this one lives as long, reading its log.
        self._thread = threading.Thread(target=self._run, name="comfyui", daemon=True)

    def start(self) -> None:
        """Start the child; returns at once, see :meth:`wait_ready`."""
        log.info("starting ComfyUI at %s", self.base_url, extra={"action": "comfyui.start"})
        self._thread.start()
        self._spawned.wait()

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.poll() is None

    def wait_ready(self, cancelled: threading.Event | None = None) -> None:
        """Wait until ``/system_stats`` answers.

        Args:
            cancelled: set by another thread to give up waiting.

        Raises:
            ComfyUIUnavailable: it ended, or took longer than ``boot_timeout_s``; with its last log lines.
        """
        deadline = time.monotonic() + self.options.boot_timeout_s
        while cancelled is None or not cancelled.is_set():
            if not self.alive:
                raise self.unavailable("ComfyUI ended while it was starting")
            try:
                if requests.get(f"{self.base_url}/system_stats", timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            if time.monotonic() > deadline:
                raise self.unavailable(f"ComfyUI was not ready after {self.options.boot_timeout_s:g} s")
            time.sleep(0.05)

    def unavailable(self, sentence: str) -> ComfyUIUnavailable:
        """The error for a ComfyUI that cannot be used, its last log lines in the details."""
        status = None if self._child is None else self._child.poll()
        how = "" if status is None else f" with exit status {status}"
        return ComfyUIUnavailable(
            f"{sentence}{how}; its last log lines are in the details", [{"log": list(self._tail)}]
        )

    def stop(self) -> None:
        """End ComfyUI and whatever it started, and remove its folders."""
        child = self._child
        if child is None:
            shutil.rmtree(self.runtime_dir, ignore_errors=True)
            return
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._thread.join(timeout=5)
        log.info("ComfyUI ended", extra={"action": "comfyui.stop"})

    def _run(self) -> None:
        try:
            child = self._child = subprocess.Popen(
                [
                    sys.executable,
                    "-S",
                    "-E",
                    str(GUARD),
                    str(os.getpid()),
                    str(self.runtime_dir),
                    *self._command(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd=self.options.comfyui_dir,
                env=self._environ(),
                start_new_session=True,
            )
        except OSError as error:
            self._tail.append(str(error))
            return
        finally:
            self._spawned.set()
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                if text := line.rstrip():
                    self._tail.append(text)
                    # tqdm redraws its bar many times a second.
                    comfyui_log.log(logging.DEBUG if "%|" in text else logging.INFO, "%s", text)

    def _command(self) -> list[str]:
        config = self.runtime_dir / "extra_model_paths.yaml"
        packs = {f"pack{i}": {"custom_nodes": str(folder)} for i, folder in enumerate(self.options.custom_nodes)}
        config.write_text(json.dumps(packs), encoding="utf-8")  # JSON is YAML
        options = self.options
        flags = {
            "--listen": "127.0.0.1",
            "--port": str(self._port),
            "--input-directory": str(self.input_dir),
            "--output-directory": str(self.output_dir),
            "--temp-directory": str(self.runtime_dir),
            "--user-directory": str(self.user_dir),
            "--database-url": "sqlite:///:memory:",
            "--extra-model-paths-config": str(config),
            "--preview-size": "256",
            "--verbose": options.log_level,
        }
        command = [sys.executable, "main.py", "--disable-auto-launch"]
        command += [word for flag in flags.items() for word in flag]
        if not options.api_nodes:
            command.append("--disable-api-nodes")
        if not has_accelerator() and "--cpu" not in options.args:
            command.append("--cpu")
        return [*command, *options.args]

    def _environ(self) -> dict[str, str]:
        roots = os.pathsep.join(str(root) for root in self.options.model_roots)
        return {**os.environ, "COMFY_WORKER_MODEL_ROOTS": roots, "PYTHONUNBUFFERED": "1"}


def has_accelerator(dev: Path = Path("/dev")) -> bool:
    """Whether this machine shows a GPU that ComfyUI can use; where none is, it has to be told ``--cpu``.

    Looks at device files (NVIDIA, WSL, ROCm), since importing torch to ask takes seconds; on systems other than
    Linux ComfyUI finds out by itself.
    """
    if sys.platform != "linux":
        return True
    return any(any(dev.glob(pattern)) for pattern in ("nvidia[0-9]*", "dxg", "kfd"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
