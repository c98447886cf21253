"""Websocket frames, parsed."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from comfy_worker.comfyui import events
from comfy_worker.comfyui.events import Event, parse, parse_binary


@pytest.mark.parametrize(
    ("event_type", "data", "event"),
    [
        ("execution_start", {}, events.Started("p")),
        ("execution_cached", {"nodes": ["1", "2"]}, events.Cached("p", ("1", "2"))),
        ("executing", {"node": "3"}, events.Executing("p", "3")),
        ("executing", {"node": None}, events.Finished("p")),
        ("progress", {"node": "3", "value": 2, "max": 20}, events.Progress("p", "3", 2, 20)),
        (
            "executed",
            {"node": "9", "output": {"text": ["a"]}},
            events.Executed("p", "9", {"text": ["a"]}),
        ),
        ("executed", {"node": "9", "output": None}, events.Executed("p", "9", {})),
        ("execution_interrupted", {}, events.Interrupted("p")),
        ("progress_state", {"nodes": {}}, None),
        ("of a later version", {}, None),
        ("progress", {"node": "3", "value": "some"}, None),
        ("executed", {}, None),
    ],
)
def test_a_frame_becomes_its_event(
    event_type: str, data: dict[str, Any], event: Event | None
) -> None:
    assert parse(json.dumps({"type": event_type, "data": {**data, "prompt_id": "p"}})) == event


def binary(event_type: int, metadata: bytes, image: bytes = b"jpeg") -> bytes:
    return struct.pack(">II", event_type, len(metadata)) + metadata + image


def test_a_preview_frame_says_whose_it_is() -> None:
    metadata = json.dumps({"prompt_id": "p", "node_id": "3", "image_type": "image/jpeg"}).encode()
    assert parse_binary(binary(4, metadata)) == events.Preview("p", "image/jpeg", b"jpeg")


@pytest.mark.parametrize(
    "frame", [b"", binary(1, b""), binary(4, b"no json"), binary(4, b"{}"), binary(4, b"[]")]
)
def test_other_binary_frames_are_passed_over(frame: bytes) -> None:
    assert parse_binary(frame) is None


def test_an_error_leaves_the_inputs_out() -> None:
    data = {
        "prompt_id": "p",
        "node_id": "4",
        "node_type": "Boom",
        "exception_type": "ValueError",
        "exception_message": "no\n",
        "traceback": ["line"],
        "current_inputs": {"key": "secret"},
    }
    event = parse(json.dumps({"type": "execution_error", "data": data}))
    assert event == events.Failed("p", "4", "Boom", "ValueError", "no", ("line",))
    assert "secret" not in repr(event)


@pytest.mark.parametrize(
    "frame", ["no json", "[]", '{"type": "status", "data": {"sid": 1}}', '{"type": "executing"}']
)
def test_what_belongs_to_no_prompt_is_passed_over(frame: str) -> None:
    assert parse(frame) is None
