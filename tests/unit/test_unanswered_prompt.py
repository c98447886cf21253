"""A prompt that ComfyUI took without an answer is watched to its end, not queued a second time."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from comfy_worker.comfyui.events import Executed, Executing, Finished
from comfy_worker.comfyui.execution import Execution, Limits
from comfy_worker.errors import ComfyUIUnavailable
from comfy_worker.stop import Stop


class Asked:
    """A ComfyUI that answers no ``POST /prompt``; its routes, its socket and its process in one."""

    def __init__(self, *, is_queued: bool | None = False, has_begun: bool = False) -> None:
        self._is_queued = is_queued
        self._has_begun = has_begun
        self.times = 0

    def queue_prompt(self, *_: Any, **__: Any) -> None:
        self.times += 1
        raise ComfyUIUnavailable("ComfyUI does not answer POST /prompt")

    def is_queued(self, _prompt_id: str) -> bool:
        if self._is_queued is None:
            raise ComfyUIUnavailable("ComfyUI does not answer GET /queue")
        return self._is_queued

    def has_begun(self, _prompt_id: str) -> bool:
        return self._has_begun

    def failure(self, *_: str) -> ComfyUIUnavailable | None:
        return None if self._is_queued is not None else ComfyUIUnavailable("ComfyUI ended")

    def get_history(self, _prompt_id: str) -> None: ...

    def delete_history(self, _prompt_id: str) -> None: ...

    def client_id(self) -> str:
        return "client"

    @contextmanager
    def subscribed(self, prompt_id: str) -> Iterator[queue.SimpleQueue[Any]]:
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for event in (Executing(prompt_id, "9"), Executed(prompt_id, "9", {"text": ["x"]}), Finished(prompt_id)):
            events.put(event)
        yield events


def execution(asked: Any) -> Execution:
    return Execution(asked, asked, asked, Limits())


@pytest.mark.parametrize("known", [{"is_queued": True}, {"has_begun": True}])
def test_its_result_comes(known: dict[str, bool]) -> None:
    asked = Asked(**known)
    assert execution(asked).run({}, Stop()).outputs == {"9": {"text": ["x"]}}
    assert asked.times == 1


@pytest.mark.parametrize("is_queued", [False, None])
def test_one_that_was_not_taken_may_be_queued_once_more(is_queued: bool | None) -> None:
    with pytest.raises(ComfyUIUnavailable, match="does not answer POST /prompt") as caught:
        execution(Asked(is_queued=is_queued)).run({}, Stop())
    assert caught.value.try_again
