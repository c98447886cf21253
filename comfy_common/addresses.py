"""Tells public network addresses from private ones, and hosts that a setting allows from others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

__all__ = ["host_matches", "is_public", "resolved"]

GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
IPV4_IN_IPV6 = ipaddress.IPv6Network("2002::/16")  # 6to4: the IPv4 address in it may be private


def resolved(
    host: str, port: int, resolve: Callable[..., list[Any]] = socket.getaddrinfo
) -> list[str]:
    """Look up the addresses of a host.

    Raises:
        OSError: the host is unknown.
    """
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an IP address is public, and does not contain one that is private."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in GLOBAL_IPV6 or ip in IPV4_IN_IPV6):
        return False
    return ip.is_global and not ip.is_multicast


def host_matches(host: str, allowed: str) -> bool:
    """Whether a host is the allowed one, or for ``.example.com`` a host below it."""
    return host.endswith(allowed) if allowed.startswith(".") else host == allowed
