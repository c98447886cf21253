"""Downloads one model file, for the command line and for jobs.

A file is downloaded into a folder of its own, checked, and then renamed, so that a file with a
model's name is always complete. After a failure the downloaded bytes stay, and the next attempt
continues there. All bytes come through `pinned_http`, so a client's URL reaches only addresses that
were checked. Standard library only.
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
from comfy_common.sources import Access, Source
from comfy_common.text import duration, size

ATTEMPTS = 5
UNREACHED_ATTEMPTS = 3
# Later attempts use one connection, in case the host refuses several.
IN_BLOCKS_ATTEMPTS = 2
PAUSE_S = 1.0
LONGEST_PAUSE_S = 120.0
# A longer wait is shown as "more than a week".
LONGEST_STATED_WAIT_S = 7 * 86400.0
STALLED_S = 180.0
SILENCE_S = 60.0
PROGRESS_INTERVAL_S = 0.5
CHUNK_BYTES = 1 << 20
HASHED_BYTES = 1 << 22
BUSY = {408, 429, 500, 502, 503, 504}
MAX_HOPS = 8
PART = "download.part"
ETAG = "download.etag"
# An ETag that promises the same bytes, which a weak one (W/"...") does not.
STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
SHA256 = re.compile(r"[0-9a-f]{64}")
REPOSITORY = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]*\w)?")
# A large file is downloaded in blocks over several connections, since hosts often limit each one.
BLOCK_BYTES = 16 << 20
CONNECTIONS = 4
# During the download of a file with unknown size, this much of the disk stays free.
SPARE_BYTES = 1_000_000_000


class DownloadError(SetupError):
    """A file cannot be downloaded. The sentence begins with its source and says what to do.

    Args:
        sentence: what is wrong.
        unreached: the host that could not be reached; empty if a host answered.
    """

    def __init__(self, sentence: str, *, unreached: str = "") -> None:
        super().__init__(sentence)
        self.unreached = unreached


class DownloadCancelled(Exception):
    """Nobody waits for the file any more. The downloaded bytes stay for the next attempt."""


class _Refused(Exception):
    """The host does not provide the file; the sentence says why. Not retryable."""


class _Interrupted(Exception):
    """An attempt failed, and another one may succeed.

    Args:
        reason: what happened.
        after_s: how long the host wants us to wait; None if it does not say.
        unreached: the host that could not be reached; empty if it answered.
    """

    def __init__(self, reason: str, *, after_s: float | None = None, unreached: str = "") -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.unreached = unreached


class _DiskError(Exception):
    """The disk failed, not the host."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Watch:
    """Follows a download, and can refuse or cancel it. The defaults do nothing.

    Args:
        tell: receives the number of downloaded bytes and the file's size (None if unknown), twice a
            second, from another thread.
        admit: receives the size (None if unknown) before the download; may raise to refuse the
            file.
        cancelled: set by another thread to end the download.
    """

    tell: Callable[[int, int | None], None] = lambda _done, _total: None
    admit: Callable[[int | None], None] = lambda _size: None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise if the download must end.

        Raises:
            DownloadCancelled: `cancelled` was set.
        """
        if self.cancelled.is_set():
            raise DownloadCancelled


def download(
    source: Source,
    target: Path,
    access: Access,
    parts: Path,
    *,
    sha256: str = "",
    watch: Watch | None = None,
) -> None:
    """Download a model file.

    Args:
        source: where the file comes from.
        target: the path of the file; an existing file is replaced once the new one is complete.
        access: the tokens to send, and the addresses that may be reached.
        parts: a folder on the same disk for the unfinished file, and no other; removed at the end.
        sha256: the expected hash in hex; empty if it is not known.
        watch: follows the download.

    Raises:
        DownloadError: the file cannot be downloaded, or is not the expected one.
        DownloadCancelled: `watch.cancelled` was set.
        OSError: the disk failed.
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
    """Download the bytes, in several attempts. Returns the sha256 that the hub promises, if any."""
    failures, have = 0, bytes_in(parts)
    while True:
        transfer = _Transfer(source, access, parts, watch, in_blocks=failures < IN_BLOCKS_ATTEMPTS)
        try:
            transfer.run()
            return transfer.sha256
        except _Interrupted as interrupted:
            watch.check()
            has_grown, have = bytes_in(parts) > have, bytes_in(parts)
            failures = 1 if has_grown else failures + 1
            watch.cancelled.wait(_pause_s(source, interrupted, failures))
        watch.check()


