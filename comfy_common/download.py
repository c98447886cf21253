"""One model file from where it comes from to where it belongs; the one downloader of setup and worker.

A file is fetched into a folder of its own, checked, and renamed, so that a file under a model's
name is always whole. What has come stays there, and the next attempt goes on behind it. All bytes
come through `pinned_http`, so a client's URL reaches only addresses that were checked. Standard
library only.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO
from urllib.parse import quote, urljoin, urlsplit

from comfy_common.errors import SetupError
from comfy_common.pinned_http import (
    Answer,
    InvalidURL,
    PinnedClient,
    PrivateAddress,
    RequestRefused,
    Target,
    TooManyRedirects,
    UnknownHost,
    UnsupportedProxy,
    UnsupportedScheme,
    basic_authorization,
    parse_target,
)
from comfy_common.safetensors_header import DamagedModel, check_whole
from comfy_common.sources import CIVITAI, Access, Source
from comfy_common.text import duration, size

ATTEMPTS = 5
UNREACHED_ATTEMPTS = 3
# Then over one connection: the host may not like several.
IN_BLOCKS_ATTEMPTS = 2
PAUSE_S = 1.0
LONGEST_PAUSE_S = 120.0
# A longer wait is not worth a number: nobody comes back to the minute.
LONGEST_TOLD_S = 7 * 86400.0
STALLED_S = 180.0
SILENCE_S = 60.0
TELL_EVERY_S = 0.5
CHUNK_BYTES = 1 << 20
HASHED_BYTES = 1 << 22
BUSY = {408, 429, 500, 502, 503, 504}
MAX_HOPS = 8
PART = "download.part"
ETAG = "download.etag"
# A tag that can be sent back; a weak one (W/"...") does not promise the same bytes.
STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
SHA256 = re.compile(r"[0-9a-f]{64}")
REPOSITORY = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]*\w)?")
# A large file comes in blocks over several connections: a host often limits what each of them gets.
BLOCK_BYTES = 16 << 20
CONNECTIONS = 4
# While a file comes whose size is unknown, its disk keeps this much free.
SPARE_BYTES = 1_000_000_000


class DownloadError(SetupError):
    """A file that cannot be had; the sentence begins with its source and says what to do.

    Args:
        sentence: what is wrong.
        unreached: the host that could not be reached at all, empty where one answered.
    """

    def __init__(self, sentence: str, *, unreached: str = "") -> None:
        super().__init__(sentence)
        self.unreached = unreached


class DownloadCancelled(Exception):
    """Whoever waited for the file no longer does; what has come is kept for the next one."""


class _Refused(Exception):
    """The file cannot be had from there; the sentence says why."""


class _Interrupted(Exception):
    """The file may come at another attempt.

    Args:
        reason: what happened.
        after_s: how long the host wants us to wait, None if it does not say.
        unreached: the host that could not be reached at all.
    """

    def __init__(self, reason: str, *, after_s: float | None = None, unreached: str = "") -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.unreached = unreached


class _DiskError(Exception):
    """The disk did not take what came: an error that is no fault of the host."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Watch:
    """What is asked of a download while it runs; the defaults ask nothing.

    Args:
        tell: gets the bytes that are there and, where it is known, how many there will be; twice a second, from
            another thread.
        admit: gets the size, None where it is not known, before the first byte comes; may raise to refuse it.
        cancelled: set by another thread to end it.
    """

    tell: Callable[[int, int | None], None] = lambda _done, _total: None
    admit: Callable[[int | None], None] = lambda _size: None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Go on, or raise.

        Raises:
            DownloadCancelled: `cancelled` was set.
        """
        if self.cancelled.is_set():
            raise DownloadCancelled


def download(
    source: Source, target: Path, access: Access, parts: Path, *, sha256: str = "", watch: Watch | None = None
) -> None:
    """Fetch a model file.

    Args:
        source: where it comes from.
        target: where it belongs; a file there is replaced once the new one is whole.
        access: tokens, and what may be reached.
        parts: a folder on the same disk for what has come so far, of this file alone; removed in the end.
        sha256: of the file in hex, empty if it is not known.
        watch: who asks how far it is.

    Raises:
        DownloadError: it cannot be had, or is not what it should be.
        DownloadCancelled: `watch.cancelled` was set.
        OSError: the disk did not take it.
    """
    watch = watch or Watch()
    parts.mkdir(parents=True, exist_ok=True)
    try:
        promised_by_hub = _fetch(source, access, parts, watch)
        file = parts / PART
        promised = {digest.lower() for digest in (sha256, promised_by_hub) if digest}
        _check(file, target.suffix, promised, watch)
    except _DiskError as error:
        raise error.error from None
    except _Refused as error:
        shutil.rmtree(parts, ignore_errors=True)
        raise DownloadError(f"{source.shown}: {error}") from None
    except DamagedModel as error:
        shutil.rmtree(parts)
        raise DownloadError(f"{source.shown} {error}") from None
    finally:
        if not bytes_in(parts):
            shutil.rmtree(parts, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    file.replace(target)
    shutil.rmtree(parts)


def _fetch(source: Source, access: Access, parts: Path, watch: Watch) -> str:
    """Fetch the bytes, in as many attempts as it is worth; the sha256 that the hub promises, empty if none."""
    failures, have = 0, bytes_in(parts)
    while True:
        transfer = _Transfer(source, access, parts, watch, in_blocks=failures < IN_BLOCKS_ATTEMPTS)
        try:
            transfer.run()
            return transfer.sha256
        except _Interrupted as interrupted:
            watch.check()
            grew, have = bytes_in(parts) > have, bytes_in(parts)
            failures = 1 if grew else failures + 1
            watch.cancelled.wait(_pause_s(source, interrupted, failures))
        watch.check()


def _pause_s(source: Source, interrupted: _Interrupted, failures: int) -> float:
    """How long to wait before the next attempt.

    Raises:
        DownloadError: another attempt is not worth it.
    """
    if failures >= (UNREACHED_ATTEMPTS if interrupted.unreached else ATTEMPTS):
        sentence = f"{source.shown}: {interrupted}, {failures} times; try again later"
        raise DownloadError(sentence, unreached=interrupted.unreached)
    after_s = interrupted.after_s
    if after_s is None:
        return PAUSE_S * float(2 ** (failures - 1))
    if after_s > LONGEST_TOLD_S:
        raise DownloadError(f"{source.shown}: {interrupted}; its host asks to wait for more than a week")
    if after_s > LONGEST_PAUSE_S:
        raise DownloadError(f"{source.shown}: {interrupted}; try again in {duration(after_s)}")
    return after_s


def _check(file: Path, suffix: str, promised: set[str], watch: Watch) -> None:
    """Make sure that a file is what it should be, before it gets a model's name."""
    check_whole(file, suffix)
    if promised and {digest_of(file, watch.check)} != promised:
        raise DamagedModel(f"is not what was promised: its sha256 is not {' and '.join(sorted(promised))}")


