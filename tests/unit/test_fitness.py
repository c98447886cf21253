"""A container that cannot work says why before it takes a job."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfy_common import paths
from comfy_worker.comfyui_boot import started_comfyui
from comfy_worker.runner import JobRunner
from comfy_worker.runpod_worker import fitness
from comfy_worker.runpod_worker.fitness import Unfit, check_gpu, check_model_folders, fitness_checks
from comfy_worker.settings import Settings
from comfy_worker.shared_services import worker_templates


def checks(**settings: object) -> dict[str, Callable[[], None]]:
    made = fitness_checks(Settings.model_validate(settings), {"RUNPOD_GPU_COUNT": "2"})
    return {check.__name__: check for check in made}


def test_an_invisible_gpu_is_unfit() -> None:
    with pytest.raises(
        Unfit, match="RunPod gave this worker 2 GPU, but none is visible; replace the worker"
    ):
        check_gpu("2", present=False)
    for expected in ("", "0", "many"):
        check_gpu(expected, present=False)
    checks(comfy_args=("--cpu",))["gpu"]()


def test_a_gpu_without_a_driver_is_told() -> None:
    with pytest.raises(Unfit, match="there is a GPU but no driver for it: libnothing"):
        check_gpu("1", present=True, driver="libnothing.so.1")


@pytest.mark.parametrize(
    ("driver", "torch", "fits"),
    [
        (12080, "12.8", True),
        (12020, "12.8", True),
        (13000, "12.8", True),
        (12080, "13.0", False),
        (11080, "12.8", False),
    ],
)
def test_a_driver_must_know_torchs_cuda(
    monkeypatch: pytest.MonkeyPatch, driver: int, torch: str, fits: bool
) -> None:
    monkeypatch.setattr(fitness, "_driver_cuda", lambda _library: driver)
    if fits:
        check_gpu("1", present=True, torch_cuda=torch)
        return
    with pytest.raises(
        Unfit, match=rf"driver runs CUDA up to 1[12]\.8, and torch is built for {torch}"
    ):
        check_gpu("1", present=True, torch_cuda=torch)


def test_torchs_cuda_is_read_without_import() -> None:
    assert fitness._torch_cuda().split(".")[0] in ("12", "13")


def test_comfyui_must_be_whole(tmp_path: Path) -> None:
    with pytest.raises(
        Unfit,
        match=r"is not a complete ComfyUI: it lacks comfyui_version\.py, main\.py.*set COMFYUI_DIR",
    ):
        checks(comfyui_dir=tmp_path)["comfyui_files"]()


def test_there_must_be_a_folder_of_models(tmp_path: Path) -> None:
    check_model_folders([tmp_path / "nowhere", tmp_path])
    with pytest.raises(
        Unfit, match=r"there is no folder of models: .*nowhere; set MODELS_DIR to one"
    ):
        check_model_folders([tmp_path / "nowhere"])
    (tmp_path / "file").touch()
    with pytest.raises(Unfit, match="file cannot be read: Not a directory; set MODELS_DIR right"):
        check_model_folders([tmp_path, tmp_path / "file"])


def test_a_volume_that_does_not_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    over = threading.Event()

    class Dead(type(tmp_path)):  # type: ignore[misc]
        def iterdir(self) -> Iterator[Path]:
            over.wait(10)
            return iter(())

    monkeypatch.setattr(fitness, "ANSWER_S", 0.1)
    try:
        with pytest.raises(Unfit, match=r"does not answer within 0\.1 s"):
            check_model_folders([tmp_path, Dead("/volume")])
    finally:
        over.set()


def hang(*_: object) -> object:
    """Stand for a system call on a network volume that has gone away."""
    threading.Event().wait(30)
    raise OSError


@pytest.mark.parametrize(
    ("function", "check", "reason"),
    [
        (
            "comfy_common.paths.volume_model_roots",
            "model_folders",
            r"the network volume /volume does not answer within 0\.1 s; fix the volume",
        ),
        (
            "comfy_worker.runpod_worker.fitness.version_in",
            "comfyui_files",
            r"the folder /volume/ComfyUI does not answer within 0\.1 s",
        ),
    ],
)
def test_a_hung_volume_is_told(
    monkeypatch: pytest.MonkeyPatch, function: str, check: str, reason: str
) -> None:
    monkeypatch.setattr(fitness, "ANSWER_S", 0.1)
    monkeypatch.setattr(function, hang)
    settings = checks(volume=Path("/volume"), comfyui_dir=Path("/volume/ComfyUI"))
    with pytest.raises(Unfit, match=reason):
        settings[check]()


def test_no_volume_is_touched_before_the_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    touched: list[threading.Thread] = []

    def note(volume: Path) -> list[Path]:
        touched.append(threading.current_thread())
        return []

    for name in (
        "volume_model_roots",
        "workflow_folders",
        "custom_node_folders",
        "_comfyuis",
        "_folders",
    ):
        monkeypatch.setattr(paths, name, note)
    environ = {
        "VOLUME_DIR": str(tmp_path / "volume"),
        "COMFYUI_DIR": str(tmp_path / "volume" / "ComfyUI"),
    }
    settings = Settings.from_env(environ)
    fitness_checks(settings, {})
    with started_comfyui(settings) as comfyui:
        JobRunner(settings, comfyui, worker_templates(settings))
    assert threading.main_thread() not in touched


def test_a_driver_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(fitness, "ANSWER_S", 0.1)
    monkeypatch.setattr(fitness, "_driver_cuda", lambda _library: over.wait(10))
    try:
        with pytest.raises(
            Unfit, match=r"driver does not answer within 0\.1 s; replace the worker"
        ):
            check_gpu("1", present=True, torch_cuda="12.8")
    finally:
        over.set()


def test_the_disk_must_have_room() -> None:
    checks(min_free_disk_mb=0)["free_disk"]()
    with pytest.raises(Unfit, match="MB free but needs 1000000000000 MB"):
        checks(min_free_disk_mb=1e12)["free_disk"]()


def test_this_machine_is_fit() -> None:
    for check in fitness_checks(Settings.from_env(os.environ), {}):
        check()
