"""Reads the storage that a job brings along: RunPod's ``s3Config``. Opens no connection."""

from __future__ import annotations

import re

from pydantic import SecretStr

from comfy_worker.errors import InvalidValue
from comfy_worker.s3_location import Bucket, locate

__all__ = ["ENDPOINT_KEY", "bucket_of"]

ENDPOINT_KEY = "s3Config.endpointUrl"
REQUIRED = ("accessId", "accessSecret", "endpointUrl")
# Every storage's keys have this form; a longer text is a mistake, or an attack on the worker's
# memory.
CREDENTIAL = re.compile(r"[!-~]{1,512}")


def bucket_of(s3_config: object) -> Bucket:
    """Read an ``s3Config``.

    Args:
        s3_config: RunPod's ``{accessId, accessSecret, bucketName, endpointUrl}``, as the client
            sent it.

    Raises:
        InvalidValue: a key is missing or makes no sense.
    """
    config = s3_config if isinstance(s3_config, dict) else {}
    missing = [key for key in REQUIRED if not _is_text(config.get(key))]
    if missing or not isinstance(config.get("bucketName", ""), str):
        raise InvalidValue(
            f"s3Config must be an object with {', '.join(REQUIRED)} and bucketName, each some text",
            [{"key": f"s3Config.{key}", "problem": "is missing"} for key in missing],
        )
    malformed = [key for key in ("accessId", "accessSecret") if not CREDENTIAL.fullmatch(config[key])]
    if malformed:
        raise InvalidValue(
            f"s3Config.{malformed[0]} must be at most 512 letters, digits and signs without blanks; "
            "copy it anew from your storage's settings",
            [{"key": f"s3Config.{key}", "problem": "does not have the form of a key"} for key in malformed],
        )
    try:
        location = locate(config["endpointUrl"], config.get("bucketName", ""))
    except ValueError as error:
        raise InvalidValue(f"{ENDPOINT_KEY} {error}", [{"key": ENDPOINT_KEY}]) from None
    secret = SecretStr(config["accessSecret"])
    return Bucket(access_key_id=config["accessId"], secret_access_key=secret, **location)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""
