"""Fetches a version of a GitHub repository as an archive, for machines without Git.

The archive is checked against the tree that Git itself would have: a hash of every file's name, mode and content.
An archive's own hash would not do, as GitHub may compress it differently tomorrow.
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

from comfy_common import offline
from comfy_common.errors import SetupError
from comfy_common.text import size
from comfy_setup.child import Unreachable
from comfy_setup.console import Step
from comfy_setup.network import opener, proxy_for, why_unreachable

ARCHIVES = "https://codeload.github.com/Comfy-Org/ComfyUI/tar.gz"
TIMEOUT_S = 30.0
CHUNK = 1 << 20


def fetch_archive(step: Step, environ: Mapping[str, str], commit: str, tree: str, folder: Path) -> None:
    """Put the files of a commit into a folder.

    Args:
        step: shows how far it is.
        environ: may name a proxy.
        commit: all 40 digits.
        tree: the id of its tree, which the files must have.
        folder: it is made.

    Raises:
        Unreachable: GitHub does not answer.
        SetupError: what came is not that tree.
    """
    url = f"{ARCHIVES}/{commit}"
    proxy = proxy_for(url, environ)
    folder.mkdir(parents=True)
    with tempfile.TemporaryFile(dir=folder.parent) as archive:
        try:
            with opener(proxy).open(url, timeout=TIMEOUT_S) as answer:
                while chunk := answer.read(CHUNK):
                    archive.write(chunk)
                    step.progress(size(archive.tell()))
        except (OSError, HTTPException) as error:
            raise Unreachable(f"{url} cannot be fetched: {error}") from error
        archive.seek(0)
        try:
            with tarfile.open(fileobj=archive) as tar:
                for member in tar:
                    _unpack(tar, member, folder)
        except (tarfile.TarError, EOFError) as error:
            raise SetupError(f"{url} is not a whole archive: {error}; call again") from error
    if tree_id(folder).hex() != tree:
        raise SetupError(f"{url} does not hold the files of that commit: they were changed on the way; call again")


def check_archives(environ: Mapping[str, str]) -> None:
    """Make sure that GitHub's archives can be reached.

    Args:
        environ: may name a proxy.

    Raises:
        Unreachable: they cannot.
    """
    if reason := why_unreachable(ARCHIVES, proxy_for(ARCHIVES, environ)):
        raise Unreachable(f"{ARCHIVES} cannot be reached: {reason}; {offline.advice('github.com', environ)}")


def tree_id(folder: Path) -> bytes:
    """Compute the id that Git gives to a folder's files.

    Args:
        folder: without `.git` in it.
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
    content = b"".join(mode + b" " + name.rstrip(b"/") + b"\0" + digest for name, mode, digest in sorted(entries))
    return _object_id(b"tree", content)


def _blob_id(content: bytes) -> bytes:
    return _object_id(b"blob", content)


def _object_id(name: bytes, content: bytes) -> bytes:
    return hashlib.sha1(b"%s %d\0" % (name, len(content)) + content).digest()  # noqa: S324 (Git's own)


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Unpack a file or a link; folders come with their files. The first part of a name is the archive's own."""
    parts = PurePosixPath(member.name).parts[1:]
    target = folder.joinpath(*parts)
    outside = ".." in parts or not target.parent.resolve().is_relative_to(folder.resolve())
    if not parts or member.isdir() or outside:
        return  # the tree's id tells if something is missing
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif content := tar.extractfile(member):
        with target.open("wb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
