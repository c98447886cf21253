"""Reads the storage that a job brings along: RunPod's ``s3Config``."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError
from pydantic import SecretStr

from comfy_common.pinned_http import PinnedClient, PrivateAddress, RequestRefused, parse_target
from comfy_worker.deadline import Stop
from comfy_worker.errors import DeliveryFailed, InvalidValue
from comfy_worker.response.s3 import S3Uploader
from comfy_worker.s3_location import Bucket, parse_endpoint

__all__ = ["job_uploader", "parse_s3_config"]

ENDPOINT = "s3Config.endpointUrl"
REQUIRED = ("accessId", "accessSecret", "endpointUrl")
CREDENTIALS = ("accessId", "accessSecret")
# The keys of every known storage have this form. A longer text is a mistake, or an attack on the worker's memory.
CREDENTIAL = re.compile(r"[!-~]{1,512}")
LOOK_UP_LIMIT_S = 10.0


def job_uploader(
    s3_config: object,
    *,
    allow_private: bool,
    stop: Stop | None = None,
    resolve: Callable[..., list[Any]] = socket.getaddrinfo,
) -> S3Uploader:
    """Make the uploader for a job's own storage.

    Args:
        s3_config: RunPod's ``{accessId, accessSecret, bucketName, endpointUrl}``.
        allow_private: whether addresses that are not public may be reached.
        stop: when to give up; None: never.
        resolve: as ``socket.getaddrinfo``.

    Raises:
        DeliveryFailed: the endpoint's host could not be looked up in time.
        InvalidValue: a key is missing or invalid, or the endpoint has an address that is not public.
        JobCancelled: ``stop`` was due.
        JobTimedOut: ``stop`` was due.
    """
    bucket = parse_s3_config(s3_config)
    if not allow_private:
        _check_public(bucket.endpoint_url, stop or Stop(), resolve)
    try:
        return S3Uploader(bucket, public_only=not allow_private)
    except (BotoCoreError, ValueError):
        raise InvalidValue(
            f"{ENDPOINT} should be a URL such as https://s3.eu-central-1.amazonaws.com", [{"key": ENDPOINT}]
        ) from None


def parse_s3_config(s3_config: object) -> Bucket:
    """Read an ``s3Config``, without a look at the network.

    Raises:
        InvalidValue: a key is missing or invalid.
    """
    config = s3_config if isinstance(s3_config, dict) else {}
    missing = [key for key in REQUIRED if not isinstance(config.get(key), str) or not config[key]]
    bucket_name = config.get("bucketName", "")
    if missing or not isinstance(bucket_name, str):
        raise InvalidValue(
            f"s3Config must be an object with {', '.join(REQUIRED)} and bucketName, each of them text",
            [{"key": f"s3Config.{key}", "problem": "is missing"} for key in missing],
        )
    malformed = [key for key in CREDENTIALS if not CREDENTIAL.fullmatch(config[key])]
    if malformed:
        raise InvalidValue(
            f"s3Config.{malformed[0]} must be at most 512 letters, digits and signs without blanks; copy it again "
            "from your storage's settings",
            [{"key": f"s3Config.{key}", "problem": "does not have the form of a key"} for key in malformed],
        )
    try:
        location = parse_endpoint(config["endpointUrl"], bucket_name)
    except ValueError as error:
        raise InvalidValue(f"{ENDPOINT} {error}", [{"key": ENDPOINT}]) from None
    secret = SecretStr(config["accessSecret"])
    return Bucket(access_key_id=config["accessId"], secret_access_key=secret, **location)


def _check_public(endpoint_url: str, stop: Stop, resolve: Callable[..., list[Any]]) -> None:
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
            f"{ENDPOINT}: {host} has an address that is not public, and this worker uploads only to public ones; "
            "use storage on the internet, or set ALLOW_PRIVATE_URLS",
            [{"key": ENDPOINT}],
        ) from None
    except RequestRefused:
        raise InvalidValue(f"{ENDPOINT}: the host {host} does not exist; check it", [{"key": ENDPOINT}]) from None
    except TimeoutError:
        stop.check()
        raise DeliveryFailed(
            f"{ENDPOINT}: the name server gave no address for {host} within {LOOK_UP_LIMIT_S:g} s; check the host, "
            "or send the job again",
            [{"key": ENDPOINT}],
        ) from None
