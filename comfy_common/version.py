"""The version of this project; pyproject.toml has the same."""

from __future__ import annotations

VERSION = "1.0.0"
