"""Percent by time, at most twice a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_worker.comfyui.events import Cached, Event, Executing, Preview, Progress
from comfy_worker.comfyui.node_times import NodeTime, NodeTimes, steps_of
from comfy_worker.comfyui.progress import INTERVAL_S, LAST_PERCENT, ProgressReport
from tests.core_nodes import DEFS, ksampler, node, second_stage, txt2img

# Events of the real ComfyUI with the tiny checkpoint at 30 steps: the first run loads the model.
RECORDED = json.loads(Path(__file__).with_name("progress_events.json").read_text())
MOST_POINTS = 15


class Followed:
    """A report, its clock, and what it told."""

    def __init__(self, times: NodeTimes | None = None, graph: Any = None) -> None:
        self.now_s = 100.0
        self.updates: list[dict[str, Any]] = []
        self.report = ProgressReport(self.updates.append, times, lambda: self.now_s)
        self.graph = graph or txt2img()
        self.report.begin(self.graph, DEFS)

    def follow(self, event: Any, after_s: float = INTERVAL_S) -> dict[str, Any] | None:
        self.now_s += after_s
        before = len(self.updates)
        self.report.follow(event)
        return self.updates[-1] if len(self.updates) > before else None


def recorded_event(name: str, values: dict[str, Any]) -> Event | None:
    if name == "Cached":
        return Cached("p", tuple(values["nodes"]))
    if name == "Executing":
        return Executing("p", values["node_id"])
    if name == "Progress":
        return Progress("p", values["node_id"], values["value"], values["maximum"])
    return None


def largest_gap(run: dict[str, Any], times: NodeTimes) -> float:
    """Play a recorded run; return the most points between the share of time and percent."""
    followed = Followed(times, run["workflow"])
    events = [(at, recorded_event(name, values)) for at, name, values in run["events"]]
    began_s = next(at for at, event in events if isinstance(event, Executing))
    end_s = events[-1][0]
    start_s = followed.now_s
    gap = 0.0
    for at_s, event in events:
        followed.now_s = start_s + at_s
        followed.report._next_s = 0.0  # so that the figure at each event is seen
        latest = followed.follow(event, after_s=0.0)
        if latest is not None and at_s >= began_s:
            share = 100 * (at_s - began_s) / (end_s - began_s)
            gap = max(gap, abs(share - latest["percent"]))
    percents = [update["percent"] for update in followed.updates]
    assert percents == sorted(percents)
    followed.report.finish()
    return gap


def test_percent_follows_the_time_of_known_workflows() -> None:
    times = NodeTimes()
    gaps = [largest_gap(run, times) for run in RECORDED]
    # The first run is guessed, loads the model, and its steps took 0.3 to 6 s on a busy machine.
    assert gaps[0] < 2 * MOST_POINTS
    assert max(gaps[1:]) < MOST_POINTS, gaps
    assert largest_gap(RECORDED[-1], NodeTimes()) < MOST_POINTS


def test_steps_and_seconds_left_are_told() -> None:
    followed = Followed()
    others = [node_id for node_id in followed.graph if node_id != "sampler"]
    followed.follow(Cached("p", tuple(others[:-2])))
    first = followed.follow(Executing("p", "sampler")) or {}
    assert (first["percent"], first["message"], first["node"]) == (0, "KSampler", "KSampler")
    assert "eta_s" not in first  # nothing was measured yet
    followed.follow(Progress("p", "sampler", 1, 10), after_s=2.0)
    half = followed.follow(Progress("p", "sampler", 5, 10), after_s=8.0) or {}
    assert (half["step"], half["steps"]) == (5, 10)
    assert half["message"] == "KSampler: step 5 of 10"
    assert half["eta_s"] == pytest.approx(10, abs=5)
    assert half["percent"] == pytest.approx(50, abs=15)
    last = followed.follow(Progress("p", "sampler", 10, 10), after_s=10.0) or {}
    assert 80 < last["percent"] <= LAST_PERCENT


def test_time_alone_moves_percent_never_back() -> None:
    times = NodeTimes()
    graph = txt2img()
    times.learn(graph, {node_id: NodeTime(5.0) for node_id in graph})
    followed = Followed(times, graph)
    followed.follow(Executing("p", "loader"))
    for _ in range(200):
        followed.follow(None)
    percents = [update["percent"] for update in followed.updates]
    assert len(set(percents)) > 5
    assert percents == sorted(percents)
    assert percents[-1] <= LAST_PERCENT
    assert all(update["eta_s"] > 0 for update in followed.updates)


def test_an_unneeded_node_does_not_count() -> None:
    followed = Followed()
    followed.graph["99"] = node("LoadImage", image="a.png")
    followed.report.begin(followed.graph, DEFS)
    needed = [node_id for node_id in followed.graph if node_id != "99"]
    followed.follow(Cached("p", tuple(needed[:-1])))
    followed.follow(Executing("p", needed[-1]))
    assert (followed.follow(None, after_s=60) or {})["percent"] == LAST_PERCENT


def test_reports_are_throttled_and_newest() -> None:
    followed = Followed()
    assert followed.follow(Executing("p", "sampler"))
    for step in range(1, 5):
        assert followed.follow(Progress("p", "sampler", step, 10), after_s=0.1) is None
    update = followed.follow(None, after_s=0.11)
    assert update is not None
    assert update["step"] == 4


def test_a_small_preview_is_told_once() -> None:
    followed = Followed()
    followed.follow(Executing("p", "sampler"))
    update = followed.follow(Preview("p", "image/jpeg", b"\xff\xd8\xff"))
    assert update is not None
    assert update["preview"] == "data:image/jpeg;base64,/9j/"
    assert "preview" not in (followed.follow(Progress("p", "sampler", 1, 2)) or {})


def test_events_before_the_graph_are_immediate() -> None:
    followed = Followed()
    followed.report.say("starting ComfyUI")
    assert followed.updates == [{"percent": 0, "message": "starting ComfyUI"}]
    assert followed.follow(Executing("p", "sampler"), after_s=0.1) is None


def test_times_are_kept_between_workers(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "times.json"
    graph = txt2img()
    NodeTimes(path).learn(graph, {"sampler": NodeTime(1.0, 0.5, 20, 0.1), "loader": NodeTime(4.0)})
    again = NodeTimes(path)
    assert again.expected(graph)("loader").total_s == 4.0
    longer = txt2img(sampler=ksampler(steps=40))
    assert again.expected(longer)("sampler").total_s == pytest.approx(1.0 + 40 * 0.5 + 0.1)
    # Another workflow has nodes of the same classes.
    other = txt2img(second=second_stage())
    assert again.expected(other)("second").step_s == 0.5
    assert again.expected(other)("second").steps == 10
    for text in ("{", "[]", '{"classes": {"A": {"x": 1}}, "workflows": {}}'):
        path.write_text(text)
        assert not NodeTimes(path).expected(graph)("loader").is_known
    (tmp_path / "file").touch()
    NodeTimes(tmp_path / "file" / "times.json").learn(graph, {"loader": NodeTime(1.0)})


def test_runs_of_the_same_values_count_more() -> None:
    times = NodeTimes()
    graph, longer = txt2img(), txt2img(sampler=ksampler(steps=40))
    for workflow, seconds in ((graph, 1.0), (longer, 5.0)):
        times.learn(workflow, {"loader": NodeTime(seconds)})
    assert times.expected(graph)("loader").total_s == 1.0
    assert times.expected(longer)("loader").total_s == 5.0
    another = times.expected(txt2img(sampler=ksampler(steps=30)))("loader").total_s
    assert another == pytest.approx(4.0)  # mostly the last run


@pytest.mark.parametrize(
    ("graph", "steps"),
    [
        (txt2img(), 20),
        (txt2img(sampler=ksampler(steps=["loader", 0])), 0),
        (txt2img(sampler=node("KSamplerAdvanced", steps=20, start_at_step=5, end_at_step=15)), 10),
        (
            txt2img(sampler=node("KSamplerAdvanced", steps=20, start_at_step=5, end_at_step=1000)),
            15,
        ),
        (
            txt2img(
                sampler=node("SamplerCustomAdvanced", sigmas=["sigmas", 0]),
                sigmas=node("BasicScheduler", steps=12),
            ),
            12,
        ),
    ],
)
def test_steps_are_read_from_the_graph(graph: Any, steps: int) -> None:
    assert steps_of(graph, "sampler") == steps
    assert steps_of(graph, "loader") == 0
