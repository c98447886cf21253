"""Where a model comes from: which words are one, which host they mean, and who is shown a token."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_common import download_child
from comfy_common.models_txt import Entry
from comfy_common.sources import Access, Source, SourceError, read_source
from comfy_setup import fetch_models
from comfy_setup.console import Console

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


def test_a_page_whose_file_leads_up_is_no_file_of_a_repository() -> None:
    assert read_source("https://huggingface.co/owner/repo/resolve/main/%2e%2e/x").repo == ""


def asked_of(
    monkeypatch: pytest.MonkeyPatch, source: Source, access: Access, *answers: str
) -> list[tuple[str, str]]:
    """Each URL that is asked, and the token that it is shown; each answer is where it leads to, or nothing."""
    asked = []
    left = list(answers)

    def get(_session: requests.Session, url: str, headers: dict[str, str], **_options: Any) -> requests.Response:
        asked.append((url, headers.get("Authorization", "")))
        response = requests.Response()
        location = left.pop(0)
        response.status_code = 302 if location else 200
        response.headers["Location"] = location
        response.raw = io.BytesIO()
        return response

    monkeypatch.setattr(requests.Session, "get", get)
    download_child._opened(source, access, 0, "").close()
    return asked


def test_a_token_is_shown_to_its_own_host_alone_and_by_https(monkeypatch: pytest.MonkeyPatch) -> None:
    leads = ("https://civitai.com/b", "http://civitai.com/c", r"https://evil.example\@civitai.com/d", "")
    assert asked_of(monkeypatch, read_source("https://civitai.com/a"), ACCESS, *leads) == [
        ("https://civitai.com/a", "Bearer hush"),
        ("https://civitai.com/b", "Bearer hush"),
        ("http://civitai.com/c", ""),
        ("https://evil.example/%5C@civitai.com/d", ""),
    ]


def test_the_host_that_is_looked_at_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []

    def leads_out(host: str) -> bool:
        looked_at.append(host)
        return host != "10.0.0.1"

    monkeypatch.setattr(download_child, "_leads_out", leads_out)
    with pytest.raises(download_child.Ended) as ended:
        asked_of(
            monkeypatch, read_source("https://h.example/a"), Access(private=False), r"http://10.0.0.1\@h.example/"
        )
    assert "not public" in ended.value.told["refused"]
    assert looked_at == ["h.example", "10.0.0.1"]


def test_what_has_come_lies_beside_the_folder_that_comfyui_lists(tmp_path: Path) -> None:
    entry = Entry("", "loras/sub/a.safetensors", "https://h.example/a", "")
    elsewhere = tmp_path / "of a node pack" / "loras" / "sub" / "a.safetensors"
    fetching = fetch_models._Fetching(Console(io.StringIO()), {}, {elsewhere: entry})
    assert fetching._parts == {elsewhere: tmp_path / "of a node pack" / ".parts"}
