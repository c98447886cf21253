"""The errors of Comfy's API v2: ``{"error": {"code", "message", "details"}}``."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

__all__ = ["ApiError", "error_answer", "invalid_request", "not_found"]


class ApiError(Exception):
    """A request is refused.

    Args:
        status: The HTTP status.
        code: One of the API's codes.
        message: One sentence for the client.
        details: More about it.
    """

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details


def error_answer(error: ApiError, headers: dict[str, str] | None = None) -> JSONResponse:
    """Returns the answer to a request that is refused."""
    body = {"code": error.code, "message": str(error), "details": error.details or None}
    return JSONResponse({"error": body}, status_code=error.status, headers=headers)


def invalid_request(message: str) -> ApiError:
    """Returns the error for a request of the wrong form."""
    return ApiError(422, "invalid_request", message)


def not_found(message: str) -> ApiError:
    """Returns the error for a job or an asset that does not exist."""
    return ApiError(404, "not_found", message)
