"""What becomes of a ComfyUI that fails, seen on a stand-in: a real process that answers the routes of the boot."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import requests

from comfy_worker.comfyui import process as process_module
from comfy_worker.comfyui import supervisor
from comfy_worker.comfyui.cause import oom_kills
from comfy_worker.comfyui.execution import Timeouts
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.runaways import Runaways
from comfy_worker.comfyui.supervisor import ComfyUIInstance, ComfyUISupervisor, pause_s
from comfy_worker.comfyui.version import ComfyUIVersion
from comfy_worker.deadline import Deadline
from comfy_worker.errors import (
    ComfyUIUnavailable,
    JobCancelled,
    JobTimedOut,
    OutOfMemory,
    WorkerError,
    WorkflowRefused,
)
from tests import core_nodes

# Answers {} to everything; `--do ROUTE=ACTION` has a route break.
MAIN = """
import argparse, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--do", action="append", default=[])
parser.add_argument("--die-at-boot", default="")
args, _ = parser.parse_known_args()
actions = dict(one.split("=") for one in args.do)
if args.die_at_boot:
    exec(args.die_at_boot)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        action = actions.get(self.path, "404" if self.path.startswith(("/ws", "/comfy_worker")) else "")
        if action == "hang":
            time.sleep(60)
        if action == "slow":
            time.sleep(2)
            action = ""
        if action == "chatter":
            for step in range(600):
                print("step", step, flush=True)
                time.sleep(0.1)
        if action == "exit":
            print("ValueError: enough", flush=True)
            os._exit(3)
        status, body = (int(action), b"no") if action.isdecimal() else (200, b"<>" if action else b"{}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
server.daemon_threads = True
print("listening", flush=True)
server.serve_forever()
"""

QUICK = Timeouts(silence_s=1.0, stall_s=1.0, interrupt_s=0.5)


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., Any]:
    """Makes a :class:`ComfyUISupervisor` of these flags that ends with the block."""
    (tmp_path / "main.py").write_text(MAIN)

    @contextmanager
    def made(*args: str, limits: Timeouts = QUICK, **changes: Any) -> Iterator[ComfyUISupervisor]:
        comfyui = ComfyUISupervisor(LaunchOptions(tmp_path, args=args, **changes), limits)
        try:
            yield comfyui
        finally:
            comfyui.close()

    return made


def eventually(holds: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def error_of(comfyui: ComfyUISupervisor) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        comfyui.ready(Deadline(timeout_s=20))
    return caught.value


def test_one_that_was_killed_is_followed_by_another(stand_in: Callable[..., Any]) -> None:
    with stand_in() as comfyui:
        first = comfyui.ready(Deadline())
        child = first.process._child
        os.kill(child.pid, signal.SIGTERM)
        assert eventually(lambda: first.process.failure() is not None)
        second = comfyui.ready(Deadline())
        assert second is not first
        assert not comfyui.needs_fresh_worker


def test_folders_stay_while_a_job_uses_them(stand_in: Callable[..., Any]) -> None:
    with stand_in() as comfyui:
        first = comfyui.ready(Deadline())
        with first.in_use():
            first.process.mark_failed("is to go")
            second = comfyui.ready(Deadline())
            assert first.process.output_dir.is_dir()
        assert not first.process.runtime_dir.exists()
        assert second.process.output_dir.is_dir()
    assert not second.process.runtime_dir.exists()


def test_a_silent_comfyui_is_replaced(stand_in: Callable[..., Any]) -> None:
    with stand_in("--do", "/prompt=hang") as comfyui:
        first = comfyui.ready(Deadline())
        assert eventually(lambda: first.process.failure() is not None)
        assert "left HTTP unanswered for 1 s" in str(first.process.failure())
        assert comfyui.ready(Deadline()) is not first


def test_an_error_answer_is_a_sign_of_life(stand_in: Callable[..., Any]) -> None:
    with stand_in("--do", "/prompt=500") as comfyui:
        first = comfyui.ready(Deadline())
        time.sleep(2.5)
        assert comfyui.ready(Deadline()) is first


def test_repeated_failures_need_a_fresh_worker(
    stand_in: Callable[..., Any],
) -> None:
    with stand_in("--do", "/prompt=exit") as comfyui:
        first = comfyui.ready(Deadline())
        assert eventually(lambda: first.process.failure() is not None)
        failure = first.process.failure("while it was idle")
        assert (
            "ended with exit status 3 while it was idle and its log says 'ValueError: enough'"
            in str(failure)
        )
        assert eventually(lambda: comfyui.needs_fresh_worker)
        last = comfyui.ready(Deadline())
        last.has_completed_prompt = True
        assert not comfyui.needs_fresh_worker


def test_pauses_grow_up_to_half_a_minute() -> None:
    assert [pause_s(failures) for failures in (1, 2, 3, 4, 5, 6, 20)] == [0, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (
            ("--die-at-boot", "import no_such_thing"),
            "'ModuleNotFoundError: No module named 'no_such_thing''",
        ),
        (
            ("--die-at-boot", "os.kill(os.getpid(), 11)"),
            "was killed by SIGSEGV while it was starting",
        ),
        (("--do", "/system_stats=500"), "was not ready after 2 s while it was starting"),
        (("--do", "/object_info=500"), "ComfyUI answered HTTP 500 to GET /object_info"),
        (("--do", "/object_info=garbage"), "ComfyUI answered HTTP 200 to GET /object_info"),
        (("--do", "/object_info=hang"), "was not ready after 2 s while it was starting"),
        (
            ("--do", "/object_info=exit"),
            "ended with exit status 3 while it was starting and its log says",
        ),
        (
            ("--do", "/comfy_worker/validated=500"),
            "ComfyUI answered HTTP 500 to GET /comfy_worker/validated",
        ),
    ],
)
def test_a_failed_start_needs_a_fresh_worker(
    stand_in: Callable[..., Any], args: tuple[str, ...], problem: str
) -> None:
    with stand_in(*args, boot_timeout_s=2.0) as comfyui:
        error = error_of(comfyui)
        assert isinstance(error, ComfyUIUnavailable)
        assert problem in str(error)
        assert not error.try_again
        assert comfyui.needs_fresh_worker


@pytest.mark.parametrize("route", ["/object_info", "/comfy_worker/validated"])
def test_a_slow_volume_may_take_the_boots_time(stand_in: Callable[..., Any], route: str) -> None:
    with stand_in("--do", f"{route}=slow") as comfyui:
        assert QUICK.silence_s < 2.0
        comfyui.ready(Deadline(timeout_s=20))
        assert comfyui.is_up


def test_a_boot_error_keeps_no_job_alive(stand_in: Callable[..., Any]) -> None:
    class Input:
        """What a job holds while it waits."""

    def job() -> weakref.ref[Input]:
        held = Input()
        with pytest.raises(ComfyUIUnavailable):
            comfyui.ready(Deadline(timeout_s=20))
        return weakref.ref(held)

    with stand_in("--die-at-boot", "import no_such_thing") as comfyui:
        held = [job() for _ in range(2)]
        gc.collect()
        assert [ref() for ref in held] == [None, None]


def test_jobs_share_no_details_of_boot_errors(stand_in: Callable[..., Any]) -> None:
    with stand_in("--die-at-boot", "import no_such_thing") as comfyui:
        first = error_of(comfyui)
        first.details.append({"stage": "wait"})
        assert {"stage": "wait"} not in error_of(comfyui).details


def test_a_hanging_volume_blocks_neither_start_nor_end(tmp_path: Path) -> None:
    answered = threading.Event()

    def options() -> LaunchOptions:
        answered.wait(60)
        return LaunchOptions(tmp_path)

    comfyui = ComfyUISupervisor(options, QUICK)
    try:
        comfyui.start()
        with pytest.raises(JobTimedOut):
            comfyui.ready(Deadline(timeout_s=0.3))
    finally:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(supervisor, "CLOSE_S", 0.1)
            comfyui.close()
        answered.set()


def test_writing_to_the_log_is_life(stand_in: Callable[..., Any]) -> None:
    patient = Timeouts(silence_s=1.0, stall_s=4.0, interrupt_s=0.5)
    with stand_in("--do", "/prompt=hang", "--do", "/chatter=chatter", limits=patient) as comfyui:
        first = comfyui.ready(Deadline())
        silent_since = time.monotonic()
        chatter = threading.Thread(
            target=lambda: ignore_errors(f"{first.process.base_url}/chatter")
        )
        chatter.start()
        assert eventually(lambda: first.process.failure() is not None)
        assert time.monotonic() - silent_since > 2.0, "silent for longer than silence_s, and alive"
        assert "left HTTP unanswered for 4 s, although it wrote to its log" in str(
            first.process.failure()
        )
        chatter.join()


def ignore_errors(url: str) -> None:
    with suppress(requests.RequestException):
        requests.get(url, timeout=60)


@pytest.mark.parametrize("no_proxy", [None, "example.com"])
def test_a_proxy_of_the_environment_is_not_asked(
    stand_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, no_proxy: str | None
) -> None:
    for name in (
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, no_proxy) if no_proxy else monkeypatch.delenv(name, raising=False)
    with stand_in() as comfyui:
        running = comfyui.ready(Deadline(timeout_s=20))
        assert running.client.answers()
        environ = main_of(running.process.options.comfyui_dir)[0].environ()
        assert "127.0.0.1" in environ["NO_PROXY"].split(",")
        assert environ["no_proxy"] == environ["NO_PROXY"]
        assert environ["HTTP_PROXY"] == "http://127.0.0.1:9", "a node may need it"


def test_no_place_for_its_folders_is_told(
    stand_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("comfy_worker.comfyui.process.tempfile.mkdtemp", full)
    with stand_in() as comfyui:
        assert "No space left on device" in str(error_of(comfyui))


def test_who_waits_may_stop_waiting(stand_in: Callable[..., Any]) -> None:
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    with stand_in("--do", "/system_stats=500") as comfyui:
        with pytest.raises(JobCancelled):
            comfyui.ready(Deadline(cancelled))
        with pytest.raises(JobTimedOut):
            comfyui.ready(Deadline(timeout_s=0.2))


@pytest.mark.parametrize("args", [(), ("--do", "/system_stats=hang"), ("--do", "/prompt=hang")])
def test_ending_the_worker_waits_for_no_answer(
    stand_in: Callable[..., Any], args: tuple[str, ...]
) -> None:
    began = time.monotonic()
    with stand_in(*args) as comfyui:
        comfyui.start()
        time.sleep(1.0)
    assert time.monotonic() - began < 30, "an answer would take a minute"
    with pytest.raises(ComfyUIUnavailable, match="the worker is ending"):
        comfyui.ready(Deadline())


def test_a_kill_without_memory_is_named(
    stand_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 1\n")
    monkeypatch.setattr(process_module, "oom_kills", lambda: oom_kills(tmp_path))
    with stand_in("--do", "/system_stats=500") as comfyui:
        comfyui.start()
        assert eventually(lambda: bool(main_of(tmp_path)))
        events.write_text("oom_kill 2\n")
        main_of(tmp_path)[0].kill()
        error = error_of(comfyui)
        assert isinstance(error, OutOfMemory)
        assert "the machine's memory ran out while it was starting" in str(error)


def main_of(cwd: Path) -> list[psutil.Process]:
    """The stand-ins that run in a folder."""
    family = psutil.Process().children(recursive=True)
    return [
        process
        for process in family
        if process.cmdline()[1:2] == ["main.py"] and process.cwd() == str(cwd)
    ]


def test_a_crash_in_the_second_try_is_final(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = [OutOfMemory("no memory"), ComfyUIUnavailable("ComfyUI does not answer")]

    def execute(*_: object) -> None:
        raise ends.pop(0)

    monkeypatch.setattr(ComfyUIInstance, "_execute", execute)
    running = object.__new__(ComfyUIInstance)
    running._runaways = Runaways()
    running.process = SimpleNamespace(  # type: ignore[assignment]
        failure=lambda: None, version=ComfyUIVersion(respects_container_memory=True)
    )
    running.client = SimpleNamespace(free=lambda: None)  # type: ignore[assignment]
    with pytest.raises(ComfyUIUnavailable) as caught:
        running.execute({}, Deadline())
    assert not caught.value.try_again


class UninterruptibleExecution:
    """A prompt whose node 1 did not stop when its job was cancelled."""

    ran_away, running_node = True, "1"

    def __init__(self, *_: object) -> None:
        pass

    def run(self, *_: object) -> None:
        raise JobCancelled("the job was cancelled")


@pytest.mark.parametrize(
    ("node", "is_refused", "remedy"),
    [
        (core_nodes.node("CheckpointLoaderSimple", ckpt_name="a.safetensors"), False, "raise INT"),
        (core_nodes.node("RegexMatch", string="aaab", regex_pattern="(a+)+$"), True, "give the "),
    ],
)
def test_slow_loaders_are_never_refused(
    monkeypatch: pytest.MonkeyPatch, node: dict[str, Any], is_refused: bool, remedy: str
) -> None:
    monkeypatch.setattr(supervisor, "Execution", UninterruptibleExecution)
    running = object.__new__(ComfyUIInstance)
    running._runaways = Runaways()
    running.defs = core_nodes.DEFS
    running.client = running.events = None  # type: ignore[assignment]
    running._timeouts = running.history = None  # type: ignore[assignment]
    running.process = SimpleNamespace(  # type: ignore[assignment]
        version=ComfyUIVersion(respects_container_memory=True)
    )
    for _ in range(2):
        with pytest.raises(JobCancelled, match=remedy):
            running.execute({"1": node}, Deadline())
    with pytest.raises(WorkflowRefused if is_refused else JobCancelled):
        running.execute({"1": node}, Deadline())
