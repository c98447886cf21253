"""Hosts of models that lie, send without end or want to be asked again in a thousand years; and who cancels."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from comfy_common import download as module
from comfy_common.download import (
    DownloadCancelled,
    DownloadError,
    Watch,
    digest_of,
    download,
    retry_after_s,
)
from comfy_common.safetensors_header import DamagedModel, read_header
from comfy_common.sources import Access, read_source
from comfy_common.text import duration
from tests.hub_server import weights
from tests.raw_host import RawHost, http, raw_host

MB = b"100000\r\n" + bytes(0x100000) + b"\r\n"
DATA = weights(1000)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)


def fetch(url: str, folder: Path, watch: Watch | None = None) -> Path:
    target = folder / "loras" / "a.safetensors"
    download(read_source(url), target, Access(), folder / ".parts" / "a.safetensors", watch=watch)
    return target


def error_of(answer: bytes, folder: Path, watch: Watch | None = None) -> str:
    with raw_host(answer) as host, pytest.raises(DownloadError) as caught:
        fetch(host.url + "/a.safetensors", folder, watch)
    assert not (folder / "loras").exists()
    return str(caught.value)


def refuse_unknown_size(size: int | None) -> None:
    if size is None:
        raise DownloadError("its host does not say how large it is")


def test_chunks_have_no_length_whatever_is_announced(tmp_path: Path) -> None:
    def answer(host: RawHost, connection: socket.socket, _path: str) -> None:
        host.send(connection, http("200 OK|Transfer-Encoding: chunked|Content-Length: 100"))
        host.send(connection, MB, times=1000)

    watch = Watch(admit=refuse_unknown_size)
    with raw_host(answer) as host, pytest.raises(DownloadError, match="does not say how large"):
        fetch(host.url + "/a.safetensors", tmp_path, watch)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_no_more_is_written_than_was_announced(tmp_path: Path) -> None:
    sizes: list[int | None] = []
    answer = http(f"200 OK|Content-Length: {len(DATA)}", DATA + bytes(1_000_000))
    with raw_host(answer) as host:
        assert (
            fetch(host.url + "/a.safetensors", tmp_path, Watch(admit=sizes.append)).read_bytes()
            == DATA
        )
    assert sizes == [len(DATA)]


def test_unknown_sizes_leave_a_disk_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(host: RawHost, connection: socket.socket, _path: str) -> None:
        host.send(connection, http("200 OK|Transfer-Encoding: chunked"))
        host.send(connection, MB, times=1000)

    monkeypatch.setattr(module, "SPARE_BYTES", 1 << 24)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 23}))
    with raw_host(answer) as host, pytest.raises(DownloadError, match="the disk is nearly full"):
        fetch(host.url + "/a.safetensors", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ("200 OK|Content-Length: -1", "does not say how large"),
        ("200 OK|Content-Length: abc", "does not say how large"),
        ("206 Partial Content|Content-Length: 5", "another part of the file than requested"),
        (
            "302 Found|Location: file:///etc/hostname|Content-Length: 0",
            "neither with http:// nor with https://",
        ),
        ("302 Found|Location: http://[::1|Content-Length: 0", "a URL that cannot be read"),
        ("302 Found|Content-Length: 0", "answered HTTP 302"),
        ("200 OK|Content-Encoding: gzip|Content-Length: 3", "compressed"),
        ("200 OK|Content-Length: 999999999999", "broke off"),
    ],
)
def test_an_odd_answer_is_one_short_sentence(tmp_path: Path, head: str, sentence: str) -> None:
    message = error_of(http(head, b"abcde"), tmp_path, Watch(admit=refuse_unknown_size))
    assert sentence in message
    assert len(message) < 300


@pytest.mark.parametrize(
    "bytes_sent", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200, b""]
)
def test_what_is_not_http_breaks_off(tmp_path: Path, bytes_sent: bytes) -> None:
    assert "times; try again later" in error_of(bytes_sent, tmp_path)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("9" * 400, "asks to wait for more than a week"),
        ("99999999999", "asks to wait for more than a week"),
        ("3600", "try again in 60 min 00 s"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "asks to wait for more than a week"),
    ],
)
def test_a_long_wait_is_told_and_not_waited(tmp_path: Path, value: str, sentence: str) -> None:
    assert sentence in error_of(http(f"503 Busy|Retry-After: {value}|Content-Length: 0"), tmp_path)


@pytest.mark.parametrize(
    ("value", "seconds"), [("5", 5), ("0", 0), ("²", None), ("-1", None), ("soon", None)]
)
def test_retry_after_is_read(value: str, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", now=0) == 60
    assert retry_after_s("9" * 5000) == float("inf")


@pytest.mark.parametrize(
    ("seconds", "text"), [(7200, "2 h 00 min"), (200_000, "2 days"), (7199, "119 min 59 s")]
)
def test_a_long_duration_is_told(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def safetensors(tensor: str, data: bytes = bytes(16)) -> bytes:
    header = f'{{"a":{tensor}}}'.encode()
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize(
    "tensor",
    [
        f'{{"dtype":"F32","shape":[{"9" * 4000}],"data_offsets":[0,16]}}',
        f'{{"dtype":"F32","shape":[4],"data_offsets":[0,{"9" * 4000}]}}',
        f'{{"dtype":"F32","shape":[4],"data_offsets":[0,{"9" * 5000}]}}',
        '{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}',
        '{"dtype":"F32","shape":[4],"data_offsets":[16,0]}',
        '{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}',
        '{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}',
        '{"dtype":"F32","shape":[true],"data_offsets":[0,16]}',
        '{"dtype":"F32","shape":[4],"data_offsets":[0,"16"]}',
        '{"dtype":"F32","shape":[4],"data_offsets":[0]}',
        '{"dtype":5,"shape":[4],"data_offsets":[0,16]}',
        "[1]",
        "5",
        '{"shape":"4"}',
    ],
)
def test_an_odd_header_is_told_in_few_words(tmp_path: Path, tensor: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors(tensor))
    with pytest.raises(DamagedModel) as caught:
        read_header(tmp_path / "a.safetensors")
    assert len(str(caught.value)) < 100
    assert len(json.dumps(error_of(http(f"200 OK|Content-Length: {len(safetensors(tensor))}",
                                        safetensors(tensor)), tmp_path))) < 300  # fmt: skip


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1"])
def test_a_header_with_millions_of_values_is_skipped(tmp_path: Path, value: bytes) -> None:
    header = b'{"a":[' + b",".join([value] * 3_000_000) + b"]}"
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(DamagedModel, match="more values than any model has"):
        read_header(tmp_path / "a.safetensors")


def test_the_error_of_a_long_url_is_short(tmp_path: Path) -> None:
    with (
        raw_host(http("404 Not Found|Content-Length: 0")) as host,
        pytest.raises(DownloadError) as caught,
    ):
        fetch(f"{host.url}/{'x' * 50_000}.safetensors", tmp_path)
    assert len(str(caught.value)) < 400


def test_a_hash_hears_a_cancel(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(module.HASHED_BYTES * 3))
    blocks = []

    def check() -> None:
        blocks.append(1)
        if len(blocks) == 2:
            raise DownloadCancelled

    with pytest.raises(DownloadCancelled):
        digest_of(tmp_path / "a", check)
    assert len(blocks) == 2


@pytest.mark.parametrize(
    "sent", [b"", http("200 OK|Content-Length: 1000"), http("200 OK|Content-Length: 9", b"x")]
)
def test_a_silent_host_hears_a_cancel(tmp_path: Path, sent: bytes) -> None:
    def answer(host: RawHost, connection: socket.socket, _path: str) -> None:
        host.send(connection, sent)
        host.over.wait(60)

    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    began = time.monotonic()
    with raw_host(answer) as host, pytest.raises(DownloadCancelled):
        fetch(host.url + "/a.safetensors", tmp_path, Watch(cancelled=cancelled))
    assert time.monotonic() - began < 40


def test_a_pause_hears_a_cancel(tmp_path: Path) -> None:
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    began = time.monotonic()
    busy = http("503 Busy|Retry-After: 60|Content-Length: 0")
    with raw_host(busy) as host, pytest.raises(DownloadCancelled):
        fetch(host.url + "/a.safetensors", tmp_path, Watch(cancelled=cancelled))
    assert time.monotonic() - began < 40


def test_a_host_that_stands_still_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: RawHost, connection: socket.socket, _path: str) -> None:
        host.send(connection, http(f"200 OK|Content-Length: {len(DATA)}", DATA[:10]))
        host.over.wait(60)

    monkeypatch.setattr(module, "STALLED_S", 0.3)
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    with raw_host(answer) as host, pytest.raises(DownloadError, match="stands still, 2 times"):
        fetch(host.url + "/a.safetensors", tmp_path)


class Parts:
    """A host that gives parts of a file; ``spoil`` may meddle with an answer by its number."""

    def __init__(self, data: bytes, spoil: dict[int, bytes] | None = None) -> None:
        self.data = data
        self.spoil = spoil or {}
        self.ranges: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, host: RawHost, connection: socket.socket, _path: str) -> None:
        with self._lock:
            head = host.heads[connection]
            wanted = re.search(r"Range: bytes=(\d+)-(\d*)", head)
            self.ranges.append(wanted[0] if wanted else "")
            number = len(self.ranges)
        if number in self.spoil:
            host.send(connection, self.spoil[number])
            return
        begin = int(wanted[1]) if wanted else 0
        end = int(wanted[2]) + 1 if wanted and wanted[2] else len(self.data)
        status = "206 Partial Content" if wanted else "200 OK"
        length = f'Accept-Ranges: bytes|ETag: "one"|Content-Length: {end - begin}'
        if wanted:
            length += f"|Content-Range: bytes {begin}-{end - 1}/{len(self.data)}"
        host.send(connection, http(f"{status}|{length}", self.data[begin:end]))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)


LARGE = weights(20_500)


def test_a_large_file_comes_in_blocks(tmp_path: Path, small_blocks: None) -> None:
    parts, updates = Parts(LARGE), []
    with raw_host(parts) as host:
        watch = Watch(lambda *done: updates.append(done))
        assert fetch(host.url + "/a.safetensors", tmp_path, watch).read_bytes() == LARGE
    assert len(parts.ranges) == 1 + -(-len(LARGE) // 1000)
    assert updates[-1] == (len(LARGE), len(LARGE))


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        http(
            "206 Partial Content|Content-Length: 1000|Content-Range: bytes 0-999/20000", bytes(10)
        ),
        http("403 Forbidden|Content-Length: 0"),
        http("429 Slow down|Content-Length: 0"),
        http(f"200 OK|Content-Length: {len(LARGE)}", LARGE),
    ],
)
def test_a_spoilt_block_is_fetched_again(tmp_path: Path, small_blocks: None, spoilt: bytes) -> None:
    parts = Parts(LARGE, {5: spoilt})
    with raw_host(parts) as host:
        assert fetch(host.url + "/a.safetensors", tmp_path).read_bytes() == LARGE


def test_a_host_without_parts_gives_the_whole(tmp_path: Path, small_blocks: None) -> None:
    with raw_host(http(f'200 OK|ETag: "one"|Content-Length: {len(LARGE)}', LARGE)) as host:
        assert fetch(host.url + "/a.safetensors", tmp_path).read_bytes() == LARGE
        assert len(host.requests) == 1


def test_a_host_without_ranges_sends_the_full_file(tmp_path: Path, small_blocks: None) -> None:
    def answer(host: RawHost, connection: socket.socket, _path: str) -> None:
        if "Range: " in host.heads[connection]:
            host.send(connection, http("503 Busy|Content-Length: 0"))
        else:
            head = f'200 OK|Accept-Ranges: bytes|ETag: "one"|Content-Length: {len(LARGE)}'
            host.send(connection, http(head, LARGE))

    with raw_host(answer) as host:
        assert fetch(host.url + "/a.safetensors", tmp_path).read_bytes() == LARGE


def test_blocks_hear_a_cancel_and_leave_no_thread(tmp_path: Path, small_blocks: None) -> None:
    def answer(host: RawHost, connection: socket.socket, _path: str) -> None:
        if "Range: " in host.heads[connection]:
            host.over.wait(60)
        else:
            host.send(
                connection,
                http(f'200 OK|Accept-Ranges: bytes|ETag: "one"|Content-Length: {len(LARGE)}'),
            )

    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    began = time.monotonic()
    with raw_host(answer) as host, pytest.raises(DownloadCancelled):
        fetch(host.url + "/a.safetensors", tmp_path, Watch(cancelled=cancelled))
    assert time.monotonic() - began < 40
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("blocks")]
