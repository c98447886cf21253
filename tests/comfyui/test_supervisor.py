"""ComfyUI's life beside the worker: booted, died, booted again, ended, and what a client hears of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from comfy_worker.comfyui.launch import LaunchOptions, has_accelerator
from comfy_worker.comfyui.supervisor import ComfyUISupervisor
from comfy_worker.deadline import Deadline
from comfy_worker.errors import ComfyUIUnavailable, JobCancelled
from tests.comfyui.conftest import launch_options, real_comfyui
from tests.graphs import txt2img

pytestmark = pytest.mark.comfyui


def commands_of(runtime_dir: Path) -> dict[int, list[str]]:
    """The ComfyUI of a runtime folder, by process id; other tests have theirs."""
    family = {
        process.pid: process.cmdline() for process in psutil.Process().children(recursive=True)
    }
    return {
        pid: command
        for pid, command in family.items()
        if command[1:2] == ["main.py"] and any(str(runtime_dir) in word for word in command)
    }


def test_the_next_job_finds_another_comfyui(model_root: Path) -> None:
    errors: list[ComfyUIUnavailable] = []
    with real_comfyui(launch_options(model_root, log_level="WARNING")) as comfyui:
        running = comfyui.running
        folder, raw_dir = running.process.runtime_dir, running.process.raw_dir
        assert raw_dir is not None

        def run() -> None:
            with pytest.raises(
                ComfyUIUnavailable, match="was killed by SIGKILL while the workflow ran"
            ) as caught:
                running.execute(txt2img(sampler={"steps": 5000}), Deadline())
            errors.append(caught.value)

        job = threading.Thread(target=run)
        job.start()
        while not running.client.get_queue()["queue_running"]:
            time.sleep(0.1)
        (pid,) = commands_of(folder)
        os.kill(pid, signal.SIGKILL)
        job.join(timeout=60)
        assert len(errors) == 1
        assert comfyui.images(txt2img())
        assert not folder.exists()
        assert not raw_dir.exists()
        last_folder = comfyui.running.process.runtime_dir
        assert last_folder.is_dir()
    assert not last_folder.exists()
    assert commands_of(last_folder) == {}


def test_an_unknown_flag_fails_with_the_log(model_root: Path) -> None:
    comfyui = ComfyUISupervisor(launch_options(model_root, args=("--no-such-flag",)))
    with pytest.raises(
        ComfyUIUnavailable, match="ended with exit status 2 while it was starting"
    ) as caught:
        comfyui.ready(Deadline())
    comfyui.close()
    assert any("--no-such-flag" in line for line in caught.value.details[0]["log"])


def test_a_folder_without_comfyui_is_told(tmp_path: Path) -> None:
    comfyui = ComfyUISupervisor(LaunchOptions(comfyui_dir=tmp_path / "nowhere"))
    with pytest.raises(ComfyUIUnavailable) as caught:
        comfyui.ready(Deadline())
    comfyui.close()
    assert "nowhere" in caught.value.details[0]["log"][0]


def test_too_slow_a_boot_is_told(model_root: Path) -> None:
    comfyui = ComfyUISupervisor(launch_options(model_root, boot_timeout_s=0.2))
    with pytest.raises(ComfyUIUnavailable, match=r"was not ready after 0\.2 s"):
        comfyui.ready(Deadline())
    comfyui.close()


def test_a_cancelled_job_waits_for_no_boot(model_root: Path) -> None:
    comfyui = ComfyUISupervisor(launch_options(model_root))
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    with pytest.raises(JobCancelled):
        comfyui.ready(Deadline(cancelled))
    comfyui.close()


@pytest.mark.parametrize(
    ("name", "found"), [("nvidia0", True), ("dxg", True), ("nvidiactl", False)]
)
def test_a_gpu_is_seen_by_its_device_file(tmp_path: Path, name: str, found: bool) -> None:
    (tmp_path / name).touch()
    assert has_accelerator(tmp_path) is found
