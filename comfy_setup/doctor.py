"""Checks this machine and prints a table, for a user who asks why jobs fail.

It changes nothing. To be quick, it reads files in place of importing torch.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from comfy_common import cuda_driver, hub_cache, model_folders, paths, requirements
from comfy_common.comfyui_version import DEFAULT
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_common.nvidia_smi import query_gpus
from comfy_common.placeholder_names import is_real
from comfy_common.sources import Access
from comfy_common.text import size
from comfy_setup import comfyui, models, node_packs, packages
from comfy_setup.model_selection import template_names

INSTALL = "run `python3 -m comfy_setup install`"
PORT = 8000
LOW_DISK_BYTES = 2e9
READ_SETTINGS = (
    "import os; from comfy_worker.settings import Settings; Settings.from_env(os.environ)"
)
# In the list of a package's files, those that `import` opens first: NAME/__init__.py or NAME.py.
IMPORTED_FILE = re.compile(r"^([^/,]+(?:/__init__)?\.py),", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """A row of the table, and an entry of the JSON.

    Args:
        subject: what was checked.
        level: "ok", "note" (worth knowing) or "bad" (jobs fail).
        text: the result, and what to do if it is bad.
    """

    subject: str
    level: str
    text: str


def examine(environ: Mapping[str, str]) -> list[Finding]:
    """Check everything that a job needs.

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
        *_node_packs(environ),
        *_settings(environ),
        _volume(environ),
        *_cached_models(environ),
        *_models(environ),
        _disk(shutil.disk_usage(paths.REPO).free),
        _port(PORT),
    ]


def doctor(environ: Mapping[str, str], *, as_json: bool = False) -> int:
    """Print the table.

    Args:
        environ: the worker's environment.
        as_json: print ``{"can_run": bool, "checks": [{"subject", "level", "text"}]}`` instead.

    Returns:
        The exit code: 1 if jobs cannot run, else 0.
    """
    findings = examine(environ)
    bad = [finding.subject for finding in findings if finding.level == "bad"]
    console = Console(sys.stdout)
    if as_json:
        checks = [asdict(finding) for finding in findings]
        console.say(json.dumps({"can_run": not bad, "checks": checks}, indent=2))
        return 1 if bad else 0
    for finding in findings:
        console.say(f"{finding.level:<5} {finding.subject:<12} {finding.text}")
    console.say(f"Jobs cannot run: see {', '.join(bad)}." if bad else "Jobs can run.")
    return 1 if bad else 0


def _packages() -> Finding:
    if not packages.ready():
        text = f"{paths.VENV} is missing, unfinished or does not match the lock files: {INSTALL}"
        return Finding("packages", "bad", text)
    for record in sorted(paths.VENV.glob(f"{packages.SITE_PACKAGES}/*.dist-info/RECORD")):
        for name in IMPORTED_FILE.findall(record.read_text(encoding="utf-8")):
            if not (record.parent.parent / name).is_file():
                text = f"{name} is missing in {paths.VENV}: remove this folder and {INSTALL}"
                return Finding("packages", "bad", text)
    return Finding("packages", "ok", f"as locked, in {paths.VENV}")


def _torch() -> tuple[Finding, str]:
    """Check torch; returns its row, and the CUDA version that it is built for."""
    for file in paths.VENV.glob(f"{packages.SITE_PACKAGES}/torch/version.py"):
        text = file.read_text(encoding="utf-8")
        values = dict(re.findall(r"^(\w+).*= '([^']+)'", text, re.MULTILINE))
        cuda = values.get("cuda", "")
        version = values.get("__version__")
        return Finding("torch", "ok", f"{version}, built for CUDA {cuda or '(none)'}"), cuda
    return Finding("torch", "bad", f"missing: {INSTALL}"), ""


