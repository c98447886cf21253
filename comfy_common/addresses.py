"""Which network addresses a client may lead the worker to: those of the public internet."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

__all__ = ["is_public", "resolved"]

GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
IPV4_IN_IPV6 = ipaddress.IPv6Network("2002::/16")  # 6to4: the address behind it may be a private one


def resolved(host: str, port: int, resolve: Callable[..., list[Any]] = socket.getaddrinfo) -> list[str]:
    """The addresses of a host.

    Raises:
        OSError: there is no such host.
    """
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and leads to no other that is not."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in GLOBAL_IPV6 or ip in IPV4_IN_IPV6):
        return False
    return ip.is_global and not ip.is_multicast
