"""Files behind URLs, fetched from a real server on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from comfy_common import pinned_http
from comfy_common.pinned_http import PinnedClient
from comfy_worker.deadline import Deadline
from comfy_worker.errors import InvalidMedia, JobCancelled
from comfy_worker.inputs.fetch import Fetcher
from comfy_worker.inputs.files import InputFiles
from comfy_worker.settings import Settings
from tests.file_server import FILES, FileServer, file_server

pytestmark = pytest.mark.e2e

# Of a name, no address at all would be reached: the connection of the one that was checked is led to the server.
PUBLIC = "93.184.216.34"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as started:
        yield started


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the public address of ``pictures.example`` stands the server."""
    connect = PinnedClient.connect

    def connect_here(
        client: PinnedClient, addresses: list[str], port: int, cutter: Any
    ) -> socket.socket:
        assert addresses == [PUBLIC], (
            "an address was connected to that was not the one that was checked"
        )
        return connect(client, ["127.0.0.1"], port, cutter)

    monkeypatch.setattr(PinnedClient, "connect", connect_here)


def resolve(host: str, port: int, **options: Any) -> list[Any]:
    if host == "pictures.example":
        return [(0, 0, 0, "", (PUBLIC, port))]
    return socket.getaddrinfo(host, port, **options)


def fetcher(timeout_s: float = 5, **changes: Any) -> Fetcher:
    return Fetcher(
        **{"max_mb": 2, "deadline": time.monotonic() + timeout_s, "allow_private": True, **changes}
    )


def local(server: FileServer, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def test_a_file_arrives_whole(server: FileServer) -> None:
    assert fetcher().fetch("image", local(server, "/photo.png")) == FILES["/photo.png"]


def test_a_path_is_quoted_and_its_query_kept(server: FileServer) -> None:
    assert fetcher().fetch("image", local(server, "/a b/ö.png?token=a b")) == FILES["/a b/ö.png"]
    assert server.seen == ["/a%20b/%C3%B6.png?token=a%20b"]


def test_redirects_are_followed(server: FileServer) -> None:
    url = local(server, "/redirect?to=/redirect?to=/photo.png")
    assert fetcher().fetch("image", url) == FILES["/photo.png"]


def test_private_addresses_get_no_request(server: FileServer) -> None:
    with pytest.raises(InvalidMedia, match="not public"):
        fetcher(allow_private=False).fetch("image", local(server, "/photo.png"))
    assert server.seen == []


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1",
        "[::1]",
        "169.254.169.254",
        "10.0.0.1",
        "0x7f.1",
        "2130706433",
        "[::ffff:127.0.0.1]",
    ],
)
def test_a_redirect_leads_nowhere_else_than_a_url(
    server: FileServer, routed: None, target: str
) -> None:
    public = f"http://pictures.example:{server.port}"
    careful = fetcher(allow_private=False, resolve=resolve)
    assert careful.fetch("image", f"{public}/redirect?to=/photo.png") == FILES["/photo.png"]
    seen = len(server.seen)
    with pytest.raises(InvalidMedia, match="has an address that is not public"):
        careful.fetch("image", f"{public}/redirect?to=http://{target}:{server.port}/photo.png")
    assert len(server.seen) == seen + 1


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/missing", "127.0.0.1 answered 404"),
        ("/large", "the file at 127.0.0.1 is too large; send at most 2 MB"),
        ("/endless", "the file at 127.0.0.1 is too large"),
        ("/chunked", "the file at 127.0.0.1 is too large"),
        ("/gzip", "127.0.0.1 sends the file compressed"),
        ("/short", "127.0.0.1 could not be read"),
        ("/loop", "127.0.0.1 redirects too often"),
        (
            "/redirect?to=file:///etc/passwd",
            "must be base64, a data URI, or a URL that begins with",
        ),
    ],
)
def test_what_cannot_be_had_is_one_sentence(server: FileServer, path: str, sentence: str) -> None:
    with pytest.raises(InvalidMedia) as caught:
        fetcher().fetch("image", local(server, f"{path}{'&' if '?' in path else '?'}token=secret"))
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("image")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["/drip", "/drip-headers", "/silent"])
def test_who_drips_is_cut_off(server: FileServer, path: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidMedia, match=r"image: 127\.0\.0\.1 took too long to send the file"):
        fetcher(timeout_s=0.7).fetch("image", local(server, path))
    assert 0.6 < time.monotonic() - began < 30, "the file would take 200 s"


@pytest.mark.parametrize("path", ["/drip", "/silent"])
def test_a_cancelled_job_stops_fetching(server: FileServer, path: str) -> None:
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(JobCancelled):
        fetcher(timeout_s=60, stop=Deadline(cancelled)).fetch("image", local(server, path))
    assert time.monotonic() - began < 30


def test_a_port_where_nobody_listens_is_told() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(
        InvalidMedia, match=r"127\.0\.0\.1 could not be read \(ConnectionRefusedError\)"
    ):
        fetcher().fetch("image", f"http://127.0.0.1:{port}/")


def test_several_files_arrive_at_once(server: FileServer, tmp_path: Path) -> None:
    files = InputFiles(tmp_path / "job", Settings(allow_private_urls=True).input_limits)
    server.together = threading.Barrier(8, timeout=60)  # none is answered before all have come
    files.add_pictures({f"image{index}": local(server, "/together.png") for index in range(8)})
    assert len(list((tmp_path / "job").iterdir())) == 8


def certificate(folder: Path, host: str) -> Path:
    """A key and a certificate of its own for a host."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    names: list[x509.GeneralName] = [
        x509.DNSName(host),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
    ]
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(pem))
    return file


def test_https_verifies_the_host_in_the_url(
    server: FileServer, routed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, "pictures.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://pictures.example:{server.port}/photo.png"
    careful = fetcher(allow_private=False, resolve=resolve)
    with pytest.raises(
        InvalidMedia, match=r"pictures\.example could not be read \(SSLCertVerificationError\)"
    ):
        careful.fetch("image", url)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    pinned_http.tls_context.cache_clear()
    try:
        assert careful.fetch("image", url) == FILES["/photo.png"]
        monkeypatch.undo()
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with pytest.raises(InvalidMedia, match="SSLCertVerificationError"):
            fetcher().fetch("image", local(server, "/photo.png").replace("http", "https"))
    finally:
        pinned_http.tls_context.cache_clear()
