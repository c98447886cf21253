"""Estimates how much time of one run is over and how much is left, from the events of its nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from comfy_worker.comfyui.node_times import NodeTime, NodeTimes
from comfy_worker.workflow.graph import Workflow

__all__ = ["RunEstimate"]

# A node that runs longer than expected still needs this share of what it was expected to need.
LEAST_LEFT = 0.05
# This run may be faster or slower than earlier ones: other sizes, a busy machine.
FASTEST, SLOWEST = 0.02, 50.0


@dataclass
class _Running:
    """The node that runs now."""

    node_id: str
    began_s: float
    expected: NodeTime
    first_step_s: float = 0.0
    last_step_s: float = 0.0
    first_step: int = 0
    step: int = 0

    def step_s(self) -> float | None:
        """The measured time of a step; None before the second one."""
        done = self.step - self.first_step
        return (self.last_step_s - self.first_step_s) / done if done > 0 else None

    def left_s(self, now_s: float) -> float:
        """About how long it still runs."""
        expected = self.expected
        if not self.step:
            left_s = expected.total_s - (now_s - self.began_s)
            return max(left_s, LEAST_LEFT * expected.total_s, expected.step_s * expected.steps)
        step_s = self.step_s()
        if step_s is None:
            step_s = expected.step_s
            if not expected.is_known:
                step_s = self.first_step_s - self.began_s
        steps_left = max(0, expected.steps - self.step)
        since_step_s = min(now_s - self.last_step_s, step_s)
        return max(0.0, steps_left * step_s - since_step_s) + expected.tail_s

    def done_s(self, now_s: float) -> float:
        """How much of its expected time is over. A slow node does not count for more."""
        expected = self.expected
        if self.step:
            return expected.lead_s + expected.step_s * self.step
        return min(now_s - self.began_s, expected.lead_s)

    def measured(self, now_s: float) -> NodeTime:
        """How long it took, if it ends now."""
        step_s = self.step_s()
        if step_s is None:
            return NodeTime(now_s - self.began_s)
        lead_s = max(0.0, self.first_step_s - self.began_s - step_s * self.first_step)
        return NodeTime(lead_s, step_s, self.expected.steps, now_s - self.last_step_s)


class RunEstimate:
    """The time of one run. All times are of one clock that never goes back, in seconds.

    Args:
        workflow: what runs.
        needed: the nodes that an output needs.
        times: how long nodes ran before.
    """

    def __init__(self, workflow: Workflow, needed: set[str], times: NodeTimes) -> None:
        self._workflow = workflow
        self._times = times
        self._expected = times.expected(workflow)
        self._waiting = {node_id: self._expected(node_id) for node_id in needed}
        self._running: _Running | None = None
        self._began_s: float | None = None
        # The steps of this run, as a multiple of the steps that were expected.
        self._pace = 1.0
        self._has_pace = False
        self._done_s = 0.0  # the expected time of the nodes that have ended
        self.measured: dict[str, NodeTime] = {}

    def skip(self, node_ids: set[str]) -> None:
        """Note that nodes do not run, since their outputs are cached."""
        for node_id in node_ids:
            self._waiting.pop(node_id, None)

    def start_node(self, node_id: str, now_s: float) -> None:
        """Note that a node runs now, so the one before has ended."""
        self._end_running(now_s)
        if self._began_s is None:
            self._began_s = now_s
        expected = self._waiting.pop(node_id, None)
        expected = expected or self._expected(node_id)
        self._running = _Running(node_id, now_s, self._paced(expected))

    def note_step(self, step: int, steps: int, now_s: float) -> None:
        """Note that the node that runs has finished a step."""
        running = self._running
        if running is None or step <= running.step:
            return
        if not running.step:
            running.first_step, running.first_step_s = step, now_s
        running.step, running.last_step_s = step, now_s
        running.expected = replace(running.expected, steps=steps)
        step_s = running.step_s()
        unpaced = self._expected(running.node_id)
        if step_s is not None and unpaced.step_s > 0:
            self._pace = min(max(step_s / unpaced.step_s, FASTEST), SLOWEST)
            self._has_pace = True

    def finish(self, now_s: float) -> None:
        """Note that the run has ended well, and learn its times."""
        self._end_running(now_s)
        if self.measured:
            self._times.learn(self._workflow, self.measured)

    def left_s(self, now_s: float) -> float:
        """About how many seconds are left."""
        left_s = sum(self._paced(expected).total_s for expected in self._waiting.values())
        return left_s + (self._running.left_s(now_s) if self._running else 0.0)

    def is_grounded(self) -> bool:
        """Whether the estimate rests on measurements, so that a person may see its seconds."""
        if self._has_pace:
            return True
        running = [self._running.expected] if self._running else []
        expected = [
            time for time in (*self._waiting.values(), *running) if time.total_s > LEAST_LEFT
        ]
        return bool(expected) and all(time.is_known for time in expected)

    def fraction(self, now_s: float) -> float:
        """Which share of the run's time is over, 0..1."""
        if self._began_s is None:
            return 0.0
        elapsed_s = max(0.0, now_s - self._began_s)
        total_s = elapsed_s + self.left_s(now_s)
        of_time = elapsed_s / total_s if total_s > 0 else 0.0
        if self._has_pace:
            return of_time
        # All of the run may be slower than expected. A share that is too small can be corrected
        # later, one that is too large cannot.
        running_s = self._running.done_s(now_s) if self._running else 0.0
        rest_s = sum(expected.total_s for expected in self._waiting.values())
        rest_s += self._running.expected.total_s if self._running else 0.0
        all_s = self._done_s + rest_s
        return min(of_time, (self._done_s + running_s) / all_s) if all_s > 0 else of_time

    def _paced(self, expected: NodeTime) -> NodeTime:
        """Fit a guess, or an earlier run's time, to the pace of this run."""
        if not self._has_pace:
            return expected
        return replace(
            expected,
            lead_s=expected.lead_s * self._pace,
            step_s=expected.step_s * self._pace,
            tail_s=expected.tail_s * self._pace,
        )

    def _end_running(self, now_s: float) -> None:
        if self._running is not None:
            self.measured[self._running.node_id] = self._running.measured(now_s)
            self._done_s += self._running.expected.total_s
        self._running = None
