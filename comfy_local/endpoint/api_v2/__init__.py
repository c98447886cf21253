"""Comfy's API v2 in front of the jobs of the endpoint, as comfy-sdk calls it.

Jobs, workers, checks and deadlines are the same as those of RunPod's API. Only this package knows
the files that clients upload ("assets"); a worker gets them with the job.
"""

from __future__ import annotations

from .routes import PATH, ApiV2

__all__ = ["PATH", "ApiV2"]
