"""The shapes that a job's answer can have; both a request and a setting may name one."""

from __future__ import annotations

from typing import Literal

__all__ = ["ResponseFormat"]

ResponseFormat = Literal[
    "images",
    "image_base64",
    "image_list",
    "base64_list",
    "image_url",
    "image_url_list",
    "a1111",
]
