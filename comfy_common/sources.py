"""Reads where a model file comes from: a file of a Hugging Face repository, or any other URL.

Also decides which token each host receives. The readable form of a source never contains a query or
a password. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from comfy_common.errors import SetupError

HUB = "https://huggingface.co"
HUB_HOSTS = {"huggingface.co", "www.huggingface.co", "hf.co"}
CIVITAI = "civitai.com"
LONGEST_SHOWN = 200
SHORT = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?/(?P<file>.+)")
FILE_PAGE = re.compile(
    r"/(?P<repo>[\w.-]+/[\w.-]+)/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<file>.+)"
)
HUB_FORM = "a file of the hub is written hf:owner/repo/file"
URL_FORM = "a model is given by a URL that begins with https://, or as hf:owner/repo/file"


class SourceError(SetupError):
    """A text is neither a URL nor a file of a repository."""


@dataclass(frozen=True)
class Access:
    """The tokens that a download may send, and the addresses that it may reach.

    Args:
        hf_token: the token for the hub; empty for none.
        civitai_token: the token for civitai.com; empty for none.
        endpoint: the URL of the hub.
        private: whether URLs may lead to addresses that are not public, and through proxies.
    """

    hf_token: str = ""
    civitai_token: str = ""
    endpoint: str = HUB
    private: bool = True

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Access:
        """Read the tokens and the hub's URL, for an operator, who may reach every address.

        Args:
            environ: may hold HF_TOKEN, CIVITAI_TOKEN and HF_ENDPOINT.
        """
        endpoint = environ.get("HF_ENDPOINT", "").rstrip("/") or HUB
        return cls(environ.get("HF_TOKEN", ""), environ.get("CIVITAI_TOKEN", ""), endpoint)


@dataclass(frozen=True)
class Source:
    """Where one model file comes from.

    Args:
        host: for the hub always huggingface.co, also if its endpoint is another.
        file: the path in the repository, or in the URL.
        url: the full URL, which may contain secrets; empty for a file of the hub.
        repo: "owner/name"; empty if the file is not on the hub.
        revision: the revision of the repository.
    """

    host: str
    file: str
    url: str = ""
    repo: str = ""
    revision: str = "main"

    @property
    def shown(self) -> str:
        """The source without secrets; a long one is shortened in the middle."""
        text = f"hf:{self.repo}/{self.file}" if self.repo else f"{self.host}{self.file}"
        if len(text) <= LONGEST_SHOWN:
            return text
        return f"{text[: LONGEST_SHOWN - 60]}...{text[-50:]}"

    @property
    def name(self) -> str:
        """The name of the file, by the source."""
        return PurePosixPath(self.file).name

    def token(self, access: Access) -> str:
        """The token that the source's host receives; empty for none.

        Args:
            access: all tokens.
        """
        if self.repo:
            return access.hf_token
        return access.civitai_token if self.is_civitai else ""

    @property
    def is_civitai(self) -> bool:
        """Whether the file is on civitai.com."""
        return self.host == CIVITAI or self.host.endswith(f".{CIVITAI}")


def is_source(text: str) -> bool:
    """Whether a text names a file to download, and not an installed file.

    Args:
        text: as a client wrote it.
    """
    return text.startswith(("hf:", "http://", "https://"))


def read_source(text: str, endpoint: str = HUB) -> Source:
    """Read where a file comes from.

    Args:
        text: `hf:owner/repo/file`, `hf:owner/repo@revision/file`, or a URL. The URL of a file's
            page on the hub means the file itself.
        endpoint: the URL of the hub.

    Returns:
        The source.

    Raises:
        SourceError: the text is neither.
    """
    return _hub_file(text) if text.startswith("hf:") else _file_at_url(text, endpoint)


def _has_control_characters(text: str) -> bool:
    """Whether a text contains characters that could forge lines in a log."""
    return re.search(r"[\x00-\x1f\x7f]", unquote(text)) is not None


def _hub_file(text: str) -> Source:
    short = SHORT.fullmatch(text)
    if short is None or _has_control_characters(text):
        raise SourceError(HUB_FORM)
    if ".." in PurePosixPath(short["file"]).parts:
        raise SourceError(HUB_FORM)
    return Source("huggingface.co", short["file"], "", short["repo"], short["revision"] or "main")


def _file_at_url(text: str, endpoint: str) -> Source:
    try:
        parts = urlsplit(text)
        host, _port = (parts.hostname or "").lower(), parts.port
        hub = urlsplit(endpoint)
    except ValueError:
        raise SourceError(URL_FORM) from None
    if not host or parts.scheme not in ("http", "https"):
        raise SourceError(URL_FORM)
    # Programs disagree about where a host with a backslash ends.
    if _has_control_characters(text) or re.search(r"[\s\\]", text):
        raise SourceError(URL_FORM)
    page = FILE_PAGE.fullmatch(parts.path)
    if page and (host in HUB_HOSTS or parts.netloc == hub.netloc):
        file = unquote(page["file"])
        if ".." not in file.split("/"):
            return Source("huggingface.co", file, "", page["repo"], unquote(page["revision"]))
    return Source(host, unquote(parts.path), text)