def _pause_s(source: Source, interrupted: _Interrupted, failures: int) -> float:
    """How long to wait before the next attempt.

    Raises:
        DownloadError: there is no further attempt.
    """
    attempts = UNREACHED_ATTEMPTS if interrupted.unreached else ATTEMPTS
    if failures >= attempts:
        sentence = f"{source.shown}: {interrupted}, {failures} times; try again later"
        raise DownloadError(sentence, unreached=interrupted.unreached)
    after_s = interrupted.after_s
    if after_s is None:
        return PAUSE_S * float(2 ** (failures - 1))
    if after_s > LONGEST_STATED_WAIT_S:
        raise DownloadError(
            f"{source.shown}: {interrupted}; its host asks to wait for more than a week"
        )
    if after_s > LONGEST_PAUSE_S:
        raise DownloadError(f"{source.shown}: {interrupted}; try again in {duration(after_s)}")
    return after_s


def _check(file: Path, suffix: str, promised: set[str], watch: Watch) -> None:
    """Make sure that a file is complete and the expected one, before it gets a model's name."""
    check_whole(file, suffix)
    if promised and {digest_of(file, watch.check)} != promised:
        expected = " and ".join(sorted(promised))
        raise DamagedModel(f"is not the promised file: its sha256 is not {expected}")


def _never_ends() -> None:
    return


def digest_of(path: Path, check: Callable[[], None] = _never_ends) -> str:
    """The sha256 of a file in hex.

    Args:
        path: a file of any size.
        check: called between blocks; may raise to stop.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASHED_BYTES):
            check()
            digest.update(block)
    return digest.hexdigest()


def bytes_in(folder: Path) -> int:
    """The bytes of all files in a folder.

    Args:
        folder: may be missing, and its files may be removed during the count.
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
        now: seconds since 1970; the current time if absent.

    Returns:
        Seconds from now, 0 or more; None if the header cannot be read.
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
    """Mark the errors of the disk. Errors of the network are OSError too."""
    try:
        yield
    except OSError as error:
        raise _DiskError(error) from error


