"""A local RunPod endpoint: RunPod's public API for clients, and its worker API for the SDK.

For development and tests only: in production, RunPod queues the jobs and scales the workers. Needs
FastAPI and uvicorn, which the runpod package brings. The worker runs in processes of its own and is
not imported here.
"""

from __future__ import annotations

from .local import Address, LocalEndpoint, serve
from .unkind import Unkind
from .workers import Worker

__all__ = ["Address", "LocalEndpoint", "Unkind", "Worker", "serve"]
