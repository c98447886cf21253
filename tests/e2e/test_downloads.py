"""Model files from a server that speaks the hub's protocol: resumed or clearly refused, never half there."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_common import download as module
from comfy_common.download import DownloadCancelled, DownloadError, Watch, download
from comfy_common.sources import Access, read_source
from tests.hub_server import SLOW_BYTES, TOKEN, HubServer, hub_server, weights

pytestmark = pytest.mark.e2e

DATA = weights()
LONG = weights(SLOW_BYTES + 100_000)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    with hub_server() as server:
        for name in (
            "plain",
            "gated",
            "private",
            "busy",
            "long-busy",
            "cut",
            "endless-cut",
            "slow",
            "short",
            "wrong",
        ):
            data = LONG if name in ("slow", "cut") else DATA
            server.files[f"owner/{name}/sub/model.safetensors"] = data
            server.pages[f"/{name}.safetensors"] = data
        yield server


class Fetched:
    """One download, and what is on the disk after it."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub = hub
        self.target = folder / "loras" / "model.safetensors"
        self.parts = folder / ".parts" / "model.safetensors"

    def __call__(
        self, text: str, token: str = "", sha256: str = "", watch: Watch | None = None
    ) -> None:
        access = Access(hf_token=token, endpoint=self.hub.url)
        text = text.replace("WEB", self.hub.url)
        download(
            read_source(text, self.hub.url),
            self.target,
            access,
            self.parts,
            sha256=sha256,
            watch=watch,
        )

    def is_right(self) -> bool:
        return self.target.read_bytes() in (DATA, LONG) and not self.parts.exists()

    def is_nothing(self) -> bool:
        return not self.target.exists() and not self.parts.exists()


@pytest.fixture
def fetch(hub: HubServer, tmp_path: Path) -> Fetched:
    return Fetched(hub, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "hf:owner/plain/sub/model.safetensors",
        "hf:owner/plain@main/sub/model.safetensors",
        "https://huggingface.co/owner/plain/resolve/main/sub/model.safetensors?download=true",
        "https://huggingface.co/owner/plain/blob/main/sub/model.safetensors",
        "WEB/plain.safetensors?token=hush",
        "WEB/away?to=/plain.safetensors",
    ],
)
def test_a_file_arrives_whole_by_any_name(fetch: Fetched, text: str) -> None:
    updates: list[tuple[int, int | None]] = []
    sizes: list[int | None] = []
    fetch(text, watch=Watch(lambda *done: updates.append(done), sizes.append))
    assert fetch.is_right()
    assert updates[-1] == (len(DATA), len(DATA))
    assert sizes == [len(DATA)]


def test_the_storage_is_not_shown_the_token(fetch: Fetched, hub: HubServer) -> None:
    fetch("hf:owner/gated/sub/model.safetensors", token=TOKEN)
    assert fetch.is_right()
    assert {request.authorization for request in hub.served()} == {""}


@pytest.mark.parametrize("text", ["hf:owner/cut/sub/model.safetensors", "WEB/cut.safetensors"])
def test_an_interrupted_download_resumes(fetch: Fetched, hub: HubServer, text: str) -> None:
    fetch(text)
    assert fetch.is_right()
    assert [request.range for request in hub.served()] == ["", f"bytes={SLOW_BYTES}-"]


@pytest.mark.parametrize("text", ["hf:owner/slow/sub/model.safetensors", "WEB/slow.safetensors"])
def test_a_cancelled_download_resumes_next_time(fetch: Fetched, hub: HubServer, text: str) -> None:
    cancelled = threading.Event()

    def tell(done: int, _total: int | None) -> None:
        assert not fetch.target.exists()
        if done >= SLOW_BYTES:
            cancelled.set()

    with pytest.raises(DownloadCancelled):
        fetch(text, watch=Watch(tell, cancelled=cancelled))
    assert not fetch.target.exists()
    hub.go_on.set()
    fetch(text)
    assert fetch.is_right()
    assert hub.served()[-1].range == f"bytes={SLOW_BYTES}-"


def test_retry_after_is_respected(fetch: Fetched, hub: HubServer) -> None:
    fetch("hf:owner/busy/sub/model.safetensors")
    assert fetch.is_right()


