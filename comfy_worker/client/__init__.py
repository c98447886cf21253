"""A client for RunPod endpoints and for the local one. Needs only the standard library."""

from __future__ import annotations

from .batch import Batch, RowState, StateFile
from .endpoint import LOCAL_URL, Endpoint, Job, JobStatus, Progress
from .errors import (
    BadTarget,
    ClientError,
    EndpointUnreachable,
    JobUnknown,
    RequestRejected,
    Stopped,
    Unauthorized,
    WaitTimeout,
)
from .files import Folder, SaveFailed, result_files, save_files
from .job_list import Row, read_rows
from .transport import Transport

__all__ = [
    "LOCAL_URL",
    "BadTarget",
    "Batch",
    "ClientError",
    "Endpoint",
    "EndpointUnreachable",
    "Folder",
    "Job",
    "JobStatus",
    "JobUnknown",
    "Progress",
    "RequestRejected",
    "Row",
    "RowState",
    "SaveFailed",
    "StateFile",
    "Stopped",
    "Transport",
    "Unauthorized",
    "WaitTimeout",
    "read_rows",
    "result_files",
    "save_files",
]
