"""What to check where a host does not answer: the connection, the proxy, and a mirror."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["advice", "host_in"]

URL_HOST = re.compile(r"https?://(?:[^@/\s'\"`]*@)?(?P<host>[\w.-]+)")
NAMED_HOST = re.compile(r"(?:Could not resolve host: ?|host=')(?P<host>[\w.-]+)")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
# How another address is set in place of a host, or of those below it.
MIRRORS = {
    "huggingface.co": "set HF_ENDPOINT to a mirror of the hub",
    "hf.co": "set HF_ENDPOINT to a mirror of the hub",
    "github.com": "say --comfyui-source git+URL with a mirror",
    "api.comfy.org": "set COMFY_REGISTRY_URL to a mirror of the registry",
    "civitai.com": "name another source in models.txt",
}
PACKAGE_MIRROR = "set PIP_INDEX_URL to a mirror of the package index"


def host_in(output: str) -> str:
    """The host that a program says it could not reach; empty where it names none."""
    found = NAMED_HOST.search(output) or URL_HOST.search(output)
    return found["host"] if found else ""


def advice(host: str, environ: Mapping[str, str], mirror: str = "") -> str:
    """Say what to check, as the end of a sentence.

    Args:
        host: that does not answer, empty where it is not known.
        environ: may hold a proxy.
        mirror: how another address is set; by the host if empty.
    """
    proxy = next((environ[name] for name in PROXIES if environ.get(name)), "")
    how = "if there is a proxy, set HTTPS_PROXY"
    if proxy:
        how = f"and the proxy {_without_password(proxy)}"
    if not mirror:
        known = [way for name, way in MIRRORS.items() if host == name or host.endswith(f".{name}")]
        mirror = known[0] if known else PACKAGE_MIRROR
    return f"check the connection to {host or 'the package index'}; {how}; or {mirror}"


def _without_password(proxy: str) -> str:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "of HTTPS_PROXY"
