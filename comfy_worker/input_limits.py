"""The limits for the files of a job."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["InputLimits"]


@dataclass(frozen=True)
class InputLimits:
    """How many files a job may send, how large they may be, and which hosts they may come from.

    Attributes:
        max_files: how many files one job may send.
        max_mb: size of the largest file, in megabytes.
        max_pixels: width times height of a picture or of a video's frame.
        timeout_s: how long all downloads of a job may take together, in seconds.
        allowed_hosts: host names, ``.example.com`` for all hosts below it; empty: every host.
        allow_private: whether URLs may lead to addresses that are not public.
    """

    max_files: int
    max_mb: float
    max_pixels: int
    timeout_s: float
    allowed_hosts: tuple[str, ...]
    allow_private: bool
