"""Where a model comes from: which words are one, which host they mean, and who is shown a token."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

from comfy_common import download
from comfy_common.console import Console
from comfy_common.models_txt import Entry
from comfy_common.pinned_http import PinnedClient, Target
from comfy_common.sources import Access, Source, SourceError, read_source
from comfy_setup import fetch_models

ACCESS = Access(hf_token="hf_hush", civitai_token="hush", private=True)


@pytest.mark.parametrize(
    "text",
    [
        "hf:owner/file.safetensors",
        "hf:owner/repo/../../file.safetensors",
        "ftp://civitai.com/x.safetensors",
        "https:///x.safetensors",
        "https://[civitai.com/x.safetensors",
        "https://civitai.com/a b.safetensors",
        "https://civitai.com/a%0ab.safetensors",
        "hf:owner/repo/a\x1bb.safetensors",
        # A browser, and requests, would ask evil.example for it.
        r"https://evil.example\@civitai.com/x.safetensors",
    ],
)
def test_a_word_that_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="hf:owner/repo/file"):
        read_source(text)


@pytest.mark.parametrize(
    ("path", "revision", "file"),
    [
        ("blob/main/sub/a%20b.safetensors?download=true", "main", "sub/a b.safetensors"),
        ("resolve/refs%2Fpr%2F1/x.safetensors", "refs/pr/1", "x.safetensors"),
    ],
)
def test_the_page_of_a_file_means_the_file(path: str, revision: str, file: str) -> None:
    found = read_source(f"https://huggingface.co/owner/repo/{path}")
    assert (found.repo, found.revision, found.file) == ("owner/repo", revision, file)


def test_a_page_path_with_parents_is_no_source() -> None:
    assert read_source("https://huggingface.co/owner/repo/resolve/main/%2e%2e/x").repo == ""


def requests_of(
    monkeypatch: pytest.MonkeyPatch, source: Source, access: Access, *locations: str
) -> list[tuple[str, str]]:
    """Each URL that is requested, and the token that it is sent; the answers lead to these locations."""
    requested = []
    left = [*locations, ""]

    @contextmanager
    def answered(
        _client: PinnedClient,
        target: Target,
        _method: str,
        headers: Mapping[str, str],
        _body: bytes | None,
    ) -> Iterator[SimpleNamespace]:
        requested.append((target.url, headers.get("Authorization", "")))
        response = SimpleNamespace(status=404, headers=Message())
        yield SimpleNamespace(target=target, location=left.pop(0) or None, response=response)

    monkeypatch.setattr(PinnedClient, "_answered", answered)
    parts = Path("/nowhere")
    with pytest.raises(Exception, match=r"answered HTTP 404|a URL that cannot be read"):
        download._Transfer(source, access, parts, download.Watch()).run()
    return requested


def test_a_token_goes_to_its_host_over_https(monkeypatch: pytest.MonkeyPatch) -> None:
    leads = (
        "https://civitai.com/b",
        "http://civitai.com/c",
        "https://evil.example/%5C@civitai.com/d",
    )
    assert requests_of(monkeypatch, read_source("https://civitai.com/a"), ACCESS, *leads) == [
        ("https://civitai.com:443/a", "Bearer hush"),
        ("https://civitai.com:443/b", "Bearer hush"),
        ("http://civitai.com:80/c", ""),
        ("https://evil.example:443/%5C@civitai.com/d", ""),
    ]


@pytest.mark.parametrize("host", [r"evil.example\@civitai.com", r"civitai.com\.evil.example"])
def test_a_redirect_to_an_ambiguous_host_is_refused(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    source = read_source("https://civitai.com/a")
    assert len(requests_of(monkeypatch, source, ACCESS, f"https://{host}/d")) == 1


def test_a_url_password_goes_to_its_host_only(monkeypatch: pytest.MonkeyPatch) -> None:
    source = read_source("https://me:pass%20word@h.example/a")
    assert requests_of(monkeypatch, source, Access(), "https://other.example/b") == [
        ("https://h.example:443/a", "Basic bWU6cGFzcyB3b3Jk"),
        ("https://other.example:443/b", ""),
    ]


def test_partial_downloads_stay_outside_the_listed_folder(tmp_path: Path) -> None:
    entry = Entry("", "loras/sub/a.safetensors", "https://h.example/a", "")
    elsewhere = tmp_path / "of a node pack" / "loras" / "sub" / "a.safetensors"
    fetching = fetch_models._Fetching(Console(io.StringIO()), {}, {elsewhere: entry})
    assert fetching._parts == {elsewhere: tmp_path / "of a node pack" / ".parts"}
