"""Says what to check when a host does not answer: the connection, the proxy, and a mirror."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["advice", "host_in"]

URL_HOST = re.compile(r"https?://(?:[^@/\s'\"`]*@)?(?P<host>[\w.-]+)")
NAMED_HOST = re.compile(r"(?:Could not resolve host: ?|host=')(?P<host>[\w.-]+)")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
# How to set a mirror for a host and its subdomains.
MIRRORS = {
    "huggingface.co": "set HF_ENDPOINT to a mirror of the hub",
    "hf.co": "set HF_ENDPOINT to a mirror of the hub",
    "github.com": "name a mirror with --comfyui-source git+URL",
    "api.comfy.org": "set COMFY_REGISTRY_URL to a mirror of the registry",
    "raw.githubusercontent.com": "set COMFY_NODE_MAP_URL to a mirror of ComfyUI-Manager's lists",
    "civitai.com": "name another source in models.txt",
}
PACKAGE_MIRROR = "set PIP_INDEX_URL to a mirror of the package index"


def host_in(output: str) -> str:
    """The host that a program could not reach, by its output; empty if the output names none."""
    found = NAMED_HOST.search(output) or URL_HOST.search(output)
    return found["host"] if found else ""


def advice(host: str, environ: Mapping[str, str], mirror: str = "") -> str:
    """Say what to check, as the end of a sentence.

    Args:
        host: the host that does not answer; empty if it is not known.
        environ: may name a proxy.
        mirror: how to set another address; empty to choose the text by the host.
    """
    proxy = next((environ[name] for name in PROXIES if environ.get(name)), "")
    how = "if there is a proxy, set HTTPS_PROXY"
    if proxy:
        how = f"and the proxy {_without_password(proxy)}"
    if not mirror:
        mirror = _mirror_of(host)
    return f"check the connection to {host or 'the package index'}; {how}; or {mirror}"


def _mirror_of(host: str) -> str:
    for name, mirror in MIRRORS.items():
        if host == name or host.endswith(f".{name}"):
            return mirror
    return PACKAGE_MIRROR


def _without_password(proxy: str) -> str:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "of HTTPS_PROXY"
