"""Keeps one websocket to ComfyUI open across jobs, and passes each event to its prompt.

When the socket breaks, every prompt gets :class:`Disconnected`. The new connection uses a new
client id: of two sockets with the same id, ComfyUI stops sending to the newer when the older
closes.
"""

from __future__ import annotations

import json
import logging
import queue
import struct
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import websocket

__all__ = [
    "Cached",
    "Disconnected",
    "Event",
    "EventStream",
    "Executed",
    "Executing",
    "Failed",
    "Finished",
    "Interrupted",
    "Preview",
    "Progress",
    "Started",
    "parse",
    "parse_binary",
]

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
CONNECT_WAIT_S = 2.0
RECONNECT_PAUSE_S = 0.5
# Sent first, this makes ComfyUI add the prompt's id to previews.
FEATURES = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
PREVIEW_IMAGE_WITH_METADATA = 4


@dataclass(frozen=True)
class Event:
    """A message about one prompt."""

    prompt_id: str


@dataclass(frozen=True)
class Started(Event):
    """``execution_start``: the prompt left the queue."""


@dataclass(frozen=True)
class Cached(Event):
    """``execution_cached``: these nodes do not run again."""

    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Executing(Event):
    """``executing``: a node runs now."""

    node_id: str


@dataclass(frozen=True)
class Finished(Event):
    """``executing`` with ``node: null``: the prompt ended, well or not, and ``/history`` has it."""


@dataclass(frozen=True)
class Progress(Event):
    """``progress``: ``value`` of ``maximum`` steps of a node."""

    node_id: str
    value: int
    maximum: int


@dataclass(frozen=True)
class Preview(Event):
    """A picture of the sampler's current state: the bytes of a JPEG or PNG."""

    mime_type: str
    image: bytes = field(repr=False)


@dataclass(frozen=True)
class Executed(Event):
    """``executed``: the results of an output node."""

    node_id: str
    output: Mapping[str, Any]


@dataclass(frozen=True)
class Failed(Event):
    """``execution_error``: a node raised."""

    node_id: str
    class_type: str
    exception_type: str
    message: str
    traceback: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class Interrupted(Event):
    """``execution_interrupted``: the prompt was cancelled."""


@dataclass(frozen=True)
class Disconnected(Event):
    """The socket broke; later events of this prompt are lost."""


def parse(message: str) -> Event | None:
    """Parse one text frame.

    Args:
        message: JSON, ``{"type": ..., "data": {...}}``.

    Returns:
        The event; None for messages without one (``status``, ``progress_state``, unknown types).
    """
    try:
        frame = json.loads(message)
        return _event(frame["type"], frame["data"], frame["data"]["prompt_id"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _event(message_type: str, data: Mapping[str, Any], prompt_id: str) -> Event | None:
    match message_type:
        case "execution_start":
            return Started(prompt_id)
        case "execution_cached":
            return Cached(prompt_id, tuple(data.get("nodes", ())))
        case "executing":
            return _executing(prompt_id, data.get("node"))
        case "progress":
            node_id = data.get("node") or ""
            return Progress(prompt_id, node_id, int(data["value"]), int(data["max"]))
        case "executed":
            return Executed(prompt_id, data["node"], data.get("output") or {})
        case "execution_error":
            return failed(prompt_id, data)
        case "execution_interrupted":
            return Interrupted(prompt_id)
    return None


def _executing(prompt_id: str, node_id: str | None) -> Event:
    return Finished(prompt_id) if node_id is None else Executing(prompt_id, node_id)


def parse_binary(message: bytes) -> Preview | None:
    """Parse one binary frame.

    It holds its type and the length of its metadata (both big-endian), the metadata as JSON, and
    the picture.

    Returns:
        The preview; None for other types.
    """
    try:
        frame_type, length = struct.unpack_from(">II", message)
        if frame_type != PREVIEW_IMAGE_WITH_METADATA:
            return None
        metadata = json.loads(message[8 : 8 + length])
        return Preview(metadata["prompt_id"], metadata["image_type"], message[8 + length :])
    except (struct.error, ValueError, KeyError, TypeError):
        return None


def failed(prompt_id: str, data: Mapping[str, Any]) -> Failed:
    """Parse an ``execution_error``, without ``current_inputs``: they can hold secrets."""
    return Failed(
        prompt_id,
        node_id=str(data.get("node_id")),
        class_type=str(data.get("node_type")),
        exception_type=str(data.get("exception_type")),
        message=str(data.get("exception_message", "")).strip(),
        traceback=tuple(data.get("traceback") or ()),
    )


class EventStream:
    """The worker's websocket to ComfyUI, read by a thread of its own.

    Args:
        base_url: ``http://127.0.0.1:<port>``.
    """

    def __init__(self, base_url: str) -> None:
        self._url = base_url.replace("http", "ws", 1) + "/ws"
        self._subscribers: dict[str, queue.SimpleQueue[Event]] = {}
        self._lock = threading.Lock()
        self._connected = threading.Event()
        self._closed = threading.Event()
        self._socket: websocket.WebSocket | None = None
        self._client_id = ""
        self._thread = threading.Thread(target=self._run, name="comfyui-events", daemon=True)
        self._thread.start()

    def client_id(self) -> str:
        """Return the id to queue prompts under; waits a moment for a connection."""
        self._connected.wait(CONNECT_WAIT_S)
        return self._client_id

    @contextmanager
    def subscribed(self, prompt_id: str) -> Iterator[queue.SimpleQueue[Event]]:
        """Receive the events of one prompt until the block ends; enter it before queueing.

        The first event is :class:`Disconnected` if there is no connection now.
        """
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        with self._lock:
            self._subscribers[prompt_id] = events
            if not self._connected.is_set():
                events.put(Disconnected(prompt_id))
        try:
            yield events
        finally:
            with self._lock:
                del self._subscribers[prompt_id]

    def break_connection(self) -> None:
        """Shut the socket down; a new one is opened at once."""
        if self._socket is not None:
            self._socket.abort()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the socket and end the thread."""
        self._closed.set()
        self.break_connection()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except (OSError, ValueError, websocket.WebSocketException) as error:
                if not self._closed.is_set():
                    log.warning(
                        "websocket broke: %s", error, extra={"action": "comfyui.socket_broke"}
                    )
            with self._lock:
                self._connected.clear()
                for prompt_id, events in self._subscribers.items():
                    events.put(Disconnected(prompt_id))
            self._closed.wait(RECONNECT_PAUSE_S)

    def _listen(self) -> None:
        client_id = uuid.uuid4().hex
        url = f"{self._url}?clientId={client_id}"
        # A proxy in the environment is for the internet: it cannot reach this loopback address.
        self._socket = websocket.create_connection(
            url, timeout=CONNECT_TIMEOUT_S, http_no_proxy=["*"]
        )
        try:
            self._socket.settimeout(None)
            self._socket.send(FEATURES)
            self._client_id = client_id
            self._connected.set()
            while not self._closed.is_set():
                message = self._socket.recv()
                if message == "":
                    raise websocket.WebSocketConnectionClosedException("closed by ComfyUI")
                event = parse(message) if isinstance(message, str) else parse_binary(message)
                if event is not None:
                    self._deliver(event)
        finally:
            self._socket.shutdown()  # type: ignore[no-untyped-call]

    def _deliver(self, event: Event) -> None:
        with self._lock:
            events = self._subscribers.get(event.prompt_id)
        if events is not None:
            events.put(event)
