"""Hides the worker's secrets from the programs that it starts.

Node packs are code of strangers. They run as the same user, and can read the environment of a
process.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

__all__ = ["hide_own_secrets", "is_secret", "loopback_variables", "public_variables"]

# Secrets of the worker, and of RunPod's and AWS's libraries in it. No node needs them.
SECRET_PREFIXES = ("RUNPOD_", "BUCKET_", "AWS_", "S3_")
SECRET_NAMES = {
    *(
        "HF_TOKEN",
        "HF_API_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HUGGINGFACE_TOKEN",
        "HUGGINGFACEHUB_API_TOKEN",
    ),
    *(
        "CIVITAI_TOKEN",
        "CIVITAI_API_KEY",
        "CIVITAI_API_TOKEN",
        "COMFY_ORG_API_KEY",
        "JUPYTER_PASSWORD",
    ),
}
LOOPBACK = "127.0.0.1,localhost,::1"
# The fields of /proc/self/stat, after the name in brackets, with the addresses of the environment.
ENV_START, ENV_END = 47, 48


def is_secret(name: str) -> bool:
    """Whether an environment variable may contain a secret of the worker."""
    return name.upper() in SECRET_NAMES or name.upper().startswith(SECRET_PREFIXES)


def public_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Copy an environment without the worker's secrets."""
    return {name: value for name, value in environ.items() if not is_secret(name)}


def loopback_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep requests to this machine away from a proxy of the environment."""
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY")
    no_proxy = ",".join(filter(None, [excepted, LOOPBACK]))
    return {"NO_PROXY": no_proxy, "no_proxy": no_proxy}


def hide_own_secrets(environ: MutableMapping[str, str] = os.environ) -> None:
    """Overwrite the worker's secrets in ``/proc/PID/environ``.

    The kernel shows the memory that a process received at its start. The variables keep their
    values, since setting a variable again makes the C library copy it to other memory first.
    """
    if sys.platform != "linux":
        return
    try:
        stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()
        start, end = int(fields[ENV_START]), int(fields[ENV_END])
    except (OSError, IndexError, ValueError):  # this kernel does not show the addresses
        return
    if not 0 < start < end:
        return
    secrets = {name: value for name, value in environ.items() if is_secret(name)}
    for name, value in secrets.items():
        environ[name] = value
    shown = ctypes.string_at(start, end - start)
    position = 0
    for entry in shown.split(b"\0"):
        shown_name, separator, shown_value = entry.partition(b"=")
        if separator and is_secret(os.fsdecode(shown_name)):
            # Not with zeros: for a reader, two of them end the environment.
            ctypes.memset(start + position + len(shown_name) + 1, ord("*"), len(shown_value))
        position += len(entry) + 1
