"""The page of ``comfy_setup serve``: forms for templates, in plain HTML, CSS and ES modules.

There is no build step. ``routes`` serves the files of ``static``; ``single_file`` writes all of
them into one HTML file, which also works from a disk and against an endpoint on RunPod.
"""

from __future__ import annotations

from .routes import catalog_routes, page_routes
from .single_file import single_file

__all__ = ["catalog_routes", "page_routes", "single_file"]
