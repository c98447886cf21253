"""A RunPod endpoint on this machine: its public API on one side, the SDK's job loop on the other.

For development and tests only: in production RunPod is the queue and the scaler. Needs FastAPI and uvicorn,
which come with the runpod package; it imports nothing of the worker, which runs in processes of its own.
"""

from __future__ import annotations

from .local import LocalEndpoint, serve
from .unkind import Unkind
from .workers import Worker

__all__ = ["LocalEndpoint", "Unkind", "Worker", "serve"]
