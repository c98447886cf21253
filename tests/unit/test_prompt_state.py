"""The stages of a prompt, and the signs of life that it gives."""

from __future__ import annotations

import pytest

from comfy_worker.comfyui.prompt_state import STEPS, NodeTimer, PromptState, SignsOfLife, Stage


def state_after(*stages: Stage) -> PromptState:
    state = PromptState(0.0)
    for now, stage in enumerate(stages, 1):
        state.move(stage, float(now))
    return state


def test_every_stage_has_its_steps() -> None:
    assert STEPS.keys() == set(Stage)


@pytest.mark.parametrize("stage", [Stage.RUNNING, Stage.MISSING, Stage.FINISHED])
def test_a_prompt_never_returns_to_the_queue(stage: Stage) -> None:
    assert state_after(stage, Stage.QUEUED).stage is stage
    assert state_after(stage, Stage.NEXT).has_started


@pytest.mark.parametrize("end", [Stage.FINISHED, Stage.ABANDONED])
def test_an_end_is_final(end: Stage) -> None:
    for stage in Stage:
        state = state_after(end, stage)
        assert (state.stage, state.is_over, state.since) == (end, True, 1.0)


def test_an_abandoned_prompt_remembers_its_start() -> None:
    assert state_after(Stage.RUNNING, Stage.ABANDONED).has_started
    assert not state_after(Stage.NEXT, Stage.ABANDONED).has_started


def test_a_lost_prompt_counts_from_its_loss() -> None:
    assert state_after(Stage.MISSING, Stage.MISSING).since == 1.0
    assert state_after(Stage.MISSING, Stage.RUNNING, Stage.MISSING).since == 3.0


def test_a_broken_socket_is_asked_about_at_once() -> None:
    signs = SignsOfLife(0.0, stall_s=300.0)
    signs.event_came(4.0)
    assert signs.next_look == 14.0
    signs.socket_broke(5.0)
    signs.event_came(6.0)
    assert (signs.is_socket_whole, signs.next_look) == (False, 5.0)


def test_the_log_is_life_without_a_socket() -> None:
    signs = SignsOfLife(0.0, stall_s=300.0)
    assert signs.silence_s(10.0, last_output_at=9.0) == 10.0
    signs.socket_broke(10.0)
    assert signs.silence_s(10.0, last_output_at=9.0) == 1.0


def test_each_node_has_its_own_time() -> None:
    timer = NodeTimer()
    timer.begin("a", 1.0)
    timer.begin("b", 3.0)
    timer.end(3.5)
    timer.end(3.5)
    assert (timer.node_ms, timer.node_id) == ({"a": 2000, "b": 500}, "b")
