"""Downloads a version of a GitHub repository as an archive, for machines without Git.

The files are checked against Git's own tree id: a hash of every file's name, mode and content. The
hash of the archive itself would not do, since GitHub may compress it differently tomorrow.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO

from comfy_common import offline
from comfy_common.console import Step
from comfy_common.errors import SetupError
from comfy_common.pinned_http import PinnedClient, RequestRefused
from comfy_common.text import size
from comfy_setup.child import Unreachable
from comfy_setup.network import proxy_for, why_refused, why_unreachable

ARCHIVES = "https://codeload.github.com/Comfy-Org/ComfyUI/tar.gz"
TIMEOUT_S = 30.0
CHUNK = 1 << 20


def fetch_archive(
    step: Step, environ: Mapping[str, str], commit: str, tree: str, folder: Path
) -> None:
    """Put the files of a commit into a folder.

    Args:
        step: shows the progress.
        environ: may name a proxy.
        commit: all 40 digits.
        tree: the id of the commit's tree, which the files must have.
        folder: created here.

    Raises:
        Unreachable: GitHub does not answer.
        SetupError: the files are not those of the tree.
    """
    url = f"{ARCHIVES}/{commit}"
    folder.mkdir(parents=True)
    with tempfile.TemporaryFile(dir=folder.parent) as archive:
        try:
            _download(step, url, proxy_for(url, environ), archive)
        except RequestRefused as error:
            raise Unreachable(f"{url} cannot be downloaded: {why_refused(error)}") from error
        except (OSError, HTTPException) as error:
            raise Unreachable(f"{url} cannot be downloaded: {error}") from error
        archive.seek(0)
        try:
            with tarfile.open(fileobj=archive) as tar:
                for member in tar:
                    _unpack(tar, member, folder)
        except (tarfile.TarError, EOFError) as error:
            raise SetupError(f"{url} is not a complete archive: {error}; run this again") from error
    if tree_id(folder).hex() != tree:
        raise SetupError(
            f"{url} does not contain the files of that commit: something changed them; run this "
            "again"
        )


def check_archives(environ: Mapping[str, str]) -> None:
    """Make sure that GitHub's archives can be reached.

    Args:
        environ: may name a proxy.

    Raises:
        Unreachable: they cannot be reached.
    """
    if reason := why_unreachable(ARCHIVES, proxy_for(ARCHIVES, environ)):
        advice = offline.advice("github.com", environ)
        raise Unreachable(f"{ARCHIVES} cannot be reached: {reason}; {advice}")


def _download(step: Step, url: str, proxy: str, file: IO[bytes]) -> None:
    client = PinnedClient(allow_private=True, proxy=proxy, silence_s=lambda: TIMEOUT_S)
    with client.open(url) as answer:
        if answer.response.status != 200:
            raise OSError(f"the server answered HTTP {answer.response.status}")
        while chunk := answer.response.read(CHUNK):
            file.write(chunk)
            step.progress(size(file.tell()))


def tree_id(folder: Path) -> bytes:
    """Compute Git's id of a folder's files.

    Args:
        folder: a folder without `.git` in it.
    """
    entries = []
    for entry in os.scandir(folder):
        name = os.fsencode(entry.name)
        if entry.is_symlink():
            entries.append((name, b"120000", _blob_id(os.fsencode(Path(entry.path).readlink()))))
        elif entry.is_dir():
            entries.append((name + b"/", b"40000", tree_id(Path(entry.path))))
        else:
            mode = b"100755" if entry.stat().st_mode & 0o100 else b"100644"
            entries.append((name, mode, _blob_id(Path(entry.path).read_bytes())))
    # Git sorts folders as if their names ended with a slash.
    content = b""
    for name, mode, digest in sorted(entries):
        content += mode + b" " + name.rstrip(b"/") + b"\0" + digest
    return _object_id(b"tree", content)


def _blob_id(content: bytes) -> bytes:
    return _object_id(b"blob", content)


def _object_id(name: bytes, content: bytes) -> bytes:
    data = b"%s %d\0" % (name, len(content)) + content
    return hashlib.sha1(data).digest()  # noqa: S324 (Git's own)


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Unpack a file or a link; folders are created for their files.

    The first part of each name is the archive's own folder and is left out.
    """
    parts = PurePosixPath(member.name).parts[1:]
    target = folder.joinpath(*parts)
    is_outside = ".." in parts or not target.parent.resolve().is_relative_to(folder.resolve())
    if not parts or member.isdir() or is_outside:
        return  # the tree's id shows if a file is missing
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif content := tar.extractfile(member):
        with target.open("wb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
