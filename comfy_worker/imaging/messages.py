"""The messages between the worker and the processes that decode and encode pictures."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

__all__ = ["CONTROL", "FORK", "KILL", "Answer", "receive", "send"]

Answer = tuple[dict[str, Any], list[bytes]]
"""The answer of a step as JSON, and the blocks of bytes that belong to it."""

# To the fork server: the order, the number of the task, and how many bytes of memory the task may
# take (0: no limit).
CONTROL = struct.Struct(">cIQ")
FORK, KILL = b"F", b"K"
# Before a message: the length of its JSON, and how many blocks of bytes follow it.
HEAD = struct.Struct(">II")
LENGTH = struct.Struct(">Q")


def send(connection: socket.socket, message: dict[str, Any], blocks: Sequence[bytes] = ()) -> None:
    """Write a message and the blocks of bytes that belong to it."""
    text = json.dumps(message).encode()
    connection.sendall(HEAD.pack(len(text), len(blocks)) + text)
    for block in blocks:
        connection.sendall(LENGTH.pack(len(block)))
        connection.sendall(block)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[bytes]] | None:
    """Read a message and the blocks that belong to it; None if the other side has closed."""
    try:
        length, count = HEAD.unpack(_read_exactly(connection, HEAD.size))
        message: dict[str, Any] = json.loads(_read_exactly(connection, length))
        blocks = []
        for _ in range(count):
            (size,) = LENGTH.unpack(_read_exactly(connection, LENGTH.size))
            blocks.append(_read_exactly(connection, size))
    except EOFError:
        return None
    return message, blocks


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    received = 0
    with memoryview(data) as view:
        while received < size:
            count = connection.recv_into(view[received:])
            if not count:
                raise EOFError
            received += count
    return bytes(data)
