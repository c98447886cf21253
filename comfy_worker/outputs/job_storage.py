"""Storage that a job brings: RunPod's ``s3Config``, read and held to public addresses."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import SecretStr

from comfy_setup.addresses import is_public, resolved
from comfy_worker.bucket import Bucket, locate
from comfy_worker.errors import InvalidValue
from comfy_worker.outputs.storage import Storage

__all__ = ["bucket_of", "job_storage"]

ENDPOINT = "s3Config.endpointUrl"


def job_storage(s3_config: object, *, allow_private: bool) -> Storage:
    """The storage of a job.

    Args:
        s3_config: RunPod's ``{accessId, accessSecret, bucketName, endpointUrl}``.
        allow_private: whether addresses that are not public may be reached.

    Raises:
        InvalidValue: a key is missing or makes no sense, or the endpoint has an address that is not public.
    """
    bucket = bucket_of(s3_config)
    if not allow_private:
        _check_public(bucket.endpoint_url)
    return Storage(bucket, public_only=not allow_private)


def bucket_of(s3_config: object) -> Bucket:
    """Read an ``s3Config``; argument and error as above."""
    given = s3_config if isinstance(s3_config, dict) else {}
    wanted = ("accessId", "accessSecret", "endpointUrl")
    missing = [key for key in wanted if not (isinstance(given.get(key), str) and given[key])]
    if missing or not isinstance(given.get("bucketName", ""), str):
        raise InvalidValue(
            f"s3Config must be an object with {', '.join(wanted)} and bucketName, each some text",
            [{"key": f"s3Config.{key}", "problem": "is missing"} for key in missing],
        )
    try:
        place = locate(given["endpointUrl"], given.get("bucketName", ""))
    except ValueError as error:
        raise InvalidValue(f"{ENDPOINT} {error}", [{"key": ENDPOINT}]) from None
    secret = SecretStr(given["accessSecret"])
    return Bucket(access_key_id=given["accessId"], secret_access_key=secret, **place)


def _check_public(endpoint_url: str) -> None:
    url = urlsplit(endpoint_url)
    host = url.hostname or ""
    try:
        addresses = resolved(host, url.port or 443)
    except OSError:
        raise InvalidValue(f"{ENDPOINT}: there is no host {host}; check it", [{"key": ENDPOINT}]) from None
    if not all(map(is_public, addresses)):
        raise InvalidValue(
            f"{ENDPOINT}: {host} has an address that is not public, which this worker puts nothing into; "
            "use storage on the internet, or set ALLOW_PRIVATE_URLS",
            [{"key": ENDPOINT}],
        )
