"""Reads the JSON bodies of requests."""

from __future__ import annotations

import json
from typing import NoReturn

from fastapi import Request

from .job import BadRequest, TooLarge

__all__ = ["read_json"]


async def read_json(request: Request, limit: int) -> object:
    """Returns the body, which is JSON under any content type.

    Args:
        request: Its body is always read to the end, so that its sender can read the answer.
        limit: The largest number of bytes.

    Raises:
        TooLarge: The body has more bytes.
        BadRequest: The body is not JSON, or cannot be written as JSON again. NaN and Infinity,
            which Python reads and writes, are not JSON.
    """
    received, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            received += chunk
    if size > limit:
        raise TooLarge(f"the body has {size:,} bytes, but RunPod accepts at most {limit:,}")
    try:
        body: object = json.loads(received, parse_constant=_no_constant)
        # A value that cannot be written (1e400, half a surrogate pair) could not reach a worker.
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # UnicodeError is a ValueError too
        raise BadRequest(f"the request body is not JSON: {error}") from error
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