def _gpus(cuda: str) -> list[Finding]:
    try:
        output = query_gpus("name", "memory.total", "memory.free", "driver_version")
    except FileNotFoundError:
        return [Finding("GPU", "note", "no NVIDIA driver: ComfyUI runs on the CPU, which is slow")]
    except subprocess.SubprocessError:
        text = "nvidia-smi is installed but fails: the NVIDIA driver is not working"
        return [Finding("GPU", "bad", text)]
    return gpu_findings(output, cuda)


def gpu_findings(output: str, cuda: str) -> list[Finding]:
    """Check the GPUs by the output of nvidia-smi.

    Args:
        output: lines "name, total memory, free memory, driver version".
        cuda: the CUDA version that torch is built for, such as "12.8".

    Returns:
        One row for each GPU.
    """
    findings = []
    for line in output.strip().splitlines():
        name, total, free, driver = [part.strip() for part in line.rsplit(",", 3)]
        text = f"{name}, {total} ({free} free), driver {driver}"
        problem = cuda_driver.problem(driver, cuda)
        if problem:
            findings.append(Finding("GPU", "bad", f"{text}: {problem}"))
        else:
            findings.append(Finding("GPU", "ok", text))
    if not findings:
        return [Finding("GPU", "note", "none found: ComfyUI runs on the CPU, which is slow")]
    return findings


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
        summary = requirements.summary(unmet)
        text += f"; the packages do not meet its requirements: {summary}: run `{command}`"
        # Another version of a package may work, a missing package does not.
        level = "note" if all(entry.installed for entry in unmet) else "bad"
        return Finding("ComfyUI", level, text)
    if comfyui.stands_in(environ):
        text += f"; it replaces {DEFAULT}, which `install` downloads when GitHub can be reached"
        return Finding("ComfyUI", "note", text)
    return Finding("ComfyUI", "ok", text)


def _node_packs(environ: Mapping[str, str]) -> list[Finding]:
    """Check that the environment has the packages of all node packs, also of the volume's."""
    folders = node_packs.pack_folders(environ)
    if not folders:
        return []
    files = {folder / "requirements.txt": folder for folder in folders}
    present = [file for file in files if file.is_file()]
    findings = []
    for file, unmet in packages.unmet_by_file(present).items():
        findings.append(_incomplete_pack(files[file], unmet))
    names = sorted(folder.name for folder in folders)
    return [Finding("custom nodes", "ok", ", ".join(names)), *findings]


def _incomplete_pack(folder: Path, unmet: list[requirements.Unmet]) -> Finding:
    """The row of a pack whose requirements are not met."""
    forbidden = node_packs.forbidden(unmet) if packages.INSTALLED.is_file() else []
    if forbidden:
        text = f"{folder} {'; '.join(forbidden)}: use another version of the pack"
    else:
        text = (
            f"{folder} needs {requirements.summary(unmet)}: its nodes may fail; name the pack in "
            "custom_nodes.txt (`nodes add`), and its packages are installed with it"
        )
    return Finding("custom nodes", "note", text)


def _settings(environ: Mapping[str, str]) -> list[Finding]:
    problem = settings_problem(environ)
    if problem is None:
        return []  # the row of the packages says it
    if not problem:
        return [Finding("settings", "ok", "the worker's environment variables are valid")]
    return [Finding("settings", "bad", problem)]


def settings_problem(environ: Mapping[str, str]) -> str | None:
    """Let the worker's own code read the settings, in the virtual environment.

    Args:
        environ: the worker's environment.

    Returns:
        What is wrong with the settings, empty for nothing; None if the packages are missing.
    """
    command: list[str | Path] = [paths.VENV_PYTHON, "-B", "-c", READ_SETTINGS]
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, env=environ, cwd=paths.REPO
        )
    except FileNotFoundError:
        return None
    if not finished.returncode:
        return ""
    lines = finished.stderr.strip().splitlines()
    if not lines:
        return f"reading the settings ended with exit code {finished.returncode}"
    return lines[-1].rpartition("InvalidSettings: ")[2]


