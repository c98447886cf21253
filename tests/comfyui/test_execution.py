"""One prompt on the real ComfyUI: its outputs, its errors, its end, and that nothing of it stays."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from comfy_worker.comfyui.events import Event, Progress
from comfy_worker.comfyui.execution import Execution, Timeouts
from comfy_worker.deadline import Deadline
from comfy_worker.errors import ExecutionFailed, JobCancelled, WorkflowRefused
from tests.comfyui.conftest import RealComfyUI
from tests.graphs import txt2img

pytestmark = pytest.mark.comfyui


def wait_until(look: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 120
    while not look():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.05)


def nothing_left(comfyui: RealComfyUI) -> bool:
    client = comfyui.running.client
    comfyui.running.history.settle(Deadline(timeout_s=60))
    return (
        client.get_queue() == {"queue_running": [], "queue_pending": []}
        and client.get_history_ids() == []
    )


def test_a_seed_makes_its_own_pixels_each_time(comfyui: RealComfyUI) -> None:
    pictures = [comfyui.images(txt2img(seed=seed))[0].tobytes() for seed in (1, 1, 2)]
    assert pictures[0] == pictures[1] != pictures[2]
    assert nothing_left(comfyui)


def test_a_prompt_makes_its_own_pixels(comfyui: RealComfyUI) -> None:
    pictures = [
        comfyui.images(txt2img(prompt=prompt))[0].tobytes()
        for prompt in ("a fox", "a harbour at night")
    ]
    assert pictures[0] != pictures[1]


def test_each_node_that_ran_has_its_time(comfyui: RealComfyUI) -> None:
    result = comfyui.running.execute(txt2img(seed=11), Deadline())
    assert result.node_ms["sampler"] > 0
    assert set(result.outputs) == {"save"}


@pytest.mark.parametrize(
    ("changes", "sentence", "finding"),
    [
        (
            {"sampler": {"steps": 0}},
            "Value 0 smaller than min of 1",
            {"node_id": "sampler", "type": "value_smaller_than_min", "input": "steps", "given": 0},
        ),
        (
            {"loader": {"ckpt_name": "absent.safetensors"}},
            "Value not in list",
            {"node_id": "loader", "type": "value_not_in_list", "given": "absent.safetensors"},
        ),
    ],
)
def test_a_refusal_names_node_and_input(
    comfyui: RealComfyUI, changes: dict[str, Any], sentence: str, finding: dict[str, Any]
) -> None:
    with pytest.raises(WorkflowRefused) as caught:
        comfyui.images(txt2img(**changes))
    assert sentence in str(caught.value)
    assert finding.items() <= caught.value.details[0].items()
    assert nothing_left(comfyui)


def test_an_unknown_class_is_told(comfyui: RealComfyUI) -> None:
    with pytest.raises(WorkflowRefused, match="Nowhere") as caught:
        comfyui.images({**txt2img(), "x": {"class_type": "Nowhere", "inputs": {}}})
    (finding,) = caught.value.details
    assert (finding["type"], finding["node_id"]) == ("missing_node_type", "x")
    assert (finding["class_type"], finding["title"]) == ("Nowhere", "Nowhere")


def test_a_branch_that_comfyui_would_drop_is_refused(comfyui: RealComfyUI) -> None:
    graph = txt2img(seed=12)
    graph["bad"] = {"class_type": "SaveImage", "inputs": {"images": ["decode", 0]}}
    with pytest.raises(WorkflowRefused) as caught:
        comfyui.images(graph)
    assert caught.value.details[0]["type"] == "required_input_missing"
    assert nothing_left(comfyui)


def test_a_node_that_raises_is_named(comfyui: RealComfyUI) -> None:
    (comfyui.input_dir / "broken.png").write_bytes(b"no picture")
    graph = {
        "image": {"class_type": "LoadImage", "inputs": {"image": "broken.png"}},
        "save": {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}},
    }
    with pytest.raises(ExecutionFailed, match=r"node image \(LoadImage\) failed with") as caught:
        comfyui.images(graph)
    assert caught.value.details[0]["class_type"] == "LoadImage"
    assert nothing_left(comfyui)


@contextmanager
def running_prompt(comfyui: RealComfyUI, seed: int) -> Iterator[threading.Event]:
    """A prompt that would run for minutes and runs now; the event cancels it, at the latest after the block."""
    cancelled, samples = threading.Event(), threading.Event()

    def follow(event: Event | None) -> None:
        if isinstance(event, Progress):
            samples.set()

    def run() -> None:
        graph = txt2img(seed=seed, sampler={"steps": 10_000})
        comfyui.running.execute(graph, Deadline(cancelled), on_event=follow)

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(run)
        try:
            assert samples.wait(120)
            yield cancelled
        finally:
            cancelled.set()
        with pytest.raises(JobCancelled):
            work.result(60)


def test_a_running_prompt_ends_after_a_cancel(comfyui: RealComfyUI) -> None:
    with running_prompt(comfyui, seed=13) as cancelled:
        cancelled.set()
    assert nothing_left(comfyui)


def test_a_pending_prompt_leaves_the_queue(comfyui: RealComfyUI) -> None:
    with running_prompt(comfyui, seed=14):
        cancelled = threading.Event()

        def cancel_when_pending(_event: Event | None) -> None:
            if comfyui.running.client.get_queue()["queue_pending"]:
                cancelled.set()

        with pytest.raises(JobCancelled):
            comfyui.running.execute(
                txt2img(seed=15), Deadline(cancelled), on_event=cancel_when_pending
            )
        queue = comfyui.running.client.get_queue()
        assert (len(queue["queue_running"]), queue["queue_pending"]) == (1, []), (
            "the first one goes on"
        )
    assert nothing_left(comfyui)


def test_a_broken_socket_loses_no_result(comfyui: RealComfyUI) -> None:
    running = comfyui.running
    breaks: list[Event] = []

    def break_at_first_step(event: Event | None) -> None:
        if isinstance(event, Progress) and not breaks:
            breaks.append(event)
            running.events.break_connection()

    graph = txt2img(seed=16, sampler={"steps": 6})
    result = running.execute(graph, Deadline(), on_event=break_at_first_step)
    assert breaks
    assert result.outputs["save"]["images"]
    assert nothing_left(comfyui)
    again = running.execute(txt2img(seed=17), Deadline())
    assert again.node_ms["sampler"] > 0, "events are heard again after the reconnect"


def test_a_deaf_socket_loses_no_error(comfyui: RealComfyUI) -> None:
    running = comfyui.running
    (comfyui.input_dir / "broken.png").write_bytes(b"no picture either")
    graph = {
        "image": {"class_type": "LoadImage", "inputs": {"image": "broken.png"}},
        "save": {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}},
    }
    deaf = Execution(running.client, running.events, running.process, Timeouts(), running.history)
    running.events.break_connection()
    with pytest.raises(ExecutionFailed, match="LoadImage"):
        deaf.run(graph, Deadline())


def test_an_early_cancel_is_not_forgotten(comfyui: RealComfyUI) -> None:
    """The prompt has left the queue, but its first node has not begun."""
    running = comfyui.running
    if running.process.version.has_cancel_route:
        pytest.skip("this ComfyUI has the route, and forgets such a cancel")
    url = running.process.base_url
    with requests.Session() as session:  # a new connection for each request would be too slow
        for seed in range(5):
            prompt_id = str(uuid.uuid4())
            long = txt2img(seed=seed)
            long["sampler"]["inputs"]["steps"] = 10_000
            session.post(f"{url}/prompt", json={"prompt": long, "prompt_id": prompt_id})
            while not session.get(f"{url}/queue").json()["queue_running"]:
                pass
            session.post(f"{url}/api/jobs/{prompt_id}/cancel")
            wait_until(lambda: not running.client.get_queue()["queue_running"])
            running.client.delete_history([prompt_id])


@pytest.mark.parametrize("state", ["running", "pending", "unknown"])
def test_clients_of_comfyui_cancel_by_id(comfyui: RealComfyUI, state: str) -> None:
    client = comfyui.running.client
    url = comfyui.running.process.base_url
    long = txt2img(seed=5)
    long["sampler"]["inputs"]["steps"] = 10_000
    count = {"running": 1, "pending": 2, "unknown": 0}[state]
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for prompt_id in ids:
        body = {"prompt": long, "prompt_id": prompt_id}
        assert requests.post(f"{url}/prompt", json=body, timeout=30).status_code == 200
    if ids:
        wait_until(lambda: any(row[1] == ids[0] for row in client.get_queue()["queue_running"]))
    try:
        target = ids[-1] if ids else str(uuid.uuid4())
        answer = requests.post(f"{url}/api/jobs/{target}/cancel", timeout=30).json()
        assert answer == {"cancelled": bool(ids)}
        if state == "pending":
            assert [row[1] for row in client.get_queue()["queue_running"]] == ids[:1]
    finally:
        for prompt_id in ids:
            requests.post(f"{url}/api/jobs/{prompt_id}/cancel", timeout=30)
        wait_until(lambda: not client.get_queue()["queue_running"])
        client.delete_history(ids)
