"""System packages that some tests want: missing on a desk they are skipped, missing in CI they fail."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["require"]


def require(*tools: str) -> None:
    """Go on only where every program is installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        reason = f"{' and '.join(missing)} not found: install Debian's packages of that name"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
