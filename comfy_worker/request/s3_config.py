"""Reads the storage that a job brings along: RunPod's ``s3Config``. Opens no connection."""

from __future__ import annotations

import re

from pydantic import SecretStr

from comfy_worker.errors import InvalidValue
from comfy_worker.s3_location import Bucket, parse_endpoint

__all__ = ["ENDPOINT_KEY", "parse_s3_config"]

ENDPOINT_KEY = "s3Config.endpointUrl"
REQUIRED = ("accessId", "accessSecret", "endpointUrl")
CREDENTIALS = ("accessId", "accessSecret")
# The keys of every known storage have this form. A longer text is a mistake, or an attack on the
# worker's memory.
CREDENTIAL = re.compile(r"[!-~]{1,512}")


def parse_s3_config(s3_config: object) -> Bucket:
    """Read an ``s3Config``.

    Args:
        s3_config: RunPod's ``{accessId, accessSecret, bucketName, endpointUrl}``, as the client
            sent it.

    Raises:
        InvalidValue: a key is missing or invalid.
    """
    config = s3_config if isinstance(s3_config, dict) else {}
    missing = [key for key in REQUIRED if not isinstance(config.get(key), str) or not config[key]]
    bucket_name = config.get("bucketName", "")
    if missing or not isinstance(bucket_name, str):
        keys = ", ".join(REQUIRED)
        raise InvalidValue(
            f"s3Config must be an object with {keys} and bucketName, all of them text",
            [{"key": f"s3Config.{key}", "problem": "is missing"} for key in missing],
        )
    malformed = [key for key in CREDENTIALS if not CREDENTIAL.fullmatch(config[key])]
    if malformed:
        raise InvalidValue(
            f"s3Config.{malformed[0]} must have at most 512 printable characters "
            "and no spaces; copy it again from your storage's settings",
            [{"key": f"s3Config.{key}", "problem": "is not in a key's form"} for key in malformed],
        )
    try:
        location = parse_endpoint(config["endpointUrl"], bucket_name)
    except ValueError as error:
        raise InvalidValue(f"{ENDPOINT_KEY} {error}", [{"key": ENDPOINT_KEY}]) from None
    secret = SecretStr(config["accessSecret"])
    return Bucket(access_key_id=config["accessId"], secret_access_key=secret, **location)
