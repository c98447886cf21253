"""Asks the ComfyUI registry, and servers like it, and explains in one line what they refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from comfy_common.errors import SetupError
from comfy_common.pinned_http import PinnedClient, RequestRefused, UnknownHost
from comfy_setup.child import explain

__all__ = ["HTTPProblem", "Malformed", "Registry", "RegistryPack", "Release", "read_url"]

REGISTRY = "https://api.comfy.org"
TIMEOUT_S = 60.0
# The statuses of a version that the registry has not withdrawn.
GOOD_STATUS = ("NodeVersionStatusActive", "NodeVersionStatusPending")
MAX_NEAREST = 3


class HTTPProblem(Exception):
    """A server answered with an error.

    Args:
        status: the HTTP status.
        url: what was requested.
    """

    def __init__(self, status: int, url: str) -> None:
        super().__init__(status)
        self.status = status
        self.url = url


class Malformed(SetupError):
    """An answer is not what was requested."""


@dataclass(frozen=True)
class Release:
    """A version of a pack in the registry.

    Args:
        version: as custom_nodes.txt names it.
        status: whether it is withdrawn; one of GOOD_STATUS if not.
        dependencies: its Python packages, as in a requirements.txt.
        url: of its archive.
    """

    version: str
    status: str = GOOD_STATUS[0]
    dependencies: tuple[str, ...] = ()
    url: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the registry has not withdrawn it."""
        return self.status in GOOD_STATUS


@dataclass(frozen=True)
class RegistryPack:
    """A pack of the registry.

    Args:
        name: its name there.
        repository: the URL of its Git repository; may be empty.
        newest: its newest version; None if it has none.
    """

    name: str
    repository: str
    newest: Release | None


def read_url(url: str, subject: str, environ: Mapping[str, str]) -> bytes:
    """Download a small file.

    Args:
        url: http or https.
        subject: begins the sentence of an error, such as "comfyui-kjnodes cannot be downloaded".
        environ: may name a proxy, which the error names too.

    Raises:
        HTTPProblem: the server answered with an error.
        Malformed: the URL cannot be used.
        SetupError: the server cannot be reached; one line for the user.
    """
    client = PinnedClient(allow_private=True, use_proxies=True, silence_s=lambda: TIMEOUT_S)
    try:
        with client.open(url) as answer:
            if answer.response.status != 200:
                raise HTTPProblem(answer.response.status, answer.target.url)
            return answer.response.read()
    except UnknownHost as error:
        why = explain(f"Could not resolve host: {error.host}", environ)
        raise SetupError(f"{subject}: {why} ({url})") from None
    except (OSError, HTTPException) as error:
        why = explain(f"{type(error).__name__}: {error} ({url})", environ)
        raise SetupError(f"{subject}: {why}") from error
    except RequestRefused as error:
        raise Malformed(f"{subject}: {url} cannot be used ({type(error).__name__})") from error


class Registry:
    """The ComfyUI registry, or a mirror of it.

    Args:
        environ: may hold COMFY_REGISTRY_URL, and a proxy.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.url = (environ.get("COMFY_REGISTRY_URL") or REGISTRY).rstrip("/")
        self._environ = environ

    def pack(self, name: str) -> RegistryPack | None:
        """Look a pack up; None if the registry has no such pack.

        Args:
            name: of the pack.

        Raises:
            SetupError: the registry cannot be reached, or answers with an error.
        """
        found = self._get(f"/nodes/{quote(name, safe='')}")
        # Names in the registry are lower-case, those of folders and repositories often not.
        if found is None and name != name.lower():
            return self.pack(name.lower())
        if not isinstance(found, dict) or not isinstance(found.get("id"), str):
            if found is not None:
                raise Malformed(f"the answer of {self.url} about {name} has another form")
            return None
        newest = _release(found.get("latest_version"))
        return RegistryPack(found["id"], _text(found.get("repository")), newest)

    def releases(self, name: str) -> list[Release]:
        """List the versions of a pack, the newest first.

        Args:
            name: of the pack.

        Raises:
            SetupError: the registry cannot be reached, or answers with an error.
        """
        found = self._get(f"/nodes/{quote(name, safe='')}/versions")
        entries = found if isinstance(found, list) else []
        releases = [release for entry in entries if (release := _release(entry))]
        return sorted(releases, key=lambda release: version_key(release.version), reverse=True)

    def pack_of_class(self, class_type: str) -> str:
        """Name the pack that has a class; empty if the registry knows none.

        Args:
            class_type: the name of the class.

        Raises:
            SetupError: the registry cannot be reached, or answers with an error.
        """
        found = self._get(f"/comfy-nodes/{quote(class_type, safe='')}/node")
        return _text(found.get("id")) if isinstance(found, dict) else ""

    def nearest(self, name: str) -> list[str]:
        """Name up to three packs that a mistyped name may mean.

        Args:
            name: as the user wrote it.

        Raises:
            SetupError: the registry cannot be reached, or answers with an error.
        """
        words = quote(re.sub(r"[\W_]+", " ", name).strip(), safe="")
        found = self._get(f"/nodes/search?search={words}&limit=10")
        entries = found.get("nodes") if isinstance(found, dict) else None
        names = [_text(entry.get("id")) for entry in _dicts(entries)]
        return [entry for entry in names if entry][:MAX_NEAREST]

    def _get(self, path: str) -> Any:
        """The JSON at a path; None if the registry has nothing there."""
        url = self.url + path
        subject = "the registry of node packs does not answer"
        try:
            return json.loads(read_url(url, subject, self._environ))
        except HTTPProblem as error:
            if error.status == 404:
                return None
            raise SetupError(f"the registry answers {error.status} ({url})") from None
        except (ValueError, RecursionError):
            raise Malformed(f"the answer of {url} is not JSON: is it a registry?") from None


def version_key(version: str) -> list[tuple[int, str]]:
    """Return what sorts versions: by their numbers, and a release after its candidates."""
    released, _, candidate = version.partition("-")
    key = [(int(digits), "") for digits in re.findall(r"\d+", released)]
    return [*key, (-1, candidate) if candidate else (0, "")]


def _release(entry: Any) -> Release | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("version"), str):
        return None
    named = entry.get("dependencies")
    lines = named if isinstance(named, list) else []
    return Release(
        entry["version"],
        _text(entry.get("status")) or GOOD_STATUS[0],
        tuple(line for line in lines if isinstance(line, str)),
        _text(entry.get("downloadUrl")),
    )


def _dicts(entries: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(entries, list):
        yield from (entry for entry in entries if isinstance(entry, dict))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
