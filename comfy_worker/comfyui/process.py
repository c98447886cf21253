"""Starts ComfyUI as a child of the worker, reads its log, and ends it."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import OrderedDict, deque
from importlib.util import find_spec
from pathlib import Path

from comfy_common import paths
from comfy_common.comfyui_log import plain_line
from comfy_common.container_memory import memory_limit_bytes
from comfy_common.environment import loopback_variables, public_variables
from comfy_common.requirements import install_command, summary, unmet_requirements
from comfy_worker.comfyui.cause import USE_LESS_MEMORY, ending, log_cause, oom_kills
from comfy_worker.comfyui.client import ComfyUIClient
from comfy_worker.comfyui.launch import LaunchOptions, has_accelerator, launch_flags
from comfy_worker.comfyui.node_packs import NodePacks
from comfy_worker.comfyui.reaper import END_SIGNALS
from comfy_worker.comfyui.version import ComfyUIVersion
from comfy_worker.comfyui.workdirs import OwnFolder
from comfy_worker.errors import ComfyUIUnavailable, OutOfMemory
from comfy_worker.logs import redact_job

__all__ = ["ComfyUIProcess"]

log = logging.getLogger(__name__)
comfyui_log = logging.getLogger("comfy_worker.comfyui.log")

REAPER = Path(__file__).with_name("reaper.py")
TAIL_LINES = 40
BOOT_TIMEOUT_S = 5.0
MIN_TIMEOUT_S = 0.001
# How many prompts' keys are remembered: ComfyUI may still write about an abandoned prompt.
REMEMBERED_PROMPTS = 64
# ComfyUI's own lines, which cannot hold a client's text. After the start all other lines are logged
# at debug level: a node may write a prompt, and ComfyUI itself repeats the words after
# "embedding:".
PUBLIC_LINES = re.compile(
    r"got prompt|Prompt executed in [\d.:]+( seconds)?|Processing interrupted"
    r"|(Interrupting|Cancelling running|Cancelling pending) prompt [\w-]+"
    r"|Requested to load \w+|\d+ models unloaded\."
    r"|loaded (completely|partially)[\w ;:,.-]*|Unloaded partially:[\w ;:,.-]*"
    r"|model weight dtype [\w.]+, manual cast: [\w.]+|model_type \w+|unet unexpected: \[\]"
    r"|(Using \w+ attention in|CLIP/text encoder model load device:|VAE load device:)[\w :,.-]*"
    r"|Got an OOM, unloading all loaded models\.|comfy_worker_nodes: .*"
)


class ComfyUIProcess:
    """One run of ComfyUI on a free loopback port, with folders of its own.

    Attributes:
        base_url: ``http://127.0.0.1:<port>``.
        input_dir: where ``LoadImage`` finds its files.
        output_dir: where ``SaveImage`` writes.
        temp_dir: where previews go.
        raw_dir: where raw pictures go while there is space; None if there is no ``raw_root``.
        last_output_at: when it last wrote to its log, as ``time.monotonic()`` counts.
        last_prompt_id: the prompt that it began last; our own nodes write this into its log.
        packs: its node packs, with those that did not load.
        version: which ComfyUI this is.
    """

    def __init__(self, options: LaunchOptions) -> None:
        self.options = options
        self.version = ComfyUIVersion.in_folder(options.comfyui_dir)
        own_folder = OwnFolder(Path(tempfile.gettempdir()))
        raw_folder = _folder_in(options.raw_root)
        self._own_folders = [own_folder]
        self.raw_dir: Path | None = None
        if raw_folder is not None:
            self._own_folders.append(raw_folder)
            self.raw_dir = raw_folder.path
        self.runtime_dir = own_folder.path
        self.input_dir = self.runtime_dir / "input"
        self.output_dir = self.runtime_dir / "output"
        self.temp_dir = self.runtime_dir / "temp"
        self.user_dir = self.runtime_dir / "user"
        self.tmp_dir = self.runtime_dir / "tmp"
        folders = (self.input_dir, self.output_dir, self.temp_dir, self.user_dir, self.tmp_dir)
        for folder in folders:
            folder.mkdir()
        self._port = options.port or _free_port()
        self.base_url = f"http://127.0.0.1:{self._port}"
        self.last_output_at = time.monotonic()
        self._marked_fault = ""
        self._oom_kills = oom_kills()
        self.packs = NodePacks(
            options.comfyui_dir, options.custom_nodes, api_nodes=options.api_nodes
        )
        self._booted = False
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._prompt_id = self.last_prompt_id = ""
        self._prompt_secrets: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        # Our nodes write this mark and the prompt's id before a prompt, and the mark after it. It
        # is random: otherwise a client's text could hold a mark and attribute its lines to others.
        self._mark = f"comfy_worker: prompt {uuid.uuid4().hex}"
        self._boot_deadline = math.inf
        self._spawned = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        # The reaper ends when the thread that started it ends. This thread reads the log, so it
        # lives as long as ComfyUI does.
        self._thread = threading.Thread(target=self._run, name="comfyui", daemon=True)

    def start(self) -> None:
        """Start the child; returns at once, see :meth:`wait_ready`."""
        version = self.version.name or "of an unknown version"
        log.info(
            "starting ComfyUI %s at %s", version, self.base_url, extra={"action": "comfyui.start"}
        )
        self._boot_deadline = time.monotonic() + self.options.boot_timeout_s
        if self.options.xformers and find_spec("xformers") is None:
            log.warning(
                "ENABLE_XFORMERS is set, but xformers is not installed",
                extra={"action": "comfyui.no_xformers"},
            )
        self._thread.start()
        self._spawned.wait()
        if hint := self._requirements_hint():
            log.warning("ComfyUI: %s", hint, extra={"action": "comfyui.unmet_requirements"})

    def mark_failed(self, fault: str) -> None:
        """End ComfyUI because it cannot be used any more.

        Do not wait for its end. Only the first fault counts.

        Args:
            fault: what ComfyUI did, as the rest of a sentence that begins with its name.
        """
        if self.failure() is None and self._child is not None:
            self._marked_fault = fault
            log.error("ComfyUI %s; ending it", fault, extra={"action": "comfyui.marked_failed"})
            self._child.terminate()

    @property
    def was_marked_failed(self) -> bool:
        """Whether the worker ended ComfyUI because ComfyUI was broken."""
        return bool(self._marked_fault)

    def failure(
        self, when: str = "", prompt_id: str = ""
    ) -> ComfyUIUnavailable | OutOfMemory | None:
        """Return why ComfyUI cannot be used any more, with its last log lines.

        Returns None while it can be used.

        Args:
            when: what happened at that time, as the end of the sentence.
            prompt_id: the prompt whose client reads the error; other prompts' lines are left out.
        """
        status = None if self._child is None else self._child.poll()
        if self._marked_fault:
            return self._failed(self._marked_fault, when, prompt_id)
        if self._child is not None and status is None:
            return None
        self._thread.join(timeout=1)  # so that the log has been read to its end
        out_of_memory = oom_kills() > self._oom_kills
        fault = ending(status, out_of_memory=out_of_memory)
        return self._failed(fault, when, prompt_id, out_of_memory=out_of_memory)

    def _requirements_hint(self) -> str:
        """Name the required packages that are not installed; empty if all are."""
        folder = self.options.comfyui_dir
        unmet = unmet_requirements(folder / "requirements.txt")
        if not unmet:
            return ""
        command = install_command(None if folder == paths.comfyui_dir({}) else folder)
        return (
            "packages that it requires are missing or of another version: "
            f"{summary(unmet)}: call `{command}`"
        )

    def _failed(
        self, fault: str, when: str, prompt_id: str, *, out_of_memory: bool = False
    ) -> ComfyUIUnavailable | OutOfMemory:
        tail = list(self._tail) if self._prompt_id in ("", prompt_id) else []
        cause = log_cause(tail)
        details = [{"log": tail, "cause": cause or fault}]
        parts = ["ComfyUI", fault, when]
        if cause:
            parts.append(f"and its log says '{cause}'")
        sentence = " ".join(part for part in parts if part)
        if not self._booted and (hint := self._requirements_hint()):
            sentence += f"; {hint}"
        error: ComfyUIUnavailable | OutOfMemory
        if out_of_memory:
            error = OutOfMemory(f"{sentence}; {USE_LESS_MEMORY}", details)
        else:
            sentence += "; its last log lines are in the details"
            error = ComfyUIUnavailable(sentence, details)
        if self._booted:  # the cause may be a node's, and may repeat its client's text
            error.log_text = f"{error.code}: ComfyUI {fault} {when}".rstrip()
        return error

    def wait_ready(self, cancelled: threading.Event) -> None:
        """Wait until ``/system_stats`` answers.

        Args:
            cancelled: set by another thread to give up waiting.

        Raises:
            ComfyUIUnavailable: it ended, or took longer than ``boot_timeout_s``; the details hold
                its last log lines.
            OutOfMemory: the kernel killed it because memory ran out.
        """
        client = ComfyUIClient(self.base_url)
        while not cancelled.is_set():
            if self.boot_time_left_s() <= MIN_TIMEOUT_S:
                self.mark_boot_too_slow()
            if (failure := self.failure("while it was starting")) is not None:
                raise failure
            try:
                client.system_stats(min(BOOT_TIMEOUT_S, self.boot_time_left_s()))
            except ComfyUIUnavailable:
                time.sleep(0.05)
                continue
            finally:
                client.close()
            self._booted = True
            self.packs.report_missing()
            return

    def boot_time_left_s(self) -> float:
        """Return how many seconds the boot may still take; never 0, since a timeout may not be."""
        return max(self._boot_deadline - time.monotonic(), MIN_TIMEOUT_S)

    def mark_boot_too_slow(self) -> None:
        """End a ComfyUI whose time to start is over."""
        self.mark_failed(f"was not ready after {self.options.boot_timeout_s:g} s")

    def redact_prompt(self, prompt_id: str, secrets: tuple[str, ...]) -> None:
        """Keep a client's keys out of the log lines of its prompt.

        Args:
            prompt_id: the prompt.
            secrets: the keys.
        """
        self._prompt_secrets[prompt_id] = secrets
        while len(self._prompt_secrets) > REMEMBERED_PROMPTS:
            self._prompt_secrets.popitem(last=False)

    @property
    def job_parents(self) -> list[Path]:
        """The folders in which each job gets a folder of its own."""
        parents = [self.input_dir, self.output_dir, self.temp_dir]
        if self.raw_dir is not None:
            parents.append(self.raw_dir)
        return parents

    def stop(self) -> None:
        """End ComfyUI and whatever it started, and remove its folders."""
        if (child := self._child) is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            self._thread.join(timeout=5)
            log.info("ComfyUI ended", extra={"action": "comfyui.stop"})
        for folder in self._own_folders:
            folder.remove()

    def _run(self) -> None:
        # The reaper starts with these signals blocked, so that none ends it before it is ready.
        signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        folders = os.pathsep.join(str(folder.path) for folder in self._own_folders)
        reaper = [sys.executable, "-S", "-E", str(REAPER), str(os.getpid()), folders]
        try:
            child = self._child = subprocess.Popen(
                [*reaper, *self._command()],
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
                self.last_output_at = time.monotonic()
                if text := plain_line(line).rstrip():
                    self._read_line(text)

    def _read_line(self, line: str) -> None:
        if line.startswith(self._mark):
            self._tail.clear()
            self._prompt_id = line.removeprefix(self._mark).strip()
            self.last_prompt_id = self._prompt_id or self.last_prompt_id
            return
        # A line that belongs to no prompt may hold any client's key.
        line = redact_job(line, self._prompt_secrets.get(self._prompt_id))
        self._tail.append(line)
        if not self._booted:
            self.packs.read_line(line)
        is_public = not self._booted or PUBLIC_LINES.fullmatch(line.strip())
        # tqdm redraws its bar many times a second.
        is_shown = is_public and "%|" not in line
        comfyui_log.log(logging.INFO if is_shown else logging.DEBUG, "%s", line)

    def _command(self) -> list[str]:
        options = self.options
        config = self.runtime_dir / "extra_model_paths.yaml"
        packs = {
            f"pack{index}": {"custom_nodes": str(folder)}
            for index, folder in enumerate(options.custom_nodes)
        }
        config.write_text(json.dumps(packs), encoding="utf-8")  # JSON is YAML
        own_options = (
            ("--disable-auto-launch",),
            ("--listen", "127.0.0.1"),
            ("--port", str(self._port)),
            ("--input-directory", str(self.input_dir)),
            ("--output-directory", str(self.output_dir)),
            ("--temp-directory", str(self.runtime_dir)),
            ("--user-directory", str(self.user_dir)),
            ("--database-url", "sqlite:///:memory:"),
            ("--extra-model-paths-config", str(config)),
            ("--preview-size", "256"),
            ("--verbose", options.log_level),
        )
        flags = launch_flags(
            options,
            accelerator=has_accelerator(),
            version=self.version,
            memory_bytes=memory_limit_bytes(),
        )
        return [sys.executable, "main.py", *self.version.supported(own_options), *flags]

    def _link_cached_models(self) -> list[Path]:
        """Give cached model files the names that workflows use; returns the folder of the links."""
        if not self.options.cached_models:
            return []
        folder = self.runtime_dir / "cached_models"
        for name, file in self.options.cached_models.items():
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
        return [folder]

    def _environ(self) -> dict[str, str]:
        folders = [*self.options.model_roots, *self._link_cached_models()]
        roots = os.pathsep.join(map(str, folders))
        return {
            **public_variables(os.environ),
            **loopback_variables(os.environ),
            "COMFY_WORKER_DEFER_IMPORTS": "1" if self.options.defer_imports else "0",
            "COMFY_WORKER_LOG_MARK": self._mark,
            "COMFY_WORKER_MODEL_ROOTS": roots,
            "COMFY_WORKER_HUB_CACHES": os.pathsep.join(map(str, self.options.hub_caches)),
            "COMFY_WORKER_RAW_DIR": str(self.raw_dir or ""),
            "COMFY_WORKER_RUNTIME_DIR": str(self.runtime_dir),
            # Nodes may read only their own temporary files.
            "TMPDIR": str(self.tmp_dir),
            "PYTHONUNBUFFERED": "1",
        }


def _folder_in(root: Path) -> OwnFolder | None:
    try:
        return OwnFolder(root)
    except OSError:
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
