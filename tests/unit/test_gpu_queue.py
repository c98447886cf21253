"""The clocks of jobs that wait for another job of the same worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from comfy_worker.comfyui.events import Disconnected, Executing
from comfy_worker.comfyui.gpu_queue import GpuQueue
from comfy_worker.comfyui.gpu_turns import GpuTurns
from comfy_worker.deadline import Deadline
from comfy_worker.errors import JobTimedOut
from tests.graphs import node


class Clock:
    """Stands in for ``time.monotonic``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    yield clock
    monkeypatch.undo()


def nothing() -> None:
    """Releases nobody."""


def test_first_job_is_told_apart() -> None:
    queue = GpuQueue()
    with queue.entered(Deadline()) as first, queue.entered(Deadline()) as second:
        assert (first.is_first, second.is_first) == (True, False)
    with queue.entered(Deadline()) as third:
        assert third.is_first


def test_two_long_jobs_keep_their_time(clock: Clock) -> None:
    queue = GpuQueue()
    deadlines = [Deadline(timeout_s=108) for _ in range(2)]  # a policy of 120 s less its margin
    with ExitStack() as first, ExitStack() as second:
        running = first.enter_context(queue.entered(deadlines[0]))
        waiting = second.enter_context(queue.entered(deadlines[1]))
        running.note_start()
        clock.now += 70
        deadlines[1].check()
        first.close()
        waiting.note_start()
        assert deadlines[1].left_s == pytest.approx(108)
        clock.now += 70
        deadlines[1].check()
        clock.now += 39
        with pytest.raises(JobTimedOut):
            deadlines[1].check()


def test_running_job_keeps_no_time(clock: Clock) -> None:
    queue = GpuQueue()
    deadline = Deadline(timeout_s=10)
    with queue.entered(deadline) as job, queue.entered(Deadline()):
        job.note_start()
        clock.now += 11
        assert deadline.is_due


def test_whole_time_of_waiting_ends_job(clock: Clock) -> None:
    queue = GpuQueue()
    waiting = Deadline(timeout_s=10)
    with queue.entered(Deadline()) as running, queue.entered(waiting):
        running.note_start()
        clock.now += 11
        with pytest.raises(JobTimedOut):
            waiting.check()


def test_job_that_overtakes_stops_the_other_clock(clock: Clock) -> None:
    queue = GpuQueue()
    overtaken = Deadline(timeout_s=10)
    with queue.entered(overtaken) as first:
        with queue.entered(Deadline()) as second:
            second.note_start()
            clock.now += 5
        assert overtaken.left_s == pytest.approx(10)
        first.note_start()
        clock.now += 11
        assert overtaken.is_due


def test_time_of_preparation_counts(clock: Clock) -> None:
    queue = GpuQueue()
    deadline = Deadline(timeout_s=10)
    clock.now += 4
    with queue.entered(Deadline()), queue.entered(deadline):
        clock.now += 3
    assert deadline.left_s == pytest.approx(6)


def test_events_start_the_clock(clock: Clock) -> None:
    turns = GpuTurns(prefetch_s=2)
    graph = {"1": node("KSampler")}
    deadline = Deadline(timeout_s=10)
    with turns.taken(graph, Deadline(), nothing), turns.taken(graph, deadline, nothing) as turn:
        turn.follow(Disconnected("p"))
        clock.now += 5
        turn.follow(Executing("p", "1"))
        assert deadline.left_s == pytest.approx(10)
        clock.now += 11
        assert deadline.is_due
