"""Checks that this container can work, before the worker takes its first job.

The SDK runs these checks while ComfyUI boots, and ends the worker if one fails. They take seconds
at most, so none of them imports torch.
"""

from __future__ import annotations

import ctypes
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from comfy_common import cuda_driver
from comfy_common.comfyui_version import version_in
from comfy_common.errors import SetupError
from comfy_worker.comfyui.launch import has_accelerator
from comfy_worker.comfyui.resources import ensure_disk
from comfy_worker.errors import DiskFull
from comfy_worker.settings import Settings

__all__ = ["Unfit", "fitness_checks"]

T = TypeVar("T")

ANSWER_S = 10.0
DRIVER = "libcuda.so.1"


class Unfit(Exception):
    """This container cannot work; the text says why and what to do."""


def fitness_checks(settings: Settings, environ: Mapping[str, str]) -> list[Callable[[], None]]:
    """List the checks; each raises :class:`Unfit`, and the SDK logs its name.

    Args:
        settings: the worker's settings.
        environ: the environment, where RunPod sets ``RUNPOD_GPU_COUNT``.
    """

    def gpu() -> None:
        if "--cpu" not in settings.comfy_args:
            check_gpu(environ.get("RUNPOD_GPU_COUNT", ""))

    def comfyui_files() -> None:
        try:
            _in_time(lambda: version_in(settings.comfyui_dir), f"the folder {settings.comfyui_dir}")
        except SetupError as error:
            remedy = "set COMFYUI_DIR to a complete ComfyUI, or rebuild the image"
            raise Unfit(f"{error}; {remedy}") from None

    def model_folders() -> None:
        roots = _in_time(lambda: settings.model_roots, f"the network volume {settings.volume}")
        check_model_folders([*roots, settings.comfyui_dir / "models"])

    def free_disk() -> None:
        try:
            temporary = Path(tempfile.gettempdir())
            _in_time(
                lambda: ensure_disk(temporary, settings.min_free_disk_mb),
                f"the folder {temporary}",
            )
        except DiskFull as error:
            raise Unfit(str(error)) from None

    return [gpu, comfyui_files, model_folders, free_disk]


def check_gpu(
    expected: str, *, present: bool | None = None, driver: str = DRIVER, torch_cuda: str = ""
) -> None:
    """Check that there is a GPU and that its driver runs torch's CUDA.

    Args:
        expected: how many GPUs RunPod says there are; empty if it does not say.
        present: whether this machine shows a GPU; looked up if absent.
        driver: NVIDIA's driver library.
        torch_cuda: the CUDA version that torch is built for, such as 12.8; looked up if empty.

    Raises:
        Unfit: it is missing, does not start, or its driver is too old.
    """
    if not (has_accelerator() if present is None else present):
        if expected.isdecimal() and int(expected) > 0:
            raise Unfit(
                f"RunPod gave this worker {expected} GPU, but none is visible; replace the worker"
            )
        return
    torch_cuda = torch_cuda or _torch_cuda()
    if not torch_cuda:  # torch is built for GPUs that are not NVIDIA's
        return
    newest = _in_time(lambda: _driver_cuda(driver), "the GPU's driver", "replace the worker")
    if not cuda_driver.runs(newest // 1000, torch_cuda):
        raise Unfit(
            f"the GPU's driver runs CUDA up to {newest // 1000}.{newest % 1000 // 10}, and torch "
            f"is built for {torch_cuda}; let the endpoint use hosts with a newer driver (its "
            "setting for CUDA versions)"
        )


def check_model_folders(roots: list[Path]) -> None:
    """Check that the folders of models can be listed; a detached network volume hangs or fails.

    Args:
        roots: the folders. Some may be missing, but not all.

    Raises:
        Unfit: a folder cannot be listed, or all are missing.
    """
    problems: dict[Path, str] = {}
    with suppress(Unfit):
        _in_time(lambda: problems.update((root, _listed(root)) for root in roots), "")
    for root in roots:
        problem = problems.get(root, f"does not answer within {ANSWER_S:g} s")
        if problem not in ("", "is missing"):
            raise Unfit(
                f"the folder of models {root} {problem}; set MODELS_DIR right, or fix the volume"
            )
    if set(problems.values()) == {"is missing"}:
        raise Unfit(
            f"there is no folder of models: {', '.join(map(str, roots))}; set MODELS_DIR to one"
        )


def _in_time(work: Callable[[], T], name: str, remedy: str = "fix the volume, or detach it") -> T:
    """Call a function that may never return, in a thread that is then abandoned.

    Raises:
        Unfit: it did not return within :data:`ANSWER_S`.
    """
    answers: list[T] = []
    errors: list[Exception] = []

    def answer() -> None:
        try:
            answers.append(work())
        except Exception as error:  # noqa: BLE001 (outermost: the caller raises it)
            errors.append(error)

    thread = threading.Thread(target=answer, name="fitness", daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    if errors:
        raise errors[0]
    if not answers:
        raise Unfit(f"{name} does not answer within {ANSWER_S:g} s; {remedy}")
    return answers[0]


def _listed(root: Path) -> str:
    """Say why a folder cannot be listed; empty if it can."""
    try:
        next(iter(root.iterdir()), None)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _torch_cuda() -> str:
    """Read the CUDA version that torch is built for, without importing it; empty for none."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise Unfit("torch is not installed; rebuild the image")
    source = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    found = re.search(r"^cuda\b.*= '([\d.]+)'", source, re.MULTILINE)
    return found[1] if found else ""


def _driver_cuda(library: str) -> int:
    """Ask the driver for the newest CUDA that it runs; 12080 means 12.8."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        raise Unfit(f"there is a GPU but no driver for it: {error}; replace the worker") from None
    version, count = ctypes.c_int(), ctypes.c_int()
    for call, argument in (
        (cuda.cuDriverGetVersion, ctypes.byref(version)),
        (cuda.cuInit, 0),
        (cuda.cuDeviceGetCount, ctypes.byref(count)),
    ):
        if code := call(argument):
            raise Unfit(f"the GPU's driver does not work: CUDA error {code}; replace the worker")
    if not count.value:
        raise Unfit("the GPU's driver finds no GPU; replace the worker")
    return version.value
