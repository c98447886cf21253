"""Where one prompt is on its way through ComfyUI, and when it last gave a sign of life."""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["STEPS", "NodeTimer", "PromptState", "SignsOfLife", "Stage"]

# How often ComfyUI is asked for the prompt once its events no longer arrive.
HISTORY_POLL_S = 1.0
# A silence after which ComfyUI is asked although the socket seems to work.
SILENCE_S = 10.0


class Stage(Enum):
    """Where a prompt is."""

    QUEUED = auto()
    """Other prompts come first."""
    NEXT = auto()
    """It waits, although no prompt runs: ComfyUI should take it up at once."""
    RUNNING = auto()
    """It left the queue."""
    MISSING = auto()
    """ComfyUI has it neither in its queue nor in its history."""
    FINISHED = auto()
    """It ended, well or not, and left the queue."""
    ABANDONED = auto()
    """The worker took it out of the queue and off the GPU, or ended ComfyUI."""


# The steps that a prompt can take from each stage. Once it has left the queue it does not return.
STEPS = {
    Stage.QUEUED: {
        Stage.NEXT,
        Stage.RUNNING,
        Stage.MISSING,
        Stage.FINISHED,
        Stage.ABANDONED,
    },
    Stage.NEXT: {
        Stage.QUEUED,
        Stage.RUNNING,
        Stage.MISSING,
        Stage.FINISHED,
        Stage.ABANDONED,
    },
    Stage.RUNNING: {Stage.MISSING, Stage.FINISHED, Stage.ABANDONED},
    Stage.MISSING: {Stage.RUNNING, Stage.FINISHED, Stage.ABANDONED},
    Stage.FINISHED: set(),
    Stage.ABANDONED: set(),
}
STARTED = {Stage.RUNNING, Stage.MISSING, Stage.FINISHED}
OVER = {Stage.FINISHED, Stage.ABANDONED}


class PromptState:
    """The stage of one prompt; see :data:`STEPS` for how it may change.

    Attributes:
        stage: where the prompt is.
        since: when it entered this stage, in seconds of ``time.monotonic()``.
        has_started: whether it ever left the queue, so that a node may have run.
    """

    def __init__(self, now: float) -> None:
        self.stage = Stage.QUEUED
        self.since = now
        self.has_started = False

    @property
    def is_over(self) -> bool:
        """Whether ComfyUI has nothing more to do for the prompt."""
        return self.stage in OVER

    def move(self, stage: Stage, now: float) -> None:
        """Go to another stage; a step that is not in :data:`STEPS` is ignored.

        The socket and ``/queue`` can contradict each other for a moment. The later stage is right.
        """
        if stage in STEPS[self.stage]:
            self.stage = stage
            self.since = now
            self.has_started = self.has_started or stage in STARTED


class SignsOfLife:
    """When a prompt last gave a sign of life, and when to ask ComfyUI for it.

    Args:
        now: as ``time.monotonic()`` counts.
        stall_s: the silence after which the prompt is given up.

    Attributes:
        is_socket_whole: whether every event so far has been received.
        next_look: when to ask ``/queue`` and ``/history``.
    """

    def __init__(self, now: float, stall_s: float) -> None:
        self._patience_s = min(SILENCE_S, stall_s / 2)
        self._seen_at = now
        self.is_socket_whole = True
        self.next_look = now + self._patience_s

    def event_came(self, now: float) -> None:
        """Note an event of the prompt."""
        self._seen_at = now
        if self.is_socket_whole:
            self.next_look = now + self._patience_s

    def waits_its_turn(self, now: float) -> None:
        """Note that other prompts come first: silence means nothing then."""
        self._seen_at = now

    def socket_broke(self, now: float) -> None:
        """Note that events may be missing from now on; ask at once."""
        self.is_socket_whole = False
        self.next_look = now

    def looked(self, now: float) -> None:
        """Note that ComfyUI has just been asked."""
        self.next_look = now + HISTORY_POLL_S

    def silence_s(self, now: float, last_output_at: float) -> float:
        """Measure how long there has been no sign of life.

        Args:
            now: as ``time.monotonic()`` counts.
            last_output_at: when ComfyUI last wrote to its log. Progress bars there count once the
                socket no longer tells of the prompt.
        """
        if self.is_socket_whole:
            return now - self._seen_at
        return now - max(self._seen_at, last_output_at)


class NodeTimer:
    """Measures how long each node of a prompt ran.

    Attributes:
        node_id: the node that runs now; None before the first one.
        node_ms: by node id, milliseconds.
    """

    def __init__(self) -> None:
        self.node_id: str | None = None
        self.node_ms: dict[str, int] = {}
        self._since = 0.0

    def begin(self, node_id: str, now: float) -> None:
        """End the node that ran, and begin another."""
        self.end(now)
        self.node_id, self._since = node_id, now

    def end(self, now: float) -> None:
        """Add the time since the node that runs now began, or was last ended."""
        if self.node_id is not None:
            ms = round((now - self._since) * 1000)
            self.node_ms[self.node_id] = self.node_ms.get(self.node_id, 0) + ms
            self._since = now
