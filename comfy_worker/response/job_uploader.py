"""Makes the uploader for a job's own storage, and keeps it away from private addresses."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError

from comfy_common.pinned_http import PinnedClient, PrivateAddress, RequestRefused, parse_target
from comfy_worker.deadline import Deadline
from comfy_worker.errors import DeliveryFailed, InvalidValue
from comfy_worker.request.s3_config import ENDPOINT_KEY
from comfy_worker.response.s3 import S3Uploader
from comfy_worker.s3_location import Bucket

__all__ = ["job_uploader"]

LOOK_UP_LIMIT_S = 10.0


def job_uploader(
    bucket: Bucket,
    *,
    allow_private: bool,
    stop: Deadline | None = None,
    resolve: Callable[..., list[Any]] = socket.getaddrinfo,
) -> S3Uploader:
    """Make the uploader for a job's own storage.

    Args:
        bucket: the bucket that the job's ``s3Config`` names.
        allow_private: whether addresses that are not public may be reached.
        stop: when to give up; None: never.
        resolve: as ``socket.getaddrinfo``.

    Raises:
        DeliveryFailed: the endpoint's host could not be looked up in time.
        InvalidValue: the endpoint is not a usable URL, or has an address that is not public.
        JobCancelled: ``stop`` was due.
        JobTimedOut: ``stop`` was due.
    """
    if not allow_private:
        _check_public(bucket.endpoint_url, stop or Deadline(), resolve)
    try:
        return S3Uploader(bucket, public_only=not allow_private)
    except (BotoCoreError, ValueError):
        raise InvalidValue(
            f"{ENDPOINT_KEY} should be a URL such as https://s3.eu-central-1.amazonaws.com",
            [{"key": ENDPOINT_KEY}],
        ) from None


def _check_public(endpoint_url: str, stop: Deadline, resolve: Callable[..., list[Any]]) -> None:
    deadline = time.monotonic() + LOOK_UP_LIMIT_S

    def is_over() -> bool:
        return stop.is_due or time.monotonic() >= deadline

    host = ""
    try:
        target = parse_target(endpoint_url)
        host = target.host
        PinnedClient(is_over=is_over, resolve=resolve).addresses(target)
    except PrivateAddress:
        raise InvalidValue(
            f"{ENDPOINT_KEY}: {host} has an address that is not public, but this worker uploads "
            "only to public addresses; use storage on the internet, or set ALLOW_PRIVATE_URLS",
            [{"key": ENDPOINT_KEY}],
        ) from None
    except RequestRefused:
        raise InvalidValue(
            f"{ENDPOINT_KEY}: the host {host} does not exist; check its names name",
            [{"key": ENDPOINT_KEY}],
        ) from None
    except TimeoutError:
        stop.check()
        raise DeliveryFailed(
            f"{ENDPOINT_KEY}: the name server gave no address for {host} within "
            f"{LOOK_UP_LIMIT_S:g} s; check the host, or send the job again",
            [{"key": ENDPOINT_KEY}],
        ) from None
