"""Files into a real S3 server, and what becomes of them when it fails; no worker yet."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from comfy_worker.deadline import Deadline
from comfy_worker.errors import DeliveryFailed, JobCancelled, JobTimedOut
from comfy_worker.request.schema import Output
from comfy_worker.response import s3 as s3_module
from comfy_worker.response import uploads as uploads_module
from comfy_worker.response.deliver import Delivery
from comfy_worker.response.encode import EncodedFile
from comfy_worker.response.s3 import ATTEMPTS, S3Uploader
from comfy_worker.s3_location import Bucket, parse_endpoint
from tests.raw_host import RawHost, http, raw_host
from tests.s3 import BUCKET, Service, s3_service

pytestmark = pytest.mark.e2e

PNG = EncodedFile("lighthouse.png", "image/png", "images", "9", os.urandom(200_000))
TEXT = EncodedFile('a "ü".txt', "text/plain", "files", "4", b"hello")
TWO = {"job/lighthouse.png": PNG, "job/a.txt": TEXT}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with s3_service(tmp_path_factory.mktemp("s3") / "log") as started:
        yield started


@pytest.fixture
def s3(service: Service) -> Iterator[Service]:
    """The service, well and empty."""
    yield service
    service.proxy.fate = lambda _method, _path: ""
    service.proxy.seen.clear()
    for key in service.stored():
        service.client.delete_object(Bucket=BUCKET, Key=key)


def fails(s3: Service, fate: str, times: int, path: str = "") -> None:
    """The first uploads whose path has this in it meet this fate."""
    left = [times]

    def decide(method: str, requested_path: str) -> str:
        if method != "PUT" or path not in requested_path or left[0] == 0:
            return ""
        left[0] -= 1
        return fate

    s3.proxy.fate = decide


def attempts(s3: Service) -> int:
    return sum(method == "PUT" for method, _path in s3.proxy.seen)


def peak_kb() -> int:
    """The most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_files_arrive_with_type_name_and_link(s3: Service) -> None:
    links = S3Uploader(s3.bucket()).upload(TWO)
    for key, file in TWO.items():
        answer = requests.get(links[key], timeout=10)
        assert answer.status_code == 200
        assert answer.content == file.content
        assert answer.headers["Content-Type"] == file.mime_type
    assert requests.get(links["job/lighthouse.png"], timeout=10).headers["Content-Disposition"] == (
        'inline; filename="lighthouse.png"'
    )
    stored = s3.client.head_object(Bucket=BUCKET, Key="job/a.txt")
    assert stored["ContentDisposition"] == "inline; filename*=UTF-8''a%20%22%C3%BC%22.txt"
    assert "X-Amz-Expires=604800" in links["job/a.txt"]


def test_a_link_expires_when_it_is_set_to(s3: Service) -> None:
    links = S3Uploader(s3.bucket(url_expiry_s=60)).upload(TWO)
    assert "X-Amz-Expires=60" in links["job/a.txt"]


def test_a_public_bucket_gets_plain_links(s3: Service) -> None:
    links = S3Uploader(s3.bucket(public_url="https://cdn.example.com/art/")).upload(
        {"job/ä b.png": PNG}
    )
    assert links == {"job/ä b.png": "https://cdn.example.com/art/job/%C3%A4%20b.png"}


