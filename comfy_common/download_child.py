"""The process that fetches one model file into a folder: it can be killed at any moment, and the next one goes on.

Speaks lines of JSON: reads what to fetch, says the size, waits for `go`, says how it ended; ends with its parent.
What comes from a repository is fetched by huggingface_hub (and hf_xet), everything else by requests.  Runs inside
the virtual environment; what is done with the file is not its business.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from comfy_common.addresses import is_public, resolved
from comfy_common.sources import Access, Source

TIMEOUT_S = (10, 60)
CHUNK_BYTES = 1 << 20
MAX_REDIRECTS = 8
BUSY = {408, 429, 500, 502, 503, 504}
PART = "download.part"
ETAG = "download.etag"


class Ended(Exception):
    """The end of the download, as it is told: `refused` and why, or `again` and why, and when at the earliest."""

    def __init__(self, **told: Any) -> None:
        super().__init__()
        self.told = told


def main() -> int:
    """Fetch one file."""
    asked = json.loads(sys.stdin.readline())
    source, access, folder = Source(**asked["source"]), Access(**asked["access"]), Path(asked["folder"])
    try:
        _say(file=str((_from_hub if source.repo else _from_web)(source, access, folder)))
    except Ended as ended:
        _say(**ended.told)
    except OSError as error:
        if error.errno is None:
            _say(again=f"broke off ({type(error).__name__})")
        else:
            _say(errno=error.errno)
    return 0


def _say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def _admitted(size: int | None, sha256: str = "") -> None:
    """Say what is coming and wait until it may; from then on the end of the parent is the end of this process."""
    _say(size=size, sha256=sha256)
    if sys.stdin.readline() != "go\n":
        sys.exit(1)
    threading.Thread(target=lambda: os._exit(1) if not sys.stdin.read() else None, daemon=True).start()


def _from_hub(source: Source, access: Access, folder: Path) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    token = access.hf_token or None
    try:
        requests.head(access.endpoint, timeout=TIMEOUT_S)  # the hub's own library tries for half a minute
        url = hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=access.endpoint)
        metadata = get_hf_file_metadata(url, token=token, timeout=TIMEOUT_S[0], endpoint=access.endpoint)
        etag = metadata.etag or ""
        _admitted(metadata.size, etag if re.fullmatch(r"[0-9a-f]{64}", etag) else "")
        return Path(
            hf_hub_download(
                source.repo,
                source.file,
                revision=source.revision,
                endpoint=access.endpoint,
                token=token,
                local_dir=folder,
            )
        )
    except hub.GatedRepoError:
        raise Ended(refused=_gated(source, access)) from None
    except hub.RepositoryNotFoundError:
        whose = "the one of HF_TOKEN may not read it" if token else "it is private and HF_TOKEN is not set"
        raise Ended(refused=f"there is no repository {source.repo}, or {whose}") from None
    except hub.RevisionNotFoundError:
        raise Ended(refused=f"the repository {source.repo} has no revision {source.revision}") from None
    except hub.EntryNotFoundError as error:
        if isinstance(error, hub.LocalEntryNotFoundError):  # the hub's own word for: not reached
            raise _problem(error.__cause__ or error, source, access) from None
        raise Ended(refused=f"the repository {source.repo} has no such file") from None
    except (requests.RequestException, hub.OfflineModeIsEnabled) as error:
        raise _problem(error, source, access) from None
    except OSError as error:
        if error.errno is None and "Consistency check failed" in str(error):
            raise Ended(refused="it is not as long as the hub says") from None
        raise
    except (ValueError, RuntimeError) as error:  # names that no repository can have; hf_xet's own failures
        if isinstance(error, hub.HFValidationError):
            raise Ended(refused="that is no name of a repository") from None
        raise Ended(again=f"broke off ({type(error).__name__})") from None


def _from_web(source: Source, access: Access, folder: Path) -> Path:
    part, etag_file = folder / PART, folder / ETAG
    have = part.stat().st_size if part.is_file() else 0
    etag = etag_file.read_text(encoding="utf-8") if etag_file.is_file() else ""
    try:
        with _opened(source, access, have if etag else 0, etag) as response:
            if response.status_code == 416:
                part.unlink()
                raise Ended(again="would not go on where it broke off")
            if response.status_code not in (200, 206):
                raise _refused(response, source, access)
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise Ended(refused="it comes compressed, which no model file should")
            begin = have if response.status_code == 206 else 0
            length = response.headers.get("Content-Length")
            total = None if length is None else begin + int(length)
            _admitted(total)
            etag_file.write_text(response.headers.get("ETag", ""), encoding="utf-8")
            with part.open("r+b" if begin else "wb") as file:
                file.seek(begin)
                while chunk := response.raw.read1(CHUNK_BYTES):  # as it comes: what is written is kept
                    file.write(chunk)
                    file.flush()
            if total is not None and part.stat().st_size != total:
                raise Ended(again="broke off")
            return part
    except requests.RequestException as error:
        raise _problem(error, source, access) from None
    except HTTPError as error:  # while the body was read
        raise Ended(again=f"broke off ({type(error).__name__})") from None


def _opened(source: Source, access: Access, have: int, etag: str) -> requests.Response:
    """The answer to a GET, redirects followed; the token is shown to the source's own host alone, by https."""
    session = requests.Session()
    session.trust_env = access.private  # neither proxies nor passwords of this machine for what clients ask for
    url, token = source.url, source.token(access)
    for _ in range(MAX_REDIRECTS):
        url = requests.Request("GET", url).prepare().url or ""  # or another host is looked at than is asked
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not (access.private or _leads_out(parts.hostname or "")):
            raise Ended(refused="it leads to an address that is not public, which this worker does not fetch from")
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "comfy-worker"}
        if token and (parts.scheme, parts.hostname) == ("https", source.host):
            headers["Authorization"] = f"Bearer {token}"
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": etag}
        response = session.get(url, headers=headers, timeout=TIMEOUT_S, stream=True, allow_redirects=False)
        if not response.is_redirect:
            return response
        response.close()
        url = urljoin(url, response.headers["Location"])
    raise Ended(refused="it redirects too often")


