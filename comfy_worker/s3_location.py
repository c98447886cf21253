"""Finds service, bucket and region in the URL of S3-compatible storage. Opens no connection."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypedDict
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

__all__ = ["EXPIRY_LIMIT_S", "Bucket", "S3Location", "parse_endpoint"]

LAST_PORT = 65_535
MAX_URL = 1000  # characters; a host has at most 253
EXPIRY_LIMIT_S = 7 * 24 * 3600  # the longest life of a link with a signature of version 4
URL_PROBLEM = "should be a URL such as https://s3.eu-central-1.amazonaws.com"

# Hosts that begin with the bucket: AWS and services with the same host names, DigitalOcean,
# Cloudflare.
_VIRTUAL_HOSTS = (
    re.compile(r"(?P<bucket>.+)\.(?P<host>s3[.-].+)"),
    re.compile(r"(?P<bucket>.+)\.(?P<host>[\w-]+\.digitaloceanspaces\.com.*)"),
    re.compile(r"(?P<bucket>.+)\.(?P<host>[0-9a-f]{32}(?:\.\w+)?\.r2\.cloudflarestorage\.com.*)"),
)
_REGION = re.compile(
    r"(?:^|\.)s3(?:\.dualstack)?[.-](?P<aws>[a-z]+-[\w-]+)\."
    r"|(?P<spaces>[\w-]+)\.digitaloceanspaces\.com"
)


class S3Location(TypedDict):
    """The parts of an endpoint URL; the keys are those of :class:`Bucket`."""

    endpoint_url: str
    name: str
    virtual_hosted: bool
    region: str


@dataclass(frozen=True)
class Bucket:
    """An S3-compatible bucket.

    Attributes:
        endpoint_url: the URL of the service, without the bucket.
        name: the bucket's name.
        access_key_id: the account that uploads.
        secret_access_key: the account's secret.
        virtual_hosted: whether the bucket's URL is ``bucket.host`` rather than ``host/bucket``.
        region: found in the host; empty if the host contains none.
        prefix: the beginning of every key.
        url_expiry_s: how long a signed link is valid, in seconds; at most seven days.
        public_url: links are this URL followed by the key; empty: links are signed.
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
        """Return the key of a job's file: ``prefix/job_id/filename``."""
        parts = (self.prefix.strip("/"), job_id, filename)
        return "/".join(part for part in parts if part)


def parse_endpoint(endpoint_url: str, name: str) -> S3Location:
    """Split an endpoint URL into service, bucket and region.

    Args:
        endpoint_url: the service's URL. It may contain the bucket: ``https://bucket.host`` or
            ``https://host/bucket``.
        name: the bucket's name; empty if the URL contains it.

    Raises:
        ValueError: the URL is invalid, or neither contains a bucket.
    """
    url = _split_url(endpoint_url, name)
    host = url.netloc
    path = url.path.strip("/")
    virtual_hosted = False
    for form in _VIRTUAL_HOSTS:
        match = form.fullmatch(host)
        if match and name in ("", match["bucket"]):
            name, host, virtual_hosted = match["bucket"], match["host"], True
            break
    if path and "/" not in path and name in ("", path):
        name = path
        path = ""
    if not name:
        raise ValueError("does not contain the name of a bucket; set the bucket's name")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name):
        raise ValueError(f"cannot be used with {name!r}, which is not a valid bucket name")
    return {
        "endpoint_url": f"{url.scheme}://{host}/{path}".rstrip("/"),
        "name": name,
        "virtual_hosted": virtual_hosted,
        "region": _region_of(host),
    }


def _region_of(host: str) -> str:
    match = _REGION.search(host)
    if match is None:
        return ""
    return match["aws"] or match["spaces"]


def _split_url(endpoint_url: str, name: str) -> SplitResult:
    """Split a URL, and check all of it except its path.

    Raises:
        ValueError: the URL is invalid, or a text is too long.
    """
    if len(endpoint_url) > MAX_URL or len(name) > MAX_URL:
        raise ValueError(f"and the bucket's name should have at most {MAX_URL} characters each")
    try:
        url = urlsplit(endpoint_url)
    except ValueError:  # brackets that hold no IPv6 address
        raise ValueError(URL_PROBLEM) from None
    if url.scheme not in ("http", "https") or not re.fullmatch(r"[\w.-]+(:\d{1,5})?", url.netloc):
        raise ValueError(URL_PROBLEM)
    port = url.netloc.partition(":")[2]
    if port and int(port) > LAST_PORT:
        raise ValueError(URL_PROBLEM)
    return url
