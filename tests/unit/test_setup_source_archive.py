"""The archive of a commit, for machines without Git: what is in it must be the commit's tree."""

from __future__ import annotations

import io
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from comfy_common.console import Step
from comfy_common.errors import SetupError
from comfy_setup import source_archive
from comfy_setup.child import Unreachable
from comfy_setup.source_archive import check_archives, fetch_archive


@dataclass
class Archive:
    """A commit's archive as a server hands it out, and the commit's tree."""

    content: bytes
    tree: str
    status: int = 200


def git(folder: Path, *arguments: str) -> bytes:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True
    ).stdout


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    """One with all that Git knows: names that folders sort apart from, a script, a link, an empty file."""
    source = tmp_path / "source"
    files = {
        "a.py": "x",
        "a/b.py": "y",
        "a-b/c": "z",
        "a0": "",
        "\u00e9/deep/d.txt": "\u00e9\r\n",
        "run": "#!/bin/sh\n",
    }
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(text.encode())
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("a/b.py")
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "--message", "1")
    content = git(source, "archive", "--format=tar.gz", "--prefix=ComfyUI-1/", "HEAD")
    made = Archive(content, git(source, "rev-parse", "HEAD^{tree}").decode().strip())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(made.content)))
            self.end_headers()
            self.wfile.write(made.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setattr(source_archive, "ARCHIVES", f"http://127.0.0.1:{http.server_port}")
        yield made
        http.shutdown()


def fetch(archive: Archive, folder: Path) -> None:
    fetch_archive(Step("Fetching", io.StringIO()), {}, "0" * 40, archive.tree, folder)


def test_a_commits_files_are_put_in_place(archive: Archive, tmp_path: Path) -> None:
    check_archives({})
    made = tmp_path / "part" / "made"
    fetch(archive, made)
    assert (made / "a" / "b.py").read_text() == (made / "link").read_text() == "y"
    assert (made / "\u00e9" / "deep" / "d.txt").read_bytes() == "\u00e9\r\n".encode()
    assert (made / "run").stat().st_mode & 0o777 == 0o755
    assert list((tmp_path / "part").iterdir()) == [made]


def test_another_tree_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.tree = archive.tree[::-1]
    with pytest.raises(SetupError, match="does not contain the files of that commit"):
        fetch(archive, tmp_path / "made")


@pytest.mark.parametrize("content", [b"", b"<html>no</html>"])
def test_what_is_not_an_archive_is_refused(
    archive: Archive, tmp_path: Path, content: bytes
) -> None:
    archive.content = content
    with pytest.raises(SetupError, match=r"not a complete archive|does not contain the files"):
        fetch(archive, tmp_path / "made")


def test_a_cut_archive_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.content = archive.content[: len(archive.content) // 2]
    with pytest.raises(SetupError, match=r"not a complete archive|does not contain the files"):
        fetch(archive, tmp_path / "made")


def test_nothing_is_written_outside_the_folder(archive: Archive, tmp_path: Path) -> None:
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        link = tarfile.TarInfo("x/out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        for name in ("x/out/evil", "x/../../evil", "/evil", "x/../evil"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"!"))
    archive.content = packed.getvalue()
    with pytest.raises(SetupError, match="does not contain the files"):
        fetch(archive, tmp_path / "part" / "made")
    assert not [
        path
        for path in tmp_path.rglob("evil")
        if not path.is_relative_to(tmp_path / "part" / "made")
    ]


def test_a_server_that_is_gone_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_archive, "ARCHIVES", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="cannot be reached"):
        check_archives({})


def test_an_archive_comes_through_the_proxy(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = source_archive.ARCHIVES
    monkeypatch.setattr(source_archive, "ARCHIVES", "http://codeload.invalid/ComfyUI")
    made = tmp_path / "made"
    step = Step("Fetching", io.StringIO())
    fetch_archive(step, {"http_proxy": proxy}, "0" * 40, archive.tree, made)
    assert (made / "a.py").read_text() == "x"


def test_an_archive_that_is_missing_is_unreachable(archive: Archive, tmp_path: Path) -> None:
    archive.status = 404
    with pytest.raises(Unreachable, match="cannot be downloaded: the server answered HTTP 404"):
        fetch(archive, tmp_path / "made")
