"""Tells whether the installed SDK is built as the job loop expects it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from runpod.serverless.modules import rp_http, rp_job, rp_logger, rp_ping, rp_scale, worker_state

__all__ = ["differences"]

# What the job loop calls, overrides or is called by, with the names of the parameters.
KNOWN: tuple[tuple[object, str, tuple[str, ...]], ...] = (
    (rp_scale, "get_job", ("session", "num_jobs")),
    (rp_scale, "get_stop_signals", ("session",)),
    (rp_scale.JobScaler, "__init__", ("self", "config")),
    (rp_scale.JobScaler, "start", ("self",)),
    (rp_scale.JobScaler, "run", ("self",)),
    (rp_scale.JobScaler, "get_jobs", ("self", "session")),
    (rp_scale.JobScaler, "run_jobs", ("self", "session")),
    (rp_scale.JobScaler, "handle_job", ("self", "session", "job")),
    (rp_scale.JobScaler, "monitor_stop_signals", ("self", "session")),
    (rp_scale.JobScaler, "stop_job", ("self", "job_id")),
    (rp_scale.JobScaler, "kill_worker", ("self",)),
    (rp_scale.JobScaler, "is_alive", ("self",)),
    (rp_job, "_job_stop_url", ()),
    (rp_logger, "_set_batch_id", ("batch_id",)),
    (rp_logger, "_reset_batch_id", ("token",)),
    (worker_state.JobsProgress, "add", ("self", "element")),
    (worker_state.JobsProgress, "remove", ("self", "element")),
)
URLS = ("JOB_DONE_URL", "JOB_STREAM_URL")
OF_A_SCALER = (
    "_shutdown_event",
    "job_progress",
    "jobs_tasks",
    "jobs_fetcher",
    "stop_signals_fetcher",
)


def differences() -> list[str]:
    """List the parts of the SDK that differ from what the job loop expects."""
    found = []
    for owner, name, parameters in KNOWN:
        function = getattr(owner, name, None)
        if function is None or _parameters(function) != parameters:
            found.append(f"{getattr(owner, '__name__', owner)}.{name}")
    found += [
        f"rp_http.{name}" for name in URLS if not isinstance(getattr(rp_http, name, None), str)
    ]
    if not found:
        scaler = rp_scale.JobScaler({})
        found += [f"JobScaler.{name}" for name in OF_A_SCALER if not hasattr(scaler, name)]
    return found


def has_known_heartbeat() -> bool:
    """Whether the heartbeat's process runs a function that can be replaced."""
    return callable(getattr(rp_ping.Heartbeat, "process_loop", None))


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)
