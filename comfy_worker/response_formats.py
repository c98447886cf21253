"""Lists the formats of a job's answer. A request or a setting chooses one."""

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
