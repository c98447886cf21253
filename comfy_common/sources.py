"""Where a model file comes from: a file of a Hugging Face repository, or any other URL.

The one home of how such a word is read, and of which token goes to which host.  No word of a source that is shown
holds a query or a password.  Standard library only; fetches nothing.
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
FILE_PAGE = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+)/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<file>.+)")


class SourceError(SetupError):
    """A word that is neither a URL nor a file of a repository."""


@dataclass(frozen=True)
class Access:
    """What may be shown to whom, and reached.

    Args:
        hf_token: for the hub, empty for none.
        civitai_token: for civitai.com, empty for none.
        endpoint: where the hub is.
        private: whether URLs may lead to addresses that are not public, and through proxies.
    """

    hf_token: str = ""
    civitai_token: str = ""
    endpoint: str = HUB
    private: bool = True

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Access:
        """Read the tokens and the hub's address; for an operator, who may reach every address.

        Args:
            environ: may hold HF_TOKEN, CIVITAI_TOKEN and HF_ENDPOINT.
        """
        endpoint = environ.get("HF_ENDPOINT", "").rstrip("/") or HUB
        return cls(environ.get("HF_TOKEN", ""), environ.get("CIVITAI_TOKEN", ""), endpoint)


@dataclass(frozen=True)
class Source:
    """Where one model file comes from.

    Args:
        host: for the hub always huggingface.co, whatever its endpoint is.
        file: its path in the repository, or in the URL.
        url: the whole URL, may hold secrets; empty for a file of the hub.
        repo: "owner/name", empty where it is not the hub's.
        revision: of that repository.
    """

    host: str
    file: str
    url: str = ""
    repo: str = ""
    revision: str = "main"

    @property
    def shown(self) -> str:
        """The source as anyone may read it; of a long one, its beginning and its end."""
        text = f"hf:{self.repo}/{self.file}" if self.repo else f"{self.host}{self.file}"
        if len(text) <= LONGEST_SHOWN:
            return text
        return f"{text[: LONGEST_SHOWN - 60]}...{text[-50:]}"

    @property
    def name(self) -> str:
        """The file's name, as far as the source tells it."""
        return PurePosixPath(self.file).name

    def token(self, access: Access) -> str:
        """The token that its host is shown, empty for none.

        Args:
            access: the tokens there are.
        """
        if self.repo:
            return access.hf_token
        return access.civitai_token if self.host == CIVITAI or self.host.endswith(f".{CIVITAI}") else ""


def is_source(text: str) -> bool:
    """Tell whether a word means a file to fetch rather than one that is installed.

    Args:
        text: as a client wrote it.
    """
    return text.startswith(("hf:", "http://", "https://"))


def read_source(text: str, endpoint: str = HUB) -> Source:
    """Read where a file comes from.

    Args:
        text: `hf:owner/repo/file`, `hf:owner/repo@revision/file`, or a URL; the URL of a file's page on the hub
            means the file.
        endpoint: where the hub is.

    Returns:
        The source.

    Raises:
        SourceError: it is none.
    """
    control = re.search(r"[\x00-\x1f\x7f]", unquote(text))  # it would stand in logs
    if text.startswith("hf:"):
        if not control and (short := SHORT.fullmatch(text)) and ".." not in PurePosixPath(short["file"]).parts:
            return Source("huggingface.co", short["file"], "", short["repo"], short["revision"] or "main")
        raise SourceError("a file of the hub is written hf:owner/repo/file")
    try:
        parts = urlsplit(text)
        host, _port = (parts.hostname or "").lower(), parts.port
        hub = urlsplit(endpoint)
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or control or re.search(r"[\s\\]", text):
        raise SourceError("a model is given by a URL that begins with https://, or as hf:owner/repo/file")
    page = FILE_PAGE.fullmatch(parts.path)
    if page and (host in HUB_HOSTS or parts.netloc == hub.netloc):
        file = unquote(page["file"])
        if ".." not in file.split("/"):
            return Source("huggingface.co", file, "", page["repo"], unquote(page["revision"]))
    return Source(host, unquote(parts.path), text)
