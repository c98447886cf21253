"""Fetches a file from a client's URL, within limits for its size, its duration and its addresses.

:mod:`comfy_common.pinned_http` follows a URL safely. This module adds the limits of a job's input
files and the errors that a client reads. No error contains a query string, because query strings
hold tokens.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comfy_common.addresses import host_matches
from comfy_common.pinned_http import (
    Answer,
    InvalidURL,
    PinnedClient,
    PrivateAddress,
    RequestRefused,
    Target,
    TooManyRedirects,
    UnknownHost,
    UnsupportedScheme,
)
from comfy_worker.deadline import Deadline
from comfy_worker.errors import InvalidMedia

__all__ = ["Fetcher"]

CHUNK_BYTES = 1 << 16

# What an error says after the URL's key, by the reason why a request was refused.
REFUSALS: dict[type[Exception], str] = {
    InvalidURL: " is not a valid URL; check it, or send base64",
    UnsupportedScheme: " must be base64, a data URI, or a URL that begins with http:// or https://",
    UnknownHost: ": the host {host} does not exist; check the URL",
    PrivateAddress: ": {host} has an address that is not public, but this worker downloads only "
    "from public addresses; send base64",
    TooManyRedirects: ": {host} redirects too often; use the URL at the end of the redirects",
}


@dataclass(frozen=True)
class Fetcher:
    """Fetches the files of one job.

    Attributes:
        max_mb: size of the largest file, in megabytes.
        deadline: when all files must have arrived, in seconds of ``time.monotonic()``.
        allowed_hosts: host names, ``.example.com`` for all hosts below it; empty: every host.
        allow_private: whether addresses that are not public may be reached.
        resolve: resolves a host name, like ``socket.getaddrinfo``.
        stop: when to give up before the deadline.
    """

    max_mb: float
    deadline: float
    allowed_hosts: tuple[str, ...] = ()
    allow_private: bool = False
    resolve: Callable[..., list[Any]] = socket.getaddrinfo
    stop: Deadline = field(default_factory=Deadline)

    def fetch(self, key: str, url: str) -> bytes:
        """Fetch a file.

        Args:
            key: the URL's key in the input, for the error.
            url: the client's URL.

        Raises:
            InvalidMedia: the host is not allowed or cannot be reached, or the file is too large or
                takes too long.
            JobCancelled: ``stop`` was due.
            JobTimedOut: ``stop`` was due.
        """
        host = ""

        def admit(target: Target) -> None:
            nonlocal host
            host = target.host
            self.stop.check()
            self._check_host(key, host)

        client = PinnedClient(
            allow_private=self.allow_private,
            is_over=self._is_over,
            silence_s=self._time_left_s,
            admit=admit,
            resolve=self.resolve,
        )
        try:
            with client.open(url) as answer:
                return self._read_body(key, answer)
        except (RequestRefused, OSError, http.client.HTTPException, ValueError) as error:
            raise self._failure(key, host, error) from None

    def _failure(self, key: str, host: str, error: Exception) -> InvalidMedia:
        """Return the client's error for a failed request; raise the job's own if it must end."""
        refusal = REFUSALS.get(type(error))
        if refusal is not None:
            return InvalidMedia(key + refusal.format(host=host))
        self.stop.check()
        if time.monotonic() >= self.deadline:
            return InvalidMedia(
                f"{key}: {host} took too long to send the file; use a faster host, or send base64"
            )
        reason = type(error).__name__
        return InvalidMedia(
            f"{key}: the file at {host} could not be read ({reason}); check the URL"
        )

    def _check_host(self, key: str, host: str) -> None:
        if not self.allowed_hosts:
            return
        if not any(host_matches(host, allowed) for allowed in self.allowed_hosts):
            raise InvalidMedia(
                f"{key}: this worker does not fetch from {host}; "
                f"use {' or '.join(self.allowed_hosts)}, or send base64"
            )

    def _is_over(self) -> bool:
        return self.stop.is_due or time.monotonic() >= self.deadline

    def _read_body(self, key: str, answer: Answer) -> bytes:
        host = answer.target.host
        response = answer.response
        if response.status != 200:
            status = response.status
            raise InvalidMedia(f"{key}: {host} answered {status}; use a public URL, or send base64")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise InvalidMedia(f"{key}: {host} sends the file compressed; send it as base64")
        max_bytes = int(self.max_mb * 1_000_000)
        data = bytearray()
        while len(data) <= max_bytes and (response.length or 0) <= max_bytes:
            chunk = response.read1(CHUNK_BYTES)
            if not chunk:
                if response.length or self._is_over():
                    raise http.client.IncompleteRead(b"")
                return bytes(data)
            data += chunk
        limit = f"{self.max_mb:g} MB"
        raise InvalidMedia(f"{key}: the file at {host} is too large; send at most {limit}")

    def _time_left_s(self) -> float:
        return max(self.deadline - time.monotonic(), 0.001)
