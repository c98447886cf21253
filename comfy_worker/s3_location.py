"""Reads which bucket results go to, from the settings or a job's ``s3Config``. Opens no connection."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypedDict
from urllib.parse import urlsplit

from pydantic import SecretStr

__all__ = ["EXPIRY_LIMIT_S", "Bucket", "Place", "locate"]

LAST_PORT = 65_535
# A host has at most 253 characters.
MAX_URL = 1000
EXPIRY_LIMIT_S = 7 * 24 * 3600  # the longest that a signature (version 4) may hold

# Hosts that begin with the bucket: AWS and whoever calls its hosts alike, DigitalOcean, Cloudflare.
_VIRTUAL_HOSTS = (
    re.compile(r"(?P<bucket>.+)\.(?P<host>s3[.-].+)"),
    re.compile(r"(?P<bucket>.+)\.(?P<host>[\w-]+\.digitaloceanspaces\.com.*)"),
    re.compile(r"(?P<bucket>.+)\.(?P<host>[0-9a-f]{32}(?:\.\w+)?\.r2\.cloudflarestorage\.com.*)"),
)
_REGION = re.compile(
    r"(?:^|\.)s3(?:\.dualstack)?[.-](?P<aws>[a-z]+-[\w-]+)\.|(?P<spaces>[\w-]+)\.digitaloceanspaces\.com"
)


class Place(TypedDict):
    """What an endpoint URL says, under the names that :class:`Bucket` has for it."""

    endpoint_url: str
    name: str
    virtual_hosted: bool
    region: str


@dataclass(frozen=True)
class Bucket:
    """An S3-compatible bucket.

    Attributes:
        endpoint_url: of the service, without the bucket.
        name: of the bucket.
        access_key_id: who uploads.
        secret_access_key: and proves it.
        virtual_hosted: whether the service is asked as ``bucket.host`` rather than ``host/bucket``.
        region: as the host names it; empty where it names none.
        prefix: of every key, without slashes at its ends.
        url_expiry_s: how long a link is good, in seconds, at most seven days.
        public_url: what a key is put behind to make its link; empty: links are signed.
    """

    endpoint_url: str
    name: str
    access_key_id: str
    secret_access_key: SecretStr = field(repr=False)
    virtual_hosted: bool = False
    region: str = ""
    prefix: str = ""
    url_expiry_s: int = EXPIRY_LIMIT_S
    public_url: str = ""

    def key(self, job_id: str, filename: str) -> str:
        """The key of a job's file: ``prefix/job_id/filename``."""
        return "/".join(part for part in (self.prefix.strip("/"), job_id, filename) if part)


def locate(endpoint_url: str, name: str) -> Place:
    """Tell service and bucket apart.

    Args:
        endpoint_url: the service's URL, or one that names the bucket too, as ``https://bucket.host`` or
            ``https://host/bucket``.
        name: of the bucket; empty if the URL names it.

    Raises:
        ValueError: the URL is none, or no bucket is named.
    """
    if len(endpoint_url) > MAX_URL or len(name) > MAX_URL:
        raise ValueError(f"and the bucket's name should have at most {MAX_URL} characters each")
    url = urlsplit(endpoint_url)
    port = url.netloc.partition(":")[2]
    if (
        url.scheme not in ("http", "https")
        or not re.fullmatch(r"[\w.-]+(:\d{1,5})?", url.netloc)
        or int(port or 443) > LAST_PORT
    ):
        raise ValueError("should be a URL such as https://s3.eu-central-1.amazonaws.com")
    host, path, virtual_hosted = url.netloc, url.path.strip("/"), False
    for form in _VIRTUAL_HOSTS:
        match = form.fullmatch(host)
        if match and name in ("", match["bucket"]):
            name, host, virtual_hosted = match["bucket"], match["host"], True
            break
    if path and "/" not in path and name in ("", path):
        name, path = path, ""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name):
        raise ValueError(f"names no bucket, and {name!r} is no bucket's name")
    region = _REGION.search(host)
    return {
        "endpoint_url": f"{url.scheme}://{host}" + (f"/{path}" if path else ""),
        "name": name,
        "virtual_hosted": virtual_hosted,
        "region": (region["aws"] or region["spaces"]) if region else "",
    }
