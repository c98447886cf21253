"""Where a URL may lead: decided once its host is resolved, and before anything is sent."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from comfy_common.addresses import is_public
from comfy_worker.errors import InvalidMedia
from comfy_worker.inputs.fetch import Fetcher

PRIVATE = [
    "127.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001::1",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_told(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1"]
)
def test_a_public_address_is_told(address: str) -> None:
    assert is_public(address)


def fetcher(*addresses: str, **changes: Any) -> Fetcher:
    """One for which every host has these addresses; with none, the system's resolver is asked."""
    if addresses:
        changes["resolve"] = lambda *_, **__: [
            (0, 0, 0, "", (address, 80)) for address in addresses
        ]
    return Fetcher(max_mb=1, deadline=time.monotonic() + 5, **changes)


@pytest.mark.parametrize("address", PRIVATE)
def test_names_of_private_addresses_are_not_fetched(address: str) -> None:
    with pytest.raises(
        InvalidMedia, match=r"image: pictures\.example has an address that is not public"
    ):
        fetcher(address).fetch("image", "https://pictures.example/a.png")


def test_one_such_address_among_public_ones_is_enough() -> None:
    with pytest.raises(InvalidMedia, match="not public"):
        fetcher("1.1.1.1", "10.0.0.1").fetch("image", "http://pictures.example/a.png")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "0.0.0.0:8000",
        "user:word@127.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
    ],
)
def test_no_spelling_of_an_address_gets_by(host: str) -> None:
    with pytest.raises(InvalidMedia, match="has an address that is not public"):
        fetcher().fetch("image", f"http://{host}/latest/meta-data?token=secret")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.com/a.png", "gopher://x/1", "s3://b/k"]
)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(
        InvalidMedia, match="image must be base64, a data URI, or a URL that begins with http://"
    ):
        fetcher("1.1.1.1").fetch("image", url)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://a:b:c/",
        "http://[1/",
        "http://a:99999/",
        "https:///x",
        f"http://{'a' * 254}/",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidMedia, match="image is not a valid URL"):
        fetcher("1.1.1.1").fetch("image", url)


def test_an_unknown_host_is_told() -> None:
    def unknown(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(
        InvalidMedia, match=r"image: the host nowhere\.example does not exist; check the URL"
    ):
        fetcher(resolve=unknown).fetch("image", "https://nowhere.example/a.png")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("cdn.example.com", False),
        ("example.com", True),
        ("EXAMPLE.com", True),
        ("example.com.evil.org", False),
        ("evilexample.com", False),
        ("a.example.org", True),
        ("example.org", False),
    ],
)
def test_the_list_of_hosts_counts_whole_names(host: str, allowed: bool) -> None:
    # Whoever is allowed goes on to the check of the address.
    sentence = (
        "not public"
        if allowed
        else "this worker does not fetch from .* use example.com or .example.org"
    )
    with pytest.raises(InvalidMedia, match=sentence):
        fetcher("10.0.0.1", allowed_hosts=("example.com", ".example.org")).fetch(
            "image", f"https://{host}/a.png"
        )


def test_no_query_string_stands_in_an_error() -> None:
    with pytest.raises(InvalidMedia) as caught:
        fetcher("10.0.0.1").fetch("image", "https://pictures.example/a.png?X-Amz-Signature=secret")
    assert "secret" not in str(caught.value)
