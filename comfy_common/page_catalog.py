"""Names the file in which a worker lists its templates for the page of ``comfy_setup serve``.

The endpoint passes its path to the workers in an environment variable. On RunPod the variable is
not set, and nothing is written.
"""

from __future__ import annotations

__all__ = ["CATALOG_VARIABLE"]

CATALOG_VARIABLE = "COMFY_PAGE_CATALOG"