def _go_on() -> None:
    return


def digest_of(path: Path, check: Callable[[], None] = _go_on) -> str:
    """The sha256 of a file in hex.

    Args:
        path: a file of any size.
        check: called between blocks; may raise to end it.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASHED_BYTES):
            check()
            digest.update(block)
    return digest.hexdigest()


def bytes_in(folder: Path) -> int:
    """How much of a file has come.

    Args:
        folder: where it comes; files in it may go while they are counted.
    """
    total = 0
    for top, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(top, name).lstat().st_size
    return total


def retry_after_s(value: str, now: float | None = None) -> float | None:
    """Read a Retry-After header.

    Args:
        value: a number of seconds of any length, or a date.
        now: seconds since 1970, the clock's if absent.

    Returns:
        Seconds from now, 0 or more; None where the header says nothing that can be understood.
    """
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value) if len(value) < 16 else float("inf")
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Tell an error of the disk from one of the network: both are OSError."""
    try:
        yield
    except OSError as error:
        raise _DiskError(error) from error


class _Transfer:
    """One attempt to fetch a file into its folder; goes on behind what an earlier one left."""

    def __init__(
        self, source: Source, access: Access, parts: Path, watch: Watch, *, in_blocks: bool = False
    ) -> None:
        self.sha256 = ""
        self._in_blocks = in_blocks
        self._abandoned = False
        self._source = source
        self._access = access
        self._part = parts / PART
        self._etag_file = parts / ETAG
        self._watch = watch
        self._have = 0
        self._counting = threading.Lock()
        self._total: int | None = None
        self._told_at = 0.0
        self._moved_at = time.monotonic()
        self._hub = urlsplit(access.endpoint)
        self._client = PinnedClient(
            # The operator has chosen the hub, and the hub where its files are.
            allow_private=access.private or bool(source.repo),
            use_proxies=access.private or bool(source.repo),
            is_over=self._is_over,
            silence_s=lambda: SILENCE_S,
        )

    def run(self) -> None:
        """Fetch the rest of the file.

        Raises:
            DownloadCancelled: it was cancelled.
            _Refused: it cannot be had.
            _Interrupted: it may come at another attempt.
            _DiskError: the disk did not take it.
        """
        reached = False
        host = self._hub.hostname or "" if self._source.repo else self._source.host
        try:
            if self._source.repo:
                url, total, etag = self._find_in_repository()
                reached = True
                self._get(url, promised_size=total, identity=etag)
            else:
                self._get(self._source.url)
        except UnknownHost as error:
            raise _Interrupted(
                f"could not be reached (there is no host {error.host})", unreached=error.host
            ) from None
        except RequestRefused as error:
            raise _Refused(_REFUSALS[type(error)]) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._watch.check()
            if self._is_stalled():
                raise _Interrupted("stands still") from None
            if reached or self._have or isinstance(error, http.client.HTTPException):
                raise _Interrupted(f"broke off ({type(error).__name__})") from None
            raise _Interrupted(f"could not be reached ({type(error).__name__})", unreached=host) from None

    def _is_stalled(self) -> bool:
        return time.monotonic() - self._moved_at > STALLED_S

    def _is_over(self) -> bool:
        """Asked every 0.1 s while a connection is open; tells how far it is, also while no byte comes."""
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self._watch.tell(self._have, self._total)
        return self._watch.cancelled.is_set() or self._abandoned or self._is_stalled()

    def _find_in_repository(self) -> tuple[str, int | None, str]:
        """Ask the hub about a file: the URL of its bytes, its size, and a tag that changes when its bytes do."""
        source = self._source
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise _Refused("HF_HUB_OFFLINE is set: unset it to fetch from the hub")
        if not REPOSITORY.fullmatch(source.repo) or ".." in source.repo or "--" in source.repo:
            raise _Refused("that is no name of a repository")
        revision = quote(source.revision, safe="")
        url = f"{self._access.endpoint}/{source.repo}/resolve/{revision}/{quote(source.file)}"
        for _ in range(MAX_HOPS):
            with self._client.open(url, self._hub_headers, method="HEAD", follow=False) as answer:
                headers, location = answer.response.headers, answer.location
                linked_size = headers.get("X-Linked-Size")
                if location is not None and linked_size is None and not urlsplit(location).netloc:
                    url = urljoin(url, location)  # a repository that was renamed
                    continue
                if location is None and answer.response.status != 200:
                    raise self._hub_refusal(answer)
                etag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
                if SHA256.fullmatch(etag):
                    self.sha256 = etag
                length = linked_size if location is not None else headers.get("Content-Length")
                total = int(length) if length and length.isascii() and length.isdecimal() else None
                self._admit(total)
                return urljoin(url, location) if location is not None else url, total, etag
        raise TooManyRedirects

    def _hub_headers(self, target: Target) -> Mapping[str, str]:
        """The token is for the hub's own host, and not for the storage that it redirects to."""
        hub = parse_target(self._access.endpoint)
        is_hub = (target.scheme, target.host, target.port) == (hub.scheme, hub.host, hub.port)
        if self._access.hf_token and is_hub:
            return {"Authorization": f"Bearer {self._access.hf_token}"}
        return {}

    def _web_headers(self, target: Target) -> Mapping[str, str]:
        """The token, or the password in the URL, is for the source's own host; a token by https alone."""
        if target.host != self._source.host:
            return {}
        token = self._source.token(self._access)
        if token and target.scheme == "https":
            return {"Authorization": f"Bearer {token}"}
        authorization = basic_authorization(self._source.url)
        return {"Authorization": authorization} if authorization else {}

    def _get(self, url: str, *, promised_size: int | None = None, identity: str = "") -> None:
        """Fetch what is missing of a file.

        Args:
            url: where it is.
            promised_size: what the hub says.
            identity: the hub's tag for these bytes; without one the host's own ETag counts.
        """
        kept = self._kept(identity)
        resume: dict[str, str] = {}
        if kept:
            resume["Range"] = f"bytes={kept}-"
            if not identity:
                resume["If-Range"] = self._etag_file.read_text(encoding="utf-8")
        own_headers = self._hub_headers if self._source.repo else self._web_headers
        with self._client.open(url, lambda target: {**own_headers(target), **resume}) as answer:
            begin = self._begin(answer, kept)
            response = answer.response
            # Where both are sent, the length of chunks counts and Content-Length means nothing (RFC 9112, 6.3).
            total = None if response.length is None else begin + response.length
            if promised_size is not None and total is not None and total != promised_size:
                raise _Refused("it is not as long as the hub says")
            self._total = promised_size if total is None else total
            if not self._source.repo or promised_size is None:
                self._admit(self._total)
            etag = response.headers.get("ETag", "")
            tag = identity or (etag if STRONG_ETAG.fullmatch(etag) else "")
            with _disk():
                self._etag_file.write_text(tag, encoding="utf-8")
            blocks = self._blocks(response, begin) if tag else []
            if not blocks:
                self._receive(response, begin)
        if blocks:
            condition = {} if identity else {"If-Range": tag}
            self._receive_blocks(answer.target.url, blocks, lambda target: {**own_headers(target), **condition})
        self._watch.tell(self._have, self._total)

    def _kept(self, identity: str) -> int:
        """How many bytes an earlier attempt left that the next bytes can follow."""
        with _disk():
            if not self._part.is_file() or not self._etag_file.is_file():
                return 0
            etag = self._etag_file.read_text(encoding="utf-8")
            return self._part.stat().st_size if etag and (not identity or etag == identity) else 0

    def _begin(self, answer: Answer, kept: int) -> int:
        """Where in the file the body of an answer begins."""
        response = answer.response
        if response.status == 416 and kept:
            with _disk():
                self._part.unlink()
            raise _Interrupted("would not go on where it broke off")
        if response.status not in (200, 206):
            raise self._refusal(answer)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _Refused("it comes compressed, which no model file should")
        if response.status == 200:
            return 0
        content_range = response.headers.get("Content-Range", "")
        if not kept or not content_range.startswith(f"bytes {kept}-"):
            with _disk():
                self._part.unlink(missing_ok=True)
            raise _Interrupted("sent another part of the file than it was asked for")
        return kept

    def _admit(self, total: int | None) -> None:
        self._watch.check()
        self._watch.admit(total)

    def _receive(self, response: http.client.HTTPResponse, begin: int) -> None:
        """Write the body behind what is kept; never more than was announced."""
        limit = self._total
        with contextlib.ExitStack() as stack:
            with _disk():
                file = stack.enter_context(self._part.open("r+b" if begin else "wb"))
                file.seek(begin)
                file.truncate()
            self._have, self._moved_at = begin, time.monotonic()
            checked_at = begin
            while chunk := response.read1(CHUNK_BYTES):
                self._watch.check()
                if limit is not None and self._have + len(chunk) > limit:
                    raise _Refused("it sends more than it announced")
                if limit is None and self._have - checked_at >= SPARE_BYTES // 16:
                    checked_at = self._have
                    self._keep_disk_free()
                self._write(file, chunk)
        self._watch.check()
        if limit is not None and self._have != limit:
            raise _Interrupted("stands still" if self._is_stalled() else "broke off")
        if self._is_stalled():
            raise _Interrupted("stands still")

    def _blocks(self, response: http.client.HTTPResponse, begin: int) -> list[tuple[int, int]]:
        """Where blocks begin and end, for a file that is worth it and a host that gives parts of files."""
        gives_parts = response.status == 206 or response.headers.get("Accept-Ranges", "").lower() == "bytes"
        if not self._in_blocks or not gives_parts or self._total is None:
            return []
        if self._total - begin <= CONNECTIONS * BLOCK_BYTES:
            return []
        starts = range(begin, self._total, BLOCK_BYTES)
        return [(start, min(start + BLOCK_BYTES, self._total)) for start in starts]

    def _receive_blocks(
        self, url: str, blocks: list[tuple[int, int]], headers: Callable[[Target], Mapping[str, str]]
    ) -> None:
        """Fetch several blocks at once and write them in their order, so that what is kept has no hole.

        Args:
            url: that answered; not where the redirects began, since each of them may lead elsewhere.
            blocks: where they begin and end.
            headers: gives the headers for a URL, without a range.
        """
        begin = blocks[0][0]
        self._have, self._moved_at = begin, time.monotonic()
        pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="blocks")
        try:
            with contextlib.ExitStack() as stack:
                with _disk():
                    file = stack.enter_context(self._part.open("r+b" if begin else "wb"))
                    file.seek(begin)
                    file.truncate()
                left = iter(blocks)
                coming = deque(
                    pool.submit(self._block, url, *block, headers) for block in islice(left, CONNECTIONS)
                )
                while coming:
                    data = coming.popleft().result()
                    coming.extend(pool.submit(self._block, url, *block, headers) for block in islice(left, 1))
                    self._watch.check()
                    with _disk():
                        file.write(data)
                        file.flush()
        finally:
            self._abandoned = True
            pool.shutdown(cancel_futures=True)

    def _block(self, url: str, begin: int, end: int, headers: Callable[[Target], Mapping[str, str]]) -> bytearray:
        """The bytes of a file from one place to before another."""
        wanted = f"bytes={begin}-{end - 1}"
        data = bytearray()
        with self._client.open(url, lambda target: {**headers(target), "Range": wanted}) as answer:
            response = answer.response
            is_part = response.headers.get("Content-Range", "").startswith(f"bytes {begin}-{end - 1}/")
            if response.status != 206 or not is_part:
                # Its address may have expired, or the file has changed: the next attempt begins at the source.
                raise _Interrupted(f"answered HTTP {response.status} to a request for a part")
            while len(data) < end - begin and (chunk := response.read1(min(CHUNK_BYTES, end - begin - len(data)))):
                data += chunk
                self._count(len(chunk))
        self._watch.check()
        if len(data) != end - begin:
            raise _Interrupted("stands still" if self._is_stalled() else "broke off")
        return data

    def _count(self, received: int) -> None:
        with self._counting:
            self._have += received
            self._moved_at = time.monotonic()

    def _write(self, file: IO[bytes], chunk: bytes) -> None:
        with _disk():
            file.write(chunk)
            file.flush()  # what is written is kept, whatever comes next
        self._count(len(chunk))

    def _keep_disk_free(self) -> None:
        if shutil.disk_usage(self._part.parent).free < SPARE_BYTES:
            raise _Refused(
                f"its host does not say how large it is, and after {size(self._have)} the disk is nearly full: "
                "make room"
            )

    def _hub_refusal(self, answer: Answer) -> Exception:
        """What it means that the hub does not give a file."""
        source, token = self._source, self._access.hf_token
        headers, status = answer.response.headers, answer.response.status
        code = headers.get("X-Error-Code", "")
        if code == "GatedRepo":
            return _Refused(_gated(source, self._access))
        wrong_token = "Invalid credentials" in headers.get("X-Error-Message", "")
        if code == "RepoNotFound" or (status == 401 and not wrong_token):
            whose = "the one of HF_TOKEN may not read it" if token else "it is private and HF_TOKEN is not set"
            return _Refused(f"there is no repository {source.repo}, or {whose}")
        if code == "RevisionNotFound":
            return _Refused(f"the repository {source.repo} has no revision {source.revision}")
        if code == "EntryNotFound" or status == 404:
            return _Refused(f"the repository {source.repo} has no such file")
        return self._refusal(answer)

    def _refusal(self, answer: Answer) -> Exception:
        """What an answer means that is not a file."""
        status = answer.response.status
        if status in BUSY:
            after_s = retry_after_s(answer.response.headers.get("Retry-After", ""))
            return _Interrupted(f"answered HTTP {status}", after_s=after_s)
        if status not in (401, 403):
            return _Refused(f"answered HTTP {status}: check the address")
        name = ""
        if self._source.repo:
            name = "HF_TOKEN"
        elif self._source.host == CIVITAI or self._source.host.endswith(f".{CIVITAI}"):
            name = "CIVITAI_TOKEN"
        if not name:
            why = "it wants a login that this worker does not have"
        elif self._source.token(self._access):
            why = f"{name} is not accepted, or may not read this file"
        else:
            why = f"set {name}, which is missing"
        return _Refused(f"answered HTTP {status}: {why}")


_REFUSALS: Mapping[type[RequestRefused], str] = {
    InvalidURL: "it leads to a URL that cannot be read: check the address",
    UnsupportedScheme: "it leads to a URL that begins neither with http:// nor with https://",
    PrivateAddress: "it leads to an address that is not public, which this worker does not fetch from",
    TooManyRedirects: "it redirects too often",
    UnsupportedProxy: "the environment names a SOCKS proxy: set HTTPS_PROXY to one that begins with http://",
}


def _gated(source: Source, access: Access) -> str:
    page = f"https://huggingface.co/{source.repo}"
    if access.hf_token:
        return f"the account of HF_TOKEN has not accepted the licence: accept it on {page}"
    return f"it is given only to those who accepted its licence: accept it on {page} and set HF_TOKEN"