@pytest.mark.parametrize(
    ("text", "token", "words"),
    [
        (
            "hf:owner/gated/sub/model.safetensors",
            "",
            "accept it on https://huggingface.co/owner/gated and set HF_TOKEN",
        ),
        (
            "hf:owner/gated/sub/model.safetensors",
            "hf_other",
            "the account of HF_TOKEN has not accepted the licence",
        ),
        (
            "hf:owner/private/sub/model.safetensors",
            "",
            "there is no repository owner/private, or it is private and",
        ),
        (
            "hf:owner/private/sub/model.safetensors",
            "hf_other",
            "or the account of HF_TOKEN may not read it",
        ),
        ("hf:owner/plain/none.safetensors", "", "the repository owner/plain has no such file"),
        ("hf:owner/plain@v2/sub/model.safetensors", "", "has no revision v2"),
        ("hf:owner/wrong/sub/model.safetensors", "", "is not the promised file: its sha256 is not"),
        (
            "hf:owner/short/sub/model.safetensors",
            "",
            "sub/model.safetensors: its size is not the one that the hub promises",
        ),
        (
            "hf:owner/long-busy/sub/model.safetensors",
            "",
            "answered HTTP 429; try again in 60 min 00 s",
        ),
        ("hf:-/-/x", "", "this is not a valid name of a repository"),
        ("WEB/endless-cut.safetensors", "", "broke off, 5 times; try again later"),
        ("WEB/none.safetensors?token=hush", "", "answered HTTP 404: check the address"),
        ("WEB/away?to=/away", "", "redirects too often"),
        ("WEB/gzip.safetensors", "", "is compressed"),
        ("WEB/page.safetensors", "", "is not a safetensors file but a web page"),
        ("WEB/zip.safetensors", "", "is not a safetensors file but a zip archive"),
        ("WEB/pickle.safetensors", "", "is not a safetensors file but a pickle"),
        ("WEB/bomb.safetensors", "", "has a damaged safetensors header"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    fetch: Fetched, hub: HubServer, text: str, token: str, words: str
) -> None:
    hub.pages |= {
        "/gzip.safetensors": DATA,
        "/page.safetensors": b"<!DOCTYPE html><title>Sign in</title>",
        "/zip.safetensors": b"PK\x03\x04" + bytes(1000),
        "/pickle.safetensors": b"\x80\x02}q\x00." + bytes(1000),
        "/bomb.safetensors": (200_000).to_bytes(8, "little") + b'{"a":' * 40_000,
    }
    with pytest.raises(DownloadError) as caught:
        fetch(text, token=token)
    assert words in str(caught.value)
    assert not fetch.target.exists()
    for secret in ("hush", "hf_other", "Signature"):
        assert secret not in str(caught.value)


def test_a_file_with_another_hash_is_refused(fetch: Fetched) -> None:
    fetch("WEB/plain.safetensors", sha256=hashlib.sha256(DATA).hexdigest())
    assert fetch.is_right()
    fetch.target.unlink()
    with pytest.raises(DownloadError, match="its sha256 is not 00"):
        fetch("WEB/plain.safetensors", sha256="00")
    assert fetch.is_nothing()


def test_a_refused_file_is_not_downloaded(fetch: Fetched, hub: HubServer) -> None:
    def admit(size: int | None) -> None:
        raise DownloadError(f"{size} is too much")

    with pytest.raises(DownloadError, match=f"{len(DATA)} is too much"):
        fetch("hf:owner/plain/sub/model.safetensors", watch=Watch(admit=admit))
    assert hub.served() == []


def test_a_missing_host_has_its_own_error(fetch: Fetched, hub: HubServer) -> None:
    for text in ("http://127.0.0.1:9/x.safetensors", "hf:owner/plain/sub/model.safetensors"):
        with pytest.raises(DownloadError, match="could not be reached") as caught:
            download(
                read_source(text), fetch.target, Access(endpoint="http://127.0.0.1:9"), fetch.parts
            )
        assert caught.value.unreached


def test_client_urls_never_reach_the_private_network(fetch: Fetched, hub: HubServer) -> None:
    source = read_source(f"{hub.url}/plain.safetensors")
    with pytest.raises(DownloadError, match="leads to an address that is not public"):
        download(source, fetch.target, Access(private=False), fetch.parts)
    assert hub.seen == []


def test_disk_errors_do_not_blame_the_source(fetch: Fetched, hub: HubServer) -> None:
    fetch.target.parent.mkdir(parents=True)
    fetch.target.mkdir()
    with pytest.raises(OSError, match="directory"):
        fetch("WEB/plain.safetensors")
