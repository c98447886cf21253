"""Finds out within seconds whether a Git server answers, the way that Git itself would reach it.

Git waits for minutes where a firewall drops what it sends; whoever has no way to that server should not.
"""

from __future__ import annotations

import queue
import ssl
import threading
from collections.abc import Mapping
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

ANSWER_S = 5.0


def why_unreachable(url: str, proxy: str = "", within_s: float = ANSWER_S) -> str:
    """Ask a Git server for a sign of life.

    Args:
        url: a repository's; anything but http and https counts as reachable.
        proxy: as :func:`proxy_for` gives it.
        within_s: how long it may take in all. Looking a name up cannot be limited in Python, so a thread does it.

    Returns:
        Why the server cannot be reached; empty if it answered, even with an error.
    """
    socks = bool(proxy) and not proxy.startswith(("http://", "https://"))  # Git knows these, Python does not
    if socks or not url.startswith(("http://", "https://")):
        return ""
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask(url, proxy, within_s)), daemon=True).start()
    try:
        return answers.get(timeout=within_s)
    except queue.Empty:
        return f"no answer within {within_s:g} s"


def proxy_for(url: str, environ: Mapping[str, str]) -> str:
    """Look up the proxy that leads to a URL.

    Args:
        url: http or https.
        environ: may hold `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, in capitals too.

    Returns:
        The proxy's URL, empty if there is none on the way.
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


def opener(proxy: str) -> OpenerDirector:
    """Make what opens URLs through a proxy.

    Args:
        proxy: its URL, empty for none.
    """
    return build_opener(ProxyHandler({"http": proxy, "https": proxy} if proxy else {}))


def _ask(url: str, proxy: str, within_s: float) -> str:
    # The second version of Git's protocol answers this with a few lines, the first with all branches and tags.
    question = f"{url.rstrip('/')}/info/refs?service=git-upload-pack"
    try:
        request = Request(question, headers={"Git-Protocol": "version=2", "User-Agent": "git/2"})  # noqa: S310
        opener(proxy).open(request, timeout=within_s).close()
    except HTTPError as error:
        error.close()
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return ""  # Git may trust other certificates, and says so if not
        return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
    return ""