def _models(environ: Mapping[str, str]) -> list[Finding]:
    root = paths.model_roots(environ)[0]
    if root.exists() and not root.is_dir():
        text = f"{root} is not a folder: set MODELS_DIR to a folder, or unset it"
        return [Finding("models", "bad", text)]
    found = model_folders.model_files(models.folders(environ))
    findings = []
    if "checkpoints" not in found:
        text = f"none: put one into {root / 'checkpoints'}; `run` and `serve` install a toy model"
        findings.append(Finding("checkpoints", "note", text))
    for name, by_folder in found.items():
        findings.append(_model_folder(name, by_folder))
    return findings


def _model_folder(name: str, by_folder: Mapping[Path, Sequence[Path]]) -> Finding:
    """Check the files of one model folder name, such as `checkpoints`."""
    files = list(chain(*by_folder.values()))
    total = size(sum(path.stat().st_size for path in files))
    number = "1 file" if len(files) == 1 else f"{len(files)} files"
    text = f"{number}, {total}: {model_folders.where(by_folder)}"
    damaged = [path for path in files if models.damage(path)]
    if damaged:
        text += f"; {damaged[0]} {models.damage(damaged[0])}: download it again or remove it"
        has_no_checkpoint = name == "checkpoints" and damaged == files
        return Finding(name, "bad" if has_no_checkpoint else "note", text)
    if name == "checkpoints" and not any(is_real(path.name) for path in files):
        return Finding(name, "note", f"{text}; none is real: the toy model draws shapes")
    return Finding(name, "ok", text)


def _volume(environ: Mapping[str, str]) -> Finding:
    volume = paths.volume_dir(environ)
    if not volume.is_dir():
        return Finding("volume", "ok", f"none at {volume}")
    candidates = {
        "models": list(chain(*models.folders(environ).values())),
        "workflows": paths.workflow_folders(volume),
        "node packs": paths.custom_node_folders(volume),
    }
    parts = []
    has_models = False
    for content, folders in candidates.items():
        found = [str(path) for path in folders if volume in path.parents and path.is_dir()]
        if found:
            parts.append(f"{content} in {', '.join(found)}")
            has_models = has_models or content == "models"
    text = "; ".join(parts)
    if not has_models:
        text = text or "nothing that a job can use"
        text += f"; put models into {volume / 'models'}/checkpoints ..."
    return Finding("volume", "ok" if has_models else "note", f"{volume}: {text}")


def _cached_models(environ: Mapping[str, str]) -> list[Finding]:
    """List the repositories in caches of Hugging Face that have files for this worker."""
    cached = hub_cache.snapshots(paths.hub_caches(environ))
    newest = [snapshot for snapshot in cached if snapshot.means("main")]
    needs = _needs(environ) if newest else []
    findings = []
    for snapshot in newest:
        endpoint = Access.from_env(environ).endpoint
        named = [name for name, url in needs if hub_cache.find_url(url, [snapshot], endpoint)]
        facts = []
        if snapshot.root:
            facts.append(f"model folders in {snapshot.root}")
        if named:
            facts.append(f"has {', '.join(dict.fromkeys(named))}")
        if facts:
            text = f"{snapshot.repo}: {'; '.join(facts)}"
            findings.append(Finding("cached model", "ok", text))
    return findings


def _needs(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """The files of models.txt and of the templates, with their URLs; none of what is broken."""
    with suppress(SetupError):
        names = template_names(environ)
        entries = [*models.listed([], environ)]
        for name in names:
            with suppress(SetupError):
                entries += models.listed([name], environ)
        return [(entry.path, entry.url) for entry in entries]
    return []


def _disk(free: int) -> Finding:
    level = "ok" if free >= LOW_DISK_BYTES else "note"
    return Finding("free disk", level, f"{size(free)} on the disk of {paths.REPO}")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(1)
        is_taken = probe.connect_ex(("127.0.0.1", port)) == 0
    if is_taken:
        return Finding(f"port {port}", "note", "taken: use `serve --port` with another port")
    return Finding(f"port {port}", "ok", "free for `serve`")
