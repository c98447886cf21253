"""Names the formats of a response: a request chooses one, or the settings do."""

from __future__ import annotations

from typing import Literal

__all__ = ["Response"]

Response = Literal["images", "image_base64", "image_list", "base64_list", "image_url", "image_url_list", "a1111"]
"""The value of ``response`` in a request, and of ``RESPONSE_FORMAT``."""
