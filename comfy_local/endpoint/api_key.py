"""Checks the API key of clients, if the endpoint was started with one."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from fastapi import Request

__all__ = ["UNAUTHORIZED", "Unauthorized", "key_check"]

UNAUTHORIZED = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`"


class Unauthorized(Exception):
    """The request has no API key, or another one (HTTP 401)."""


def key_check(api_key: str) -> Callable[[Request], None]:
    """Returns a dependency of routes that raises `Unauthorized`.

    Args:
        api_key: The key that clients must send.
    """
    expected = f"Bearer {api_key}".encode()

    def check(request: Request) -> None:
        sent = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(sent, expected):
            raise Unauthorized

    return check