class _Transfer:
    """One attempt to download a file. Continues where an earlier attempt ended."""

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
        self._reported_at = 0.0
        self._moved_at = time.monotonic()
        self._hub = urlsplit(access.endpoint)
        self._client = PinnedClient(
            # The operator has chosen the hub, and the hub chooses the storage of its files.
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
        host = self._source.host
        if self._source.repo:
            host = self._hub.hostname or ""
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
            raise _Interrupted(
                f"could not be reached ({type(error).__name__})", unreached=host
            ) from None

    def _is_stalled(self) -> bool:
        return time.monotonic() - self._moved_at > STALLED_S

    def _is_over(self) -> bool:
        """Called every 0.1 s while a connection is open; also reports the progress."""
        now = time.monotonic()
        if now - self._reported_at >= PROGRESS_INTERVAL_S:
            self._reported_at = now
            self._watch.tell(self._have, self._total)
        if self._watch.cancelled.is_set() or self._abandoned:
            return True
        return self._is_stalled()

    def _find_in_repository(self) -> tuple[str, int | None, str]:
        """Ask the hub about a file.

        Returns:
            The URL of the bytes, the size, and a tag that changes when the bytes change.
        """
        source = self._source
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise _Refused("HF_HUB_OFFLINE is set: unset it to download from the hub")
        if not REPOSITORY.fullmatch(source.repo) or ".." in source.repo or "--" in source.repo:
            raise _Refused("this is not a valid name of a repository")
        revision = quote(source.revision, safe="")
        url = f"{self._access.endpoint}/{source.repo}/resolve/{revision}/{quote(source.file)}"
        for _ in range(MAX_HOPS):
            with self._client.open(url, self._hub_headers, method="HEAD", follow=False) as answer:
                location = answer.location
                if location is None and answer.response.status != 200:
                    raise self._hub_refusal(answer)
                if _is_renamed(answer):
                    url = urljoin(url, location or "")
                    continue
                etag = _hub_etag(answer)
                if SHA256.fullmatch(etag):
                    self.sha256 = etag
                total = _hub_size(answer)
                self._admit(total)
                return url if location is None else urljoin(url, location), total, etag
        raise TooManyRedirects

    def _hub_headers(self, target: Target) -> Mapping[str, str]:
        """The token, only for the hub's own host and not for the storage that it redirects to."""
        hub = parse_target(self._access.endpoint)
        is_hub = (target.scheme, target.host, target.port) == (hub.scheme, hub.host, hub.port)
        if self._access.hf_token and is_hub:
            return {"Authorization": f"Bearer {self._access.hf_token}"}
        return {}

    def _web_headers(self, target: Target) -> Mapping[str, str]:
        """The token or the URL's password, for the source's host only; a token only over HTTPS."""
        if target.host != self._source.host:
            return {}
        token = self._source.token(self._access)
        if token and target.scheme == "https":
            return {"Authorization": f"Bearer {token}"}
        authorization = basic_authorization(self._source.url)
        return {"Authorization": authorization} if authorization else {}

    def _get(self, url: str, *, promised_size: int | None = None, identity: str = "") -> None:
        """Download the missing bytes of a file.

        Args:
            url: the URL of the bytes.
            promised_size: the size that the hub promises.
            identity: the hub's tag for these bytes; if empty, the host's own ETag is used.
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
            # With chunked encoding, Content-Length means nothing (RFC 9112, 6.3).
            total = None if response.length is None else begin + response.length
            if promised_size is not None and total is not None and total != promised_size:
                raise _Refused("its size is not the one that the hub promises")
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
            self._receive_blocks(
                answer.target.url, blocks, lambda target: {**own_headers(target), **condition}
            )
        self._watch.tell(self._have, self._total)

    def _kept(self, identity: str) -> int:
        """How many bytes of an earlier attempt can be continued."""
        with _disk():
            if not self._part.is_file() or not self._etag_file.is_file():
                return 0
            etag = self._etag_file.read_text(encoding="utf-8")
            is_same = etag == identity if identity else bool(etag)
            return self._part.stat().st_size if is_same else 0

    def _begin(self, answer: Answer, kept: int) -> int:
        """The position in the file where the body of an answer begins."""
        response = answer.response
        if response.status == 416 and kept:
            with _disk():
                self._part.unlink()
            raise _Interrupted("would not continue where it broke off")
        if response.status not in (200, 206):
            raise self._refusal(answer)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _Refused("the answer is compressed, which this worker does not support")
        if response.status == 200:
            return 0
        content_range = response.headers.get("Content-Range", "")
        if not kept or not content_range.startswith(f"bytes {kept}-"):
            with _disk():
                self._part.unlink(missing_ok=True)
            raise _Interrupted("sent another part of the file than requested")
        return kept

    def _admit(self, total: int | None) -> None:
        self._watch.check()
        self._watch.admit(total)

    def _receive(self, response: http.client.HTTPResponse, begin: int) -> None:
        """Write the body after the kept bytes; never more than announced."""
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
        """Where each block begins and ends; empty for a small file or a host without ranges."""
        accepts_ranges = response.headers.get("Accept-Ranges", "").lower() == "bytes"
        if response.status != 206 and not accepts_ranges:
            return []
        if not self._in_blocks or self._total is None:
            return []
        if self._total - begin <= CONNECTIONS * BLOCK_BYTES:
            return []
        starts = range(begin, self._total, BLOCK_BYTES)
        return [(start, min(start + BLOCK_BYTES, self._total)) for start in starts]

    def _receive_blocks(
        self,
        url: str,
        blocks: list[tuple[int, int]],
        headers: Callable[[Target], Mapping[str, str]],
    ) -> None:
        """Download several blocks at once and write them in order, so that the file has no hole.

        Args:
            url: the URL after all redirects, since another redirect may lead elsewhere.
            blocks: the begin and end of each block.
            headers: returns the headers for a URL, without a range.
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
                    pool.submit(self._block, url, *block, headers)
                    for block in islice(left, CONNECTIONS)
                )
                while coming:
                    data = coming.popleft().result()
                    coming.extend(
                        pool.submit(self._block, url, *block, headers) for block in islice(left, 1)
                    )
                    self._watch.check()
                    with _disk():
                        file.write(data)
                        file.flush()
        finally:
            self._abandoned = True
            pool.shutdown(cancel_futures=True)

    def _block(
        self, url: str, begin: int, end: int, headers: Callable[[Target], Mapping[str, str]]
    ) -> bytearray:
        """Download the bytes of a file from one position up to another."""
        wanted = f"bytes={begin}-{end - 1}"
        data = bytearray()
        with self._client.open(url, lambda target: {**headers(target), "Range": wanted}) as answer:
            response = answer.response
            is_part = response.headers.get("Content-Range", "").startswith(
                f"bytes {begin}-{end - 1}/"
            )
            if response.status != 206 or not is_part:
                # The URL has expired or the file has changed: the next attempt begins at the
                # source.
                raise _Interrupted(f"answered HTTP {response.status} to a request for a part")
            while len(data) < end - begin:
                chunk = response.read1(min(CHUNK_BYTES, end - begin - len(data)))
                if not chunk:
                    break
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
            file.flush()  # so that the next attempt can continue here, whatever happens
        self._count(len(chunk))

    def _keep_disk_free(self) -> None:
        if shutil.disk_usage(self._part.parent).free < SPARE_BYTES:
            raise _Refused(
                f"its host does not say how large it is, and after {size(self._have)} "
                "the disk is nearly full: free some space"
            )

    def _hub_refusal(self, answer: Answer) -> Exception:
        """Explain why the hub does not provide a file."""
        source = self._source
        headers, status = answer.response.headers, answer.response.status
        code = headers.get("X-Error-Code", "")
        if code == "GatedRepo":
            return _Refused(_gated(source, self._access))
        is_token_invalid = "Invalid credentials" in headers.get("X-Error-Message", "")
        if code == "RepoNotFound" or (status == 401 and not is_token_invalid):
            reason = "it is private and HF_TOKEN is not set"
            if self._access.hf_token:
                reason = "the account of HF_TOKEN may not read it"
            return _Refused(f"there is no repository {source.repo}, or {reason}")
        if code == "RevisionNotFound":
            return _Refused(f"the repository {source.repo} has no revision {source.revision}")
        if code == "EntryNotFound" or status == 404:
            return _Refused(f"the repository {source.repo} has no such file")
        return self._refusal(answer)

    def _refusal(self, answer: Answer) -> Exception:
        """Explain an answer that is not a file."""
        status = answer.response.status
        if status in BUSY:
            after_s = retry_after_s(answer.response.headers.get("Retry-After", ""))
            return _Interrupted(f"answered HTTP {status}", after_s=after_s)
        if status not in (401, 403):
            return _Refused(f"answered HTTP {status}: check the address")
        return _Refused(f"answered HTTP {status}: {self._login_problem()}")

    def _login_problem(self) -> str:
        name = "CIVITAI_TOKEN" if self._source.is_civitai else ""
        if self._source.repo:
            name = "HF_TOKEN"
        if not name:
            return "it requires a login that this worker does not have"
        if self._source.token(self._access):
            return f"{name} is not accepted, or may not read this file"
        return f"set {name}, which is missing"


