"""What can go wrong between a client and an endpoint."""

from __future__ import annotations

__all__ = [
    "BadTarget",
    "ClientError",
    "EndpointUnreachable",
    "JobUnknown",
    "RequestRejected",
    "Stopped",
    "Unauthorized",
    "WaitTimeout",
]


class ClientError(Exception):
    """The base class. Its text is one sentence for a person."""


class BadTarget(ClientError):
    """The endpoint's URL or the API key is missing or cannot be used."""


class EndpointUnreachable(ClientError):
    """The endpoint did not give a usable answer, although the request was sent repeatedly."""


class RequestRejected(ClientError):
    """The endpoint refuses the request; sending it again would fail the same way.

    Args:
        text: the sentence.
        status: the HTTP status.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Unauthorized(RequestRejected):
    """The API key is missing or wrong (HTTP 401 or 403)."""


class JobUnknown(RequestRejected):
    """The endpoint does not know the job, or the endpoint does not exist (HTTP 404)."""


class Stopped(ClientError):
    """The caller has set the stop event."""


class WaitTimeout(ClientError):
    """The job did not end within the time that the caller waits."""