def test_large_files_are_uploaded_in_parts(s3: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(os.urandom(20_000_000))
    S3Uploader(s3.bucket()).upload(
        {"a.mp4": EncodedFile("a.mp4", "video/mp4", "videos", "9", path)}
    )
    assert attempts(s3) == 3
    stored = s3.client.get_object(Bucket=BUCKET, Key="a.mp4")
    assert stored["Body"].read() == path.read_bytes()
    assert stored["ContentType"] == "video/mp4"


def test_a_virtual_host_begins_with_the_bucket() -> None:
    location = parse_endpoint("https://art.s3.eu-central-1.amazonaws.com", "")
    bucket = Bucket(access_key_id="AKIA", secret_access_key=SecretStr("s3cret"), **location)
    link = S3Uploader(bucket).link("job/a.png")
    assert link.startswith("https://art.s3.eu-central-1.amazonaws.com/job/a.png?")
    assert "%2Feu-central-1%2Fs3%2F" in link


@pytest.mark.parametrize("fate", ["cut", "refuse", "silent"])
def test_what_fails_twice_is_tried_again(s3: Service, fate: str) -> None:
    fails(s3, fate, ATTEMPTS - 1)
    S3Uploader(s3.bucket(), read_timeout_s=0.5).upload({"job/lighthouse.png": PNG})
    assert attempts(s3) == ATTEMPTS
    assert (
        s3.client.get_object(Bucket=BUCKET, Key="job/lighthouse.png")["Body"].read() == PNG.content
    )


def test_a_slow_service_is_waited_for(s3: Service) -> None:
    fails(s3, "slow", 1)
    S3Uploader(s3.bucket()).upload({"job/lighthouse.png": PNG})
    assert attempts(s3) == 1


@pytest.mark.parametrize("fate", ["cut", "refuse", "silent"])
def test_final_failures_leave_nothing_in_the_bucket(s3: Service, fate: str) -> None:
    fails(s3, fate, 100, "lighthouse")
    began = time.monotonic()
    with pytest.raises(
        DeliveryFailed, match="did not accept the files for bucket 'pictures'"
    ) as caught:
        S3Uploader(s3.bucket(), read_timeout_s=0.5).upload(TWO)
    assert time.monotonic() - began < 50, "the default limit would take a minute"
    assert caught.value.details[0]["problem"]
    assert "details" not in caught.value.sentence, "a warning has none"
    assert "s3cret" not in str(caught.value.to_result())
    assert s3.stored() == []


def test_interrupted_large_uploads_leave_no_parts(s3: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(os.urandom(20_000_000))
    uploads = iter(range(100))
    s3.proxy.fate = lambda method, _path: "cut" if method == "PUT" and next(uploads) > 0 else ""
    with pytest.raises(DeliveryFailed):
        S3Uploader(s3.bucket()).upload(
            {"a.mp4": EncodedFile("a.mp4", "video/mp4", "videos", "9", path)}
        )
    assert s3.stored() == []
    assert "Uploads" not in s3.client.list_multipart_uploads(Bucket=BUCKET)


def test_missing_buckets_and_services_are_reported(s3: Service) -> None:
    for changed in ({"name": "nobody"}, {"endpoint_url": "http://127.0.0.1:9"}):
        bucket = s3.bucket()
        with pytest.raises(DeliveryFailed) as caught:
            S3Uploader(type(bucket)(**{**vars(bucket), **changed})).upload(TWO)
        assert caught.value.details[0]["exception_type"] in (
            "NoSuchBucket",
            "EndpointConnectionError",
        )


def test_cancelled_uploads_end_and_leave_nothing(s3: Service) -> None:
    cancelled = Event()

    def cancels_at_upload(method: str, path: str) -> str:
        if method != "PUT" or "lighthouse" not in path:
            return ""
        cancelled.set()
        return "silent"

    s3.proxy.fate = cancels_at_upload
    began = time.monotonic()
    with pytest.raises(JobCancelled):
        S3Uploader(s3.bucket()).upload(TWO, Deadline(cancelled))
    assert time.monotonic() - began < 15, "the service is silent for 30 s"
    deadline_s = time.monotonic() + 20
    while s3.stored() or not any(method == "DELETE" for method, _path in s3.proxy.seen):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def connections() -> int:
    """How many sockets this process has open."""
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(link.startswith("socket:") for link in links)


def uploading() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("upload", "ThreadPoolExecutor"))]


