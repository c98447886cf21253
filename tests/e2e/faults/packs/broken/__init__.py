"""A node pack that needs a package that nobody has."""

from __future__ import annotations

from typing import Any

import no_such_package

NODE_CLASS_MAPPINGS: dict[str, Any] = {
    "BrokenNode": no_such_package.Node,
    "BrokenToo": no_such_package.Other,
}