def _leads_out(host: str) -> bool:
    try:
        return all(map(is_public, resolved(host, 443)))
    except OSError:
        raise Ended(again=f"there is no host {host}", unreached=True) from None


def _gated(source: Source, access: Access) -> str:
    page = f"https://huggingface.co/{source.repo}"
    if access.hf_token:
        return f"the account of HF_TOKEN has not accepted the licence: accept it on {page}"
    return f"it is given only to those who accepted its licence: accept it on {page} and set HF_TOKEN"


def _refused(response: requests.Response, source: Source, access: Access) -> Ended:
    """What an answer that is no file means."""
    status = response.status_code
    if status in BUSY:
        wait = response.headers.get("Retry-After", "")
        return Ended(again=f"answered HTTP {status}", after_s=float(wait) if wait.isdigit() else None)
    if status not in (401, 403):
        return Ended(refused=f"answered HTTP {status}: check the address")
    name = "HF_TOKEN" if source.repo else "CIVITAI_TOKEN" if source.host.endswith("civitai.com") else ""
    if not name:
        why = "it wants a login that this worker does not have"
    elif source.token(access):
        why = f"{name} is not accepted, or may not read this file"
    else:
        why = f"set {name}, which is missing"
    return Ended(refused=f"answered HTTP {status}: {why}")


def _problem(error: BaseException, source: Source, access: Access) -> Ended:
    """What it means that there was no file: an answer that is none, or no answer."""
    response = getattr(error, "response", None)
    if response is not None:
        return _refused(response, source, access)
    reached = isinstance(error, requests.exceptions.ChunkedEncodingError)
    how = "broke off" if reached else "could not be reached"
    return Ended(again=f"{how} ({type(error).__name__})", unreached=not reached)


if __name__ == "__main__":
    sys.exit(main())
