"""A table of what this machine has and has not, for someone who asks why it does not work.

Looks and changes nothing; quick, so it reads files rather than importing torch.
"""

from __future__ import annotations

import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from comfy_common import cuda_driver, paths, requirements
from comfy_common import model_folders as places
from comfy_common.comfyui_version import DEFAULT
from comfy_common.errors import SetupError
from comfy_common.placeholder_names import is_placeholder
from comfy_common.text import size
from comfy_setup import comfyui, models, packages

INSTALL = "call `python3 -m comfy_setup install`"
PORT = 8000
LOW_DISK_BYTES = 2e9
READ_SETTINGS = "import os; from comfy_worker.settings import Settings; Settings.from_env(os.environ)"


@dataclass(frozen=True)
class Finding:
    """A row of the table.

    Args:
        what: what was looked at.
        level: "ok", "note" (worth knowing) or "bad" (no job could run).
        text: what was found, and what to do if it is bad.
    """

    what: str
    level: str
    text: str


def examine(environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything that a job needs.

    Args:
        environ: the worker's environment.

    Returns:
        The rows of the table.
    """
    torch, cuda = _torch()
    return [
        Finding("Python", "ok", platform.python_version()),
        _packages(),
        torch,
        *_gpus(cuda),
        _comfyui(environ),
        *_node_packs(),
        *_settings(environ),
        _volume(environ),
        *_models(environ),
        _disk(shutil.disk_usage(paths.REPO).free),
        _port(PORT),
    ]


def doctor(environ: Mapping[str, str]) -> int:
    """Print the table.

    Args:
        environ: the worker's environment.

    Returns:
        1 if a job could not run, else 0.
    """
    findings = examine(environ)
    for finding in findings:
        print(f"{finding.level:<5} {finding.what:<12} {finding.text}")
    bad = [finding.what for finding in findings if finding.level == "bad"]
    print(f"A job could not run: see {', '.join(bad)}." if bad else "A job could run.")
    return 1 if bad else 0


def _packages() -> Finding:
    if not packages.ready():
        text = f"{paths.VENV} is missing, unfinished or not of these lock files: {INSTALL}"
        return Finding("packages", "bad", text)
    for record in sorted(paths.VENV.glob(f"{packages.SITE_PACKAGES}/*.dist-info/RECORD")):
        # What `import` opens first: NAME/__init__.py or NAME.py.
        for name in re.findall(r"^([^/,]+(?:/__init__)?\.py),", record.read_text(encoding="utf-8"), re.MULTILINE):
            if not (record.parent.parent / name).is_file():
                return Finding("packages", "bad", f"{name} is gone from {paths.VENV}: remove it and {INSTALL}")
    return Finding("packages", "ok", f"as locked, in {paths.VENV}")


def _torch() -> tuple[Finding, str]:
    """Look at torch; give its row, and the CUDA version that it was built for."""
    for file in paths.VENV.glob(f"{packages.SITE_PACKAGES}/torch/version.py"):
        said = dict(re.findall(r"^(\w+).*= '([^']+)'", file.read_text(encoding="utf-8"), re.MULTILINE))
        cuda = said.get("cuda", "")
        return Finding("torch", "ok", f"{said.get('__version__')}, built for CUDA {cuda or '(none)'}"), cuda
    return Finding("torch", "bad", f"missing: {INSTALL}"), ""


def _gpus(cuda: str) -> list[Finding]:
    ask = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=20).stdout
    except FileNotFoundError:
        return [Finding("GPU", "note", "no NVIDIA driver: ComfyUI runs on the processor, which is slow")]
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return [Finding("GPU", "bad", "nvidia-smi is there but fails: the NVIDIA driver is not working")]
    return gpu_findings(answer, cuda)


def gpu_findings(answer: str, cuda: str) -> list[Finding]:
    """Judge what nvidia-smi said.

    Args:
        answer: lines "name, total memory, free memory, driver version".
        cuda: the CUDA version that torch was built for, as "12.8".

    Returns:
        A row a GPU.
    """
    findings = []
    for line in answer.strip().splitlines():
        name, total, free, driver = [part.strip() for part in line.rsplit(",", 3)]
        text = f"{name}, {total} ({free} free), driver {driver}"
        problem = cuda_driver.problem(driver, cuda)
        findings.append(Finding("GPU", "bad", f"{text}: {problem}") if problem else Finding("GPU", "ok", text))
    return findings or [Finding("GPU", "note", "none found: ComfyUI runs on the processor, which is slow")]


def _comfyui(environ: Mapping[str, str]) -> Finding:
    folder = paths.comfyui_dir(environ)
    try:
        text = f"{comfyui.described(environ)}, in {folder}"
    except SetupError as error:
        return Finding("ComfyUI", "bad", f"{error}; {INSTALL}")
    file = comfyui.requirements(environ)
    unmet = packages.unmet_requirements(file) if file else []
    if unmet:
        command = requirements.install_command(folder if environ.get("COMFYUI_DIR") else None)
        text += f"; the packages do not meet its requirements: {requirements.summary(unmet)}: call `{command}`"
        # A package of another version may do, one that is missing does not.
        return Finding("ComfyUI", "note" if all(entry.installed for entry in unmet) else "bad", text)
    if comfyui.stands_in(environ):
        text += f"; it stands in for {DEFAULT}, which `install` fetches where GitHub can be reached"
        return Finding("ComfyUI", "note", text)
    return Finding("ComfyUI", "ok", text)


def _node_packs() -> list[Finding]:
    found = sorted(folder.name for folder in paths.NODE_PACKS.glob("[!.]*/"))
    return [Finding("custom nodes", "ok", ", ".join(found))] if found else []


def _settings(environ: Mapping[str, str]) -> list[Finding]:
    problem = settings_problem(environ)
    if problem is None:
        return []  # the row of the packages says so
    if not problem:
        return [Finding("settings", "ok", "the worker's environment variables make sense")]
    return [Finding("settings", "bad", problem)]


def settings_problem(environ: Mapping[str, str]) -> str | None:
    """Let the worker read its settings: its own code alone knows them, and needs the environment's packages.

    Args:
        environ: the worker's environment.

    Returns:
        What is wrong with them, empty for nothing, None where the packages are missing.
    """
    try:
        ask: list[str | Path] = [paths.VENV_PYTHON, "-B", "-c", READ_SETTINGS]
        asked = subprocess.run(ask, capture_output=True, text=True, env=environ, cwd=paths.REPO)
    except FileNotFoundError:
        return None
    if not asked.returncode:
        return ""
    said = asked.stderr.strip().splitlines() or [f"reading them ended with exit code {asked.returncode}"]
    return said[-1].rpartition("InvalidSettings: ")[2]


def _models(environ: Mapping[str, str]) -> list[Finding]:
    root = paths.model_roots(environ)[0]
    if root.exists() and not root.is_dir():
        return [Finding("models", "bad", f"{root} is no folder: set MODELS_DIR to one, or unset it")]
    found = places.model_files(models.folders(environ))
    findings = []
    if "checkpoints" not in found:
        text = f"none: put one into {root / 'checkpoints'}; `run` and `serve` make a placeholder"
        findings.append(Finding("checkpoints", "note", text))
    for name, by_folder in found.items():
        files = list(chain(*by_folder.values()))
        text = f"{len(files)} files, {size(sum(path.stat().st_size for path in files))}: {places.where(by_folder)}"
        damaged = [path for path in files if models.damage(path)]
        if damaged:
            text += f"; {damaged[0]} {models.damage(damaged[0])}: download it again or remove it"
            none_whole = name == "checkpoints" and damaged == files
            findings.append(Finding(name, "bad" if none_whole else "note", text))
        elif name == "checkpoints" and all(is_placeholder(path.name) for path in files):
            findings.append(Finding(name, "note", f"{text}; only the placeholder, whose pictures are noise"))
        else:
            findings.append(Finding(name, "ok", text))
    return findings


def _volume(environ: Mapping[str, str]) -> Finding:
    volume = paths.volume_dir(environ)
    if not volume.is_dir():
        return Finding("volume", "ok", f"none at {volume}")
    here = {
        kind: [folder for folder in folders if volume in folder.parents and folder.is_dir()]
        for kind, folders in (
            ("models", list(chain(*models.folders(environ).values()))),
            ("workflows", paths.workflow_folders(volume)),
            ("node packs", paths.custom_node_folders(volume)),
        )
    }
    text = "; ".join(f"{kind} in {', '.join(map(str, folders))}" for kind, folders in here.items() if folders)
    if not here["models"]:
        text = f"{text or 'nothing that a job could use'}; put models into {volume / 'models'}/checkpoints ..."
    return Finding("volume", "ok" if here["models"] else "note", f"{volume}: {text}")


def _disk(free: int) -> Finding:
    level = "ok" if free >= LOW_DISK_BYTES else "note"
    return Finding("free disk", level, f"{size(free)} where {paths.REPO} lies")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    if taken:
        return Finding(f"port {port}", "note", "taken: `serve` needs --port with another one")
    return Finding(f"port {port}", "ok", "free, for `serve`")