def at_raw(host: RawHost, **changes: Any) -> S3Uploader:
    """A storage there, which is tried once."""
    bucket = Bucket(host.url, BUCKET, "AKIA", SecretStr("s3cret"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(s3_module, "ATTEMPTS", 1)
        return S3Uploader(bucket, **changes)


CHUNK = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
CHUNKED = http("200 OK|Transfer-Encoding: chunked")
ENDLESS = {
    "body": (CHUNKED, CHUNK),
    "length": (http("200 OK|Content-Length: 999999999999"), b"a" * 0x100000),
    "until-closed": (http("200 OK"), b"a" * 0x100000),
    "line-of-a-chunk": (CHUNKED, b"a" * 0x100000),
    "trailer": (CHUNKED + b"0\r\n", b"X: a\r\n" * 1000),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: a\r\n" * 1000),
    "header": (b"HTTP/1.1 200 OK\r\nX: ", b"a" * 0x100000),
    "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "error": (http("400 No|Transfer-Encoding: chunked"), CHUNK),
}


@pytest.mark.parametrize(("begin", "again"), ENDLESS.values(), ids=ENDLESS)
def test_answers_are_read_up_to_a_limit(begin: bytes, again: bytes) -> None:
    def endless(host: RawHost, connection: socket.socket, _path: str) -> None:
        connection.sendall(begin)
        # Small blocks would only keep the processor busy.
        pause_s = 0.002 if len(again) < 100_000 else 0.0
        host.send(connection, again, 3000, pause_s)

    before = peak_kb()
    with raw_host(endless) as host:
        with pytest.raises(DeliveryFailed):
            at_raw(host, answer_limit_s=0.3).upload(TWO)
        assert peak_kb() - before < 60_000
    wait_until(lambda: not uploading())


DRIPPED = {
    "header": b"HTTP/1.1 200 OK\r\nX-Drip: ",
    "body": http("200 OK|Content-Length: 100"),
    "chunk": CHUNKED,
    "status": b"",
}


@pytest.mark.parametrize("begin", DRIPPED.values(), ids=DRIPPED)
def test_a_service_that_drips_is_cut_off(begin: bytes) -> None:
    def drips(host: RawHost, connection: socket.socket, _path: str) -> None:
        connection.sendall(begin)
        host.send(connection, b"1", 100, 0.2)

    open_before = connections()
    with raw_host(drips) as host:
        with pytest.raises(DeliveryFailed):
            at_raw(host, answer_limit_s=0.5).upload({"a.png": PNG})
        with pytest.raises(JobTimedOut):
            at_raw(host).upload(TWO, Deadline(timeout_s=0.5))
        host.over.set()
        wait_until(lambda: not uploading())
    wait_until(lambda: connections() <= open_before)


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


def silent(host: RawHost, _connection: socket.socket, _path: str) -> None:
    host.over.wait()


def keeps_continuing(host: RawHost, connection: socket.socket, _path: str) -> None:
    host.send(connection, INTERIM, 1000, 0.05)


@pytest.mark.parametrize("answer", [silent, keeps_continuing], ids=["silent", "interim"])
def test_silent_storage_leaves_time_for_base64(answer: Callable[..., None]) -> None:
    stop = Deadline(timeout_s=9)
    with raw_host(answer) as host:
        bucket = Bucket(host.url, BUCKET, "AKIA", SecretStr("s3cret"))
        delivery = Delivery("job", Output(), S3Uploader(bucket), 1_000_000, False, stop)
        media = delivery.deliver([PNG], 7, lambda _media: b"{}")
        assert not stop.is_due
    assert media["images"][0].type == "base64"
    (warning,) = delivery.warnings
    assert "did not accept the files" in warning
    assert warning.endswith("so the files came as base64")
    wait_until(lambda: not uploading())


def test_silent_storage_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "STORAGE_LIMIT_S", 1.0)
    monkeypatch.setattr(uploads_module, "STORAGE_BYTES_PER_S", 10**9)
    with raw_host(silent) as host:
        bucket = Bucket(host.url, BUCKET, "AKIA", SecretStr("s3cret"))
        delivery = Delivery("job", Output(), S3Uploader(bucket), 1_000_000, True)
        began = time.monotonic()
        for _ in range(8):
            assert delivery.deliver_partial([PNG], 7) is None
        assert time.monotonic() - began < 6, "eight times a second without a common limit"
        host.over.set()
        wait_until(lambda: not uploading())


def test_cancelled_jobs_do_not_wait_for_silence() -> None:
    cancelled = Event()
    Timer(0.3, cancelled.set).start()
    with raw_host(silent) as host:
        bucket = Bucket(host.url, BUCKET, "AKIA", SecretStr("s3cret"))
        stop = Deadline(cancelled)
        delivery = Delivery("job", Output(), S3Uploader(bucket), 1_000_000, False, stop)
        with pytest.raises(JobCancelled):
            delivery.deliver([PNG], 7, lambda _media: b"{}")
        host.over.set()
        wait_until(lambda: not uploading())


def test_few_interim_answers_are_taken() -> None:
    stored = http('200 OK|ETag: "a"|Content-Length: 0')
    with raw_host(INTERIM * 5 + stored) as host:
        assert at_raw(host).upload({"a.png": PNG})
    with raw_host(INTERIM * 6 + stored) as host, pytest.raises(DeliveryFailed):
        at_raw(host).upload({"a.png": PNG})


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 100 Continue\r\n",
        http("204 No"),
        http("302 F|Location: http://169.254.169.254/|Content-Length: 0"),
        http("307 F|Location: file:///etc/passwd|Content-Length: 0"),
        http("503 No|Retry-After: " + "9" * 400 + "|Content-Length: 0"),
        http("400 No|Content-Length: -5", b"<Error/>"),
        http("403 No|Content-Length: 15", b"<html>no</html>"),
        http("400 No|Content-Type: application/xml|Content-Length: 8", b"<!DOCTYP"),
    ],
    ids=["ssh", "interim", "204", "302", "307", "retry-after", "length", "html", "xml"],
)
def test_odd_answers_are_the_services_fault(answer: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(10_000_000))  # goes up in parts, which needs an id and tags
    with raw_host(answer) as host:
        for file in (PNG, EncodedFile("a.mp4", "video/mp4", "videos", "9", path)):
            with contextlib.suppress(DeliveryFailed):
                at_raw(host, answer_limit_s=2.0).upload({"a": file}, Deadline(timeout_s=30))
    wait_until(lambda: not uploading())


def test_uploads_avoid_names_of_private_addresses(s3: Service) -> None:
    bucket = s3.bucket()
    local = type(bucket)(
        **{**vars(bucket), "endpoint_url": bucket.endpoint_url.replace("127.0.0.1", "localhost")}
    )
    with pytest.raises(DeliveryFailed) as caught:
        S3Uploader(local, public_only=True).upload(TWO)
    assert caught.value.details[0]["exception_type"] == "EndpointConnectionError"
    assert s3.proxy.seen == []
    S3Uploader(local).upload(TWO)
    assert attempts(s3) == 2


def test_failed_early_uploads_keep_their_key(s3: Service) -> None:
    delivery = Delivery("job", Output(), S3Uploader(s3.bucket()), 1_000_000, streaming=True)
    s3.proxy.fate = lambda method, _path: "refuse" if method == "PUT" else ""
    assert delivery.deliver_partial([PNG], 7) is None
    s3.proxy.fate = lambda _method, _path: ""
    media = delivery.deliver([PNG], 7, lambda _media: b"{}")
    assert s3.stored() == ["job/lighthouse.png"]
    assert requests.get(media["images"][0].data, timeout=10).content == PNG.content
