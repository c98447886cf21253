"""The run of one template before the first job, and what ``/ping`` says meanwhile."""

from __future__ import annotations

import base64
import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from comfy_worker import health
from comfy_worker.health import HealthServer, serve_health
from comfy_worker.planning.templates import Templates
from comfy_worker.startup import StartTimes
from comfy_worker.warm_up import PICTURE, WarmUp
from tests.graphs import node


class Runner:
    """Answers jobs as a test says, and keeps their inputs."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.inputs: list[dict[str, Any]] = []

    def run(self, envelope: dict[str, Any], _cancelled: Any, send: Any) -> Any:
        self.inputs.append(envelope["input"])
        send({"percent": 0, "message": "starting ComfyUI"})
        return self.answers.pop(0)


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    (tmp_path / "edit.json").write_text(json.dumps({"1": node("SaveImage")}))
    (tmp_path / "edit.params.json").write_text(json.dumps({"required": ["image"]}))
    (tmp_path / "video.json").write_text(json.dumps({"1": node("SaveVideo")}))
    (tmp_path / "odd.json").write_text(json.dumps({"1": node("X", seed=1)}))
    odd = {"required": ["seed"]}
    (tmp_path / "odd.params.json").write_text(json.dumps(odd))
    return Templates([tmp_path])


def warm_up(name: str, templates: Templates, runner: Any) -> bool:
    return WarmUp(name, templates, runner, None).run()


def test_template_runs_once_and_small(templates: Templates) -> None:
    parameters = {"width": 1024, "height": 128, "steps": 20, "length": 81, "prompt": "x"}
    runner = Runner({"parameters": parameters}, {"images": []})
    assert warm_up("video", templates, runner)
    checked, run = runner.inputs
    assert checked["validate_only"]
    assert "validate_only" not in run
    assert (run["width"], run["steps"], run["length"]) == (256, 1, 1)
    assert not {"height", "prompt", "batch_size"} & run.keys()
    assert run["output"] == {"delivery": "base64"}


def test_required_picture_is_sent_along(templates: Templates) -> None:
    runner = Runner({"parameters": {}}, {"images": []})
    assert warm_up("edit", templates, runner)
    assert runner.inputs[1]["image"] == PICTURE
    assert Image.open(io.BytesIO(base64.b64decode(PICTURE))).size == (256, 256)


@pytest.mark.parametrize("name", ["absent", "odd"])
def test_template_that_cannot_run_is_logged(templates: Templates, name: str) -> None:
    runner = Runner()
    assert not warm_up(name, templates, runner)
    assert runner.inputs == []


def test_error_ends_the_warm_up(templates: Templates) -> None:
    assert not warm_up("video", templates, Runner({"error": "MODEL_NOT_FOUND: x"}))
    answers = ({"parameters": {}}, {"error": "OUT_OF_MEMORY: x", "refresh_worker": True})
    assert not warm_up("video", templates, Runner(*answers))


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> StartTimes:
    times = StartTimes(0.0)
    monkeypatch.setattr(health, "start_times", times)
    return times


def test_ping_says_how_far_the_start_is(times: StartTimes) -> None:
    server = HealthServer(0, lambda: times.has("ComfyUI ready"))
    server.start()
    url = f"http://127.0.0.1:{server.port}/ping"
    try:
        times.say("warming up with x: 1.0 of 6.9 GB\r\nX-Evil: 1")
        answer = requests.get(url, timeout=10)
        assert answer.status_code == 204
        assert answer.headers["X-Worker-State"].startswith("warming up with x: 1.0 of 6.9 GB")
        assert "X-Evil" not in answer.headers
        times.mark("ComfyUI ready")
        answer = requests.get(url, timeout=10)
        assert answer.status_code == 200
        assert answer.json()["state"] == "ready"
        assert "ComfyUI ready" in answer.json()["seconds"]
        assert requests.get(f"{url}s", timeout=10).status_code == 404
    finally:
        server.close()


def test_port_in_use_is_only_logged(times: StartTimes) -> None:
    with socket.create_server(("", 0)) as taken:
        serve_health(taken.getsockname()[1], is_warmed_up=True)
