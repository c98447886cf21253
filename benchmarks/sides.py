"""Starts the two workers that a benchmark compares: this one, and worker-comfyui from a checkout.

Both run under the SDK's entry point with a RunPod API of their own, and with the same ComfyUI: this
worker boots its own, as it does for its users, and the peer finds one on port 8188, as its
``start.sh`` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import psutil

from benchmarks.graphs import CHECKPOINT
from benchmarks.runpod_api import RunPodApi
from comfy_common import paths
from comfy_local import placeholder

__all__ = ["OURS", "PEER", "SECOND_CHECKPOINT", "Side", "both_sides", "model_folder", "started"]

OURS, PEER = "ours", "peer"
SECOND_CHECKPOINT = "placeholder-b.safetensors"
PEER_PORT = "8188"
# Where the peer looks for the process of its ComfyUI.
PEER_PID_FILE = Path("/tmp/comfyui.pid")
END_S = 20.0


@dataclass
class Side:
    """One worker that runs.

    Attributes:
        name: ``ours`` or ``peer``.
        api: RunPod's side of it.
        log: what it wrote.
        processes: the processes that the benchmark started for it; the handler is the last.
        peak_mb: for :mod:`benchmarks.memory`.
    """

    name: str
    api: RunPodApi
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    peak_mb: float = 0.0

    def cpu_s(self) -> float:
        """Return the processor time that all its processes have used so far."""
        total = 0.0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def comfyui_url(self) -> str:
        """Return the address of its ComfyUI.

        Raises:
            LookupError: it does not run.
        """
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                command = process.cmdline()
                if "main.py" in command and "--port" in command:
                    return f"http://127.0.0.1:{command[command.index('--port') + 1]}"
        raise LookupError("ComfyUI does not run")

    def _tree(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for started_process in self.processes:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(started_process.pid)
                found += [root, *root.children(recursive=True)]
        return found


def model_folder() -> Path:
    """Return a folder of models with two tiny checkpoints, which are written the first time."""
    root = paths.CACHE / "benchmark-models"
    first = root / "checkpoints" / CHECKPOINT
    second = first.with_name(SECOND_CHECKPOINT)
    if not first.is_file():
        placeholder.write_checkpoint(first)
    if not second.is_file():
        unfinished = second.with_name(second.name + ".part")
        shutil.copyfile(first, unfinished)
        unfinished.replace(second)
    return root


@asynccontextmanager
async def both_sides(
    models: Path, peer: Path | None, settings: Mapping[str, str] | None = None
) -> AsyncIterator[dict[str, Side]]:
    """Start this worker, and the peer if there is a checkout of it; end both with the block.

    Args:
        models: the folder of models that both use.
        peer: the peer's checkout.
        settings: this worker's further settings.
    """
    async with started(OURS, models, peer, settings) as ours:
        if peer is None:
            yield {OURS: ours}
            return
        async with started(PEER, models, peer) as other:
            yield {OURS: ours, PEER: other}


@asynccontextmanager
async def started(
    name: str, models: Path, peer: Path | None, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Side]:
    """Start one side; it boots while the block runs, and ends with it.

    Args:
        name: ``ours`` or ``peer``.
        models: the folder of models that both use.
        peer: the peer's checkout; not used for ``ours``.
        settings: further variables of this side's environment.
    """
    api = RunPodApi()
    await api.start()
    with tempfile.TemporaryDirectory() as folder:
        side = Side(name, api, Path(folder) / "log")
        with side.log.open("wb") as log, _ending(side.processes):
            environ = {**os.environ, **api.environ(), "TMPDIR": folder, "MODELS_DIR": str(models)}
            environ.update(settings or {})
            if name == OURS:
                command = [sys.executable, "handler.py"]
                side.processes.append(_popen(command, paths.REPO, environ, log))
            else:
                assert peer is not None
                await asyncio.to_thread(_start_peer, side, models, peer, environ, log)
            try:
                yield side
            except BaseException:
                log.flush()
                sys.stderr.write(side.log.read_text(errors="replace")[-3000:])
                raise
    await api.close()


def _start_peer(
    side: Side, models: Path, peer: Path, environ: dict[str, str], log: BinaryIO
) -> None:
    """Take the steps of the peer's ``start.sh``: look for a GPU with torch, start ComfyUI, start the handler."""
    with socket.socket() as probe:  # the peer would use whatever answers there
        if probe.connect_ex(("127.0.0.1", int(PEER_PORT))) == 0:
            raise SystemExit(f"port {PEER_PORT} is in use, and the peer needs it for its ComfyUI")
    comfyui_dir = paths.comfyui_dir(os.environ)
    environ["PYTHONPATH"] = os.pathsep.join([str(peer / "src"), str(peer)])
    looks_for_gpu = "import torch\ntry:\n    torch.cuda.init()\nexcept Exception:\n    pass"
    subprocess.run([sys.executable, "-c", looks_for_gpu], stdout=log, stderr=log, check=False)
    config = side.log.with_name("extra_model_paths.yaml")
    folders = {"models": {"base_path": str(models), "checkpoints": "checkpoints"}}
    config.write_text(json.dumps(folders), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-u", "main.py", "--port", PEER_PORT]
    command += ["--disable-auto-launch", "--disable-metadata", "--verbose", "DEBUG", "--log-stdout"]
    command += ["--extra-model-paths-config", str(config)]
    if not Path("/dev/nvidia0").exists():
        command.append("--cpu")
    comfyui = _popen(command, comfyui_dir, environ, log)
    side.processes.append(comfyui)
    PEER_PID_FILE.write_text(str(comfyui.pid), encoding="utf-8")
    handler = [sys.executable, "-u", str(peer / "handler.py")]
    side.processes.append(_popen(handler, peer, environ, log))


def _popen(
    command: list[str], folder: Path, environ: dict[str, str], log: BinaryIO
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)


@contextmanager
def _ending(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    try:
        yield
    finally:
        # The SDK's heartbeat is a process that outlives its worker.
        heartbeats = [child for process in processes for child in _children(process)]
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            _end(process)
        for child in heartbeats:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