_REFUSALS: Mapping[type[RequestRefused], str] = {
    InvalidURL: "it leads to a URL that cannot be read: check the address",
    UnsupportedScheme: "it leads to a URL that begins neither with http:// nor with https://",
    PrivateAddress: (
        "it leads to an address that is not public, which this worker does not fetch from"
    ),
    TooManyRedirects: "it redirects too often",
    UnsupportedProxy: (
        "the environment names a SOCKS proxy: set HTTPS_PROXY to one that begins with http://"
    ),
}


def _gated(source: Source, access: Access) -> str:
    page = f"https://huggingface.co/{source.repo}"
    if access.hf_token:
        return f"the account of HF_TOKEN has not accepted the licence: accept it on {page}"
    return f"its licence must be accepted first: accept it on {page} and set HF_TOKEN"


def _is_renamed(answer: Answer) -> bool:
    """Whether the hub redirects to the new name of a repository, and not to a file's storage."""
    if answer.location is None or "X-Linked-Size" in answer.response.headers:
        return False
    return not urlsplit(answer.location).netloc


def _hub_etag(answer: Answer) -> str:
    headers = answer.response.headers
    etag = headers.get("X-Linked-Etag") or headers.get("ETag") or ""
    return etag.removeprefix("W/").strip('"')


def _hub_size(answer: Answer) -> int | None:
    name = "Content-Length" if answer.location is None else "X-Linked-Size"
    length = answer.response.headers.get(name, "")
    return int(length) if length.isascii() and length.isdecimal() else None
