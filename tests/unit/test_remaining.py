"""How long a workflow will still run, as far as that is known."""

from __future__ import annotations

import math

import pytest

from comfy_worker.comfyui.events import Cached, Event, Executing, Failed, Finished, Progress
from comfy_worker.comfyui.remaining import DurationMemory, RemainingTime
from tests.graphs import node


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def graph(steps: int = 20, seed: int = 1) -> dict[str, object]:
    return {
        "sample": node("KSampler", steps=steps, seed=seed),
        "decode": node("VAEDecode", samples=["sample", 0]),
    }


def follow(estimate: RemainingTime, clock: Clock, *events: tuple[float, Event]) -> None:
    for at, event in events:
        clock.now = at
        estimate.follow(event)


def run(memory: DurationMemory, seconds: float, **inputs: int) -> None:
    """One run of the graph, of which the last second decodes."""
    clock = Clock()
    estimate = RemainingTime(graph(**inputs), memory, clock)
    follow(
        estimate,
        clock,
        (0.0, Executing("p", "sample")),
        (0.5, Progress("p", "sample", 1, 20)),
        (seconds - 1, Executing("p", "decode")),
        (seconds, Finished("p")),
    )


def test_nothing_is_known_before_it_runs() -> None:
    memory = DurationMemory()
    run(memory, 1.5)
    estimate = RemainingTime(graph(), memory)
    assert estimate.seconds() == math.inf
    assert estimate.whole_s == pytest.approx(1.5)


def test_a_first_run_counts_as_endless() -> None:
    clock = Clock()
    estimate = RemainingTime(graph(), DurationMemory(), clock)
    follow(estimate, clock, (0.0, Executing("p", "sample")))
    for step in range(1, 21):
        follow(estimate, clock, (step * 1.0, Progress("p", "sample", step, 20)))
        assert estimate.seconds() == math.inf, "how long the decoder takes is not known"


def test_steps_tell_the_rest_of_a_sampler() -> None:
    memory, clock = DurationMemory(), Clock()
    run(memory, 30.0)
    estimate = RemainingTime(graph(steps=50), memory, clock)
    follow(estimate, clock, (0.0, Executing("p", "sample")))
    for step in range(1, 41):
        follow(estimate, clock, (step * 2.0, Progress("p", "sample", step, 50)))
    assert estimate.seconds() == pytest.approx(10 * 2.0 + 1.0)


def test_a_second_sampler_may_take_any_time() -> None:
    memory, clock = DurationMemory(), Clock()
    run(memory, 3.0)
    two = {**graph(steps=21), "again": node("KSampler", steps=99)}
    estimate = RemainingTime(two, memory, clock)
    follow(estimate, clock, (0.0, Executing("p", "sample")))
    follow(
        estimate,
        clock,
        (1.0, Progress("p", "sample", 1, 21)),
        (2.0, Progress("p", "sample", 20, 21)),
    )
    assert estimate.seconds() == math.inf
    follow(estimate, clock, (2.0, Cached("p", ("again",))))
    assert estimate.seconds() < 2


def test_the_same_workflow_takes_as_long_again() -> None:
    memory, clock = DurationMemory(), Clock()
    run(memory, 9.0)
    estimate = RemainingTime(graph(seed=7), memory, clock)
    follow(estimate, clock, (100.0, Executing("p", "sample")))
    clock.now = 108.0
    assert estimate.seconds() == pytest.approx(1.0)
    clock.now = 110.0
    assert estimate.seconds() == math.inf, "it takes longer than it ever did"


def test_other_steps_are_another_workflow() -> None:
    memory, clock = DurationMemory(), Clock()
    run(memory, 1.5, steps=1)
    estimate = RemainingTime(graph(steps=1000), memory, clock)
    follow(estimate, clock, (0.0, Executing("p", "sample")))
    assert estimate.seconds() == math.inf


def test_a_failed_run_tells_nothing() -> None:
    memory, clock = DurationMemory(), Clock()
    estimate = RemainingTime(graph(), memory, clock)
    failed = Failed("p", "sample", "KSampler", "RuntimeError", "x", ())
    follow(estimate, clock, (0.0, Executing("p", "sample")), (0.1, failed), (0.2, Finished("p")))
    again = RemainingTime(graph(), memory, clock)
    follow(again, clock, (1.0, Executing("p", "sample")))
    assert again.seconds() == math.inf


def test_a_workflow_that_reads_files_is_not_remembered() -> None:
    memory, clock = DurationMemory(), Clock()
    loads = {"load": node("LoadVideo", file="a.mp4")}
    for seconds in (0.1, 0.2):
        estimate = RemainingTime(loads, memory, clock)
        follow(estimate, clock, (0.0, Executing("p", "load")))
        if seconds == 0.1:
            follow(estimate, clock, (seconds, Finished("p")))
    clock.now = 5.0
    assert estimate.seconds() == math.inf
