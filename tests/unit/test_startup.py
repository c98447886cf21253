"""The moments of the worker's start."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

import pytest

from comfy_worker.startup import StartTimes, start_times


@pytest.fixture(autouse=True)
def propagating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let records reach caplog, also after another test has configured the worker's log."""
    monkeypatch.setattr(logging.getLogger("comfy_worker"), "propagate", True)


def test_moments_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    times = StartTimes(time.monotonic() - 5)
    times.mark("imports")
    times.mark("first job done")
    with caplog.at_level(logging.INFO, logger="comfy_worker.startup"):
        times.log_once()
        times.log_once()
    assert [record.getMessage() for record in caplog.records] == [
        "start: imports 5.00 s, first job done 5.00 s"
    ]


def test_first_mark_counts(caplog: pytest.LogCaptureFixture) -> None:
    times = StartTimes(time.monotonic())
    times.mark("ComfyUI ready")
    time.sleep(0.05)
    times.mark("ComfyUI ready")
    with caplog.at_level(logging.INFO, logger="comfy_worker.startup"):
        times.log_once()
    assert caplog.records[0].getMessage() == "start: ComfyUI ready 0.00 s"


def test_process_began_before_this_test() -> None:
    assert start_times._began < time.monotonic()


def test_garbage_is_collected_rarely() -> None:
    code = (
        "import gc; from comfy_worker.startup import collect_garbage_rarely as rarely; rarely();"
        "print(gc.isenabled(), gc.get_freeze_count() > 0, gc.get_threshold()[0])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["True", "True", "20000"]
