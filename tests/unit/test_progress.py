"""Percent over the whole graph, at most twice a second."""

from __future__ import annotations

from typing import Any

from comfy_worker.comfyui.events import Cached, Executing, Preview, Progress
from comfy_worker.comfyui.progress import INTERVAL_S, ProgressReport
from tests.core_nodes import DEFS, node, txt2img


class Followed:
    """A report, its clock, and what it told."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.told: list[dict[str, Any]] = []
        self.report = ProgressReport(self.told.append, lambda: self.now_s)
        self.graph = txt2img()
        self.report.begin(self.graph, DEFS)

    def follow(self, event: Any, after_s: float = INTERVAL_S) -> dict[str, Any] | None:
        self.now_s += after_s
        before = len(self.told)
        self.report.follow(event)
        return self.told[-1] if len(self.told) > before else None


def test_steps_count_within_the_node_and_nodes_alike() -> None:
    followed = Followed()
    nodes = list(followed.graph)
    others = [node_id for node_id in nodes if node_id != "sampler"]
    followed.follow(Cached("p", tuple(others[:2])))
    first = followed.follow(Executing("p", "sampler"))
    assert first == {
        "percent": int(100 * 2 / len(nodes)),
        "message": "KSampler",
        "node_id": "sampler",
        "node": "KSampler",
    }
    half = followed.follow(Progress("p", "sampler", 5, 10))
    assert half is not None
    assert (half["percent"], half["step"], half["steps"]) == (int(100 * 2.5 / len(nodes)), 5, 10)
    assert half["message"] == "KSampler: step 5 of 10"
    for node_id in others[2:]:
        followed.follow(Executing("p", node_id))
    percents = [update["percent"] for update in followed.told]
    assert percents == sorted(percents)
    assert percents[-1] == int(100 * (len(nodes) - 1) / len(nodes))


def test_an_unneeded_node_does_not_count() -> None:
    followed = Followed()
    followed.graph["99"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    followed.report.begin(followed.graph, DEFS)
    needed = [node_id for node_id in followed.graph if node_id != "99"]
    followed.follow(Cached("p", tuple(needed[:-1])))
    assert (followed.follow(Executing("p", needed[-1])) or {})["percent"] == int(
        100 * (1 - 1 / len(needed))
    )


def test_reports_are_throttled_and_newest() -> None:
    followed = Followed()
    assert followed.follow(Executing("p", "sampler"))
    for step in range(1, 5):
        assert followed.follow(Progress("p", "sampler", step, 10), after_s=0.1) is None
    told = followed.follow(None, after_s=0.11)
    assert told is not None
    assert told["step"] == 4
    assert followed.follow(None) is None


def test_a_small_preview_is_told_once() -> None:
    followed = Followed()
    followed.follow(Executing("p", "sampler"))
    told = followed.follow(Preview("p", "image/jpeg", b"\xff\xd8\xff"))
    assert told is not None
    assert told["preview"] == "data:image/jpeg;base64,/9j/"
    assert "preview" not in (followed.follow(Progress("p", "sampler", 1, 2)) or {})
    assert followed.follow(Preview("p", "image/png", b"x" * 200_000)) is None


def test_events_before_the_graph_are_immediate() -> None:
    followed = Followed()
    followed.report.say("starting ComfyUI")
    assert followed.told == [{"percent": 0, "message": "starting ComfyUI"}]
    assert followed.follow(Executing("p", "sampler"), after_s=0.1) is None
