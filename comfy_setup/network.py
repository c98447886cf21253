"""Finds out within seconds whether a Git server answers, through the proxy that Git would use.

Git waits for minutes if a firewall drops its packets. A user without network access should not.
"""

from __future__ import annotations

import queue
import ssl
import threading
import time
from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import urlsplit

from comfy_common.pinned_http import (
    InvalidURL,
    PinnedClient,
    RequestRefused,
    UnknownHost,
    UnsupportedProxy,
)

ANSWER_S = 5.0


def why_unreachable(url: str, proxy: str = "", within_s: float = ANSWER_S) -> str:
    """Find out why a Git server cannot be reached.

    Args:
        url: a repository's URL; anything but http and https counts as reachable.
        proxy: as :func:`proxy_for` returns it.
        within_s: the time limit.

    Returns:
        The reason; empty if the server answered, even with an error.
    """
    # Git supports SOCKS proxies, Python does not.
    is_socks = bool(proxy) and not proxy.startswith(("http://", "https://"))
    if is_socks or not url.startswith(("http://", "https://")):
        return ""
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    # In a thread, since Python cannot limit the time of resolving the proxy's name.
    threading.Thread(target=lambda: answers.put(_ask(url, proxy, within_s)), daemon=True).start()
    try:
        return answers.get(timeout=within_s)
    except queue.Empty:
        return f"no answer within {within_s:g} s"


def proxy_for(url: str, environ: Mapping[str, str]) -> str:
    """Find the proxy for a URL.

    Args:
        url: http or https.
        environ: may hold `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, also in capitals.

    Returns:
        The proxy's URL, empty for none.
    """
    settings = {name.lower(): value for name, value in environ.items() if value}
    parts = urlsplit(url)
    host = parts.hostname or ""
    for name in settings.get("no_proxy", "").split(","):
        domain = name.strip().lower().lstrip(".").partition(":")[0]
        if domain == "*" or (domain and (host == domain or host.endswith(f".{domain}"))):
            return ""
    proxy = settings.get(f"{parts.scheme}_proxy") or settings.get("all_proxy", "")
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def why_refused(error: RequestRefused) -> str:
    """Say in words why a request was not sent."""
    if isinstance(error, UnknownHost):
        return f"there is no host {error.host}"
    if isinstance(error, InvalidURL):
        return "the URL cannot be read"
    if isinstance(error, UnsupportedProxy):
        return "the environment names a SOCKS proxy, which Python does not support"
    return f"the server redirects to a URL that cannot be used ({type(error).__name__})"


def _ask(url: str, proxy: str, within_s: float) -> str:
    """Send one request; returns why there is no answer, or an empty text."""
    # Version 2 of Git's protocol answers with a few lines, version 1 with all branches and tags.
    question = f"{url.rstrip('/')}/info/refs?service=git-upload-pack"
    headers = {"Git-Protocol": "version=2", "User-Agent": "git/2"}
    deadline = time.monotonic() + within_s

    def is_over() -> bool:
        return time.monotonic() >= deadline

    client = PinnedClient(
        allow_private=True, proxy=proxy, is_over=is_over, silence_s=lambda: within_s
    )
    try:
        with client.open(question, lambda _target: headers, follow=False):
            return ""
    except RequestRefused as error:
        return why_refused(error)
    except ssl.SSLCertVerificationError:
        return ""  # Git may trust other certificates, and says so if not
    except (OSError, HTTPException) as error:
        if is_over():
            return f"no answer within {within_s:g} s"
        return str(getattr(error, "strerror", None) or error) or type(error).__name__
