"""Keeps the files that clients upload and the files that jobs make.

The files lie in a temporary folder, one file for equal contents. They share a limit: when it is
reached, the oldest files that jobs made are removed; uploads are kept until their client removes
them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from blake3 import blake3

from .errors import ApiError, not_found

__all__ = ["Asset", "AssetInfo", "AssetStore", "WrittenFile"]

MAX_ASSET_BYTES = 100_000_000
MAX_TOTAL_BYTES = 4_000_000_000
CHUNK_BYTES = 1_000_000
HASH_PREFIX = "blake3:"


@dataclass(frozen=True)
class AssetInfo:
    """What is known about a file beside its content.

    Args:
        file_path: The client's or ComfyUI's name of the file.
        content_type: Its media type.
        job_id: The job that made it; None for an upload.
    """

    file_path: str
    content_type: str
    job_id: str | None = None


@dataclass(frozen=True)
class Asset:
    """A file that clients know by its id.

    Attributes:
        path: The file; None if it lies at `link`.
        digest: BLAKE3 of its content; None if it lies at `link`.
        link: The URL in the storage to which the worker uploaded it.
    """

    asset_id: str
    info: AssetInfo
    size_bytes: int
    created_at: datetime
    path: Path | None = None
    digest: str | None = None
    link: str | None = None

    @property
    def hash(self) -> str | None:
        """The hash as clients write it."""
        return None if self.digest is None else HASH_PREFIX + self.digest


@dataclass(frozen=True)
class WrittenFile:
    """A file in the folder of the store that is not an asset yet."""

    path: Path
    digest: str
    size_bytes: int


class AssetStore:
    """The assets of an endpoint; their folder is removed when the store is closed.

    Args:
        max_total_bytes: How much all files may take.
    """

    def __init__(self, max_total_bytes: int = MAX_TOTAL_BYTES) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="comfy_local-assets-")
        self._max_total_bytes = max_total_bytes
        self._total_bytes = 0
        # The oldest first.
        self._assets: dict[str, Asset] = {}
        # Assets by the digest of their content; they share a file.
        self._sharing: dict[str, set[str]] = {}

    def write(self, content: BinaryIO) -> WrittenFile:
        """Writes a file that is not an asset yet; any thread may call this.

        Raises:
            ApiError: The disk is full.
        """
        handle, name = tempfile.mkstemp(dir=self._folder.name)
        try:
            with os.fdopen(handle, "wb") as file:
                digest, size = _copy(content, file.write)
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            problem = f"the file cannot be stored: {error.strerror}"
            raise ApiError(507, "storage_full", problem) from error
        return WrittenFile(Path(name), digest, size)

    def add(self, file: WrittenFile, info: AssetInfo, expected: str = "") -> Asset:
        """Makes a written file an asset.

        Args:
            file: The file.
            info: What is known about it.
            expected: The hash that the client computed; empty if it did not.

        Raises:
            ApiError: The content has another hash, or there is no space.
        """
        try:
            if expected and expected.removeprefix(HASH_PREFIX).lower() != file.digest:
                problem = f"the file's hash is {HASH_PREFIX}{file.digest}, not {expected[:100]}"
                raise ApiError(409, "hash_mismatch", problem)
            if not self.has_content(file.digest):
                self._make_room(file.size_bytes)
                self._total_bytes += file.size_bytes
            target = Path(self._folder.name) / file.digest
            file.path.replace(target)
        finally:
            file.path.unlink(missing_ok=True)
        return self._remember(info, file.size_bytes, path=target, digest=file.digest)

    def add_link(self, link: str, size_bytes: int, info: AssetInfo) -> Asset:
        """Notes a file that lies elsewhere."""
        return self._remember(info, size_bytes, link=link)

    def add_same(self, digest: str, file_path: str = "") -> Asset:
        """Makes a further asset of a content that is stored already.

        Args:
            digest: The hash of the content.
            file_path: The name of the new asset; by default that of a present one.

        Raises:
            ApiError: There is no such content.
        """
        ids = self._sharing.get(digest.removeprefix(HASH_PREFIX))
        if not ids:
            raise ApiError(404, "blob_not_found", "no asset has this hash; upload the file")
        known = self._assets[next(iter(ids))]
        info = AssetInfo(file_path or known.info.file_path, known.info.content_type)
        return self._remember(info, known.size_bytes, path=known.path, digest=known.digest)

    def has_content(self, digest: str) -> bool:
        """Whether a content is stored already."""
        return digest.removeprefix(HASH_PREFIX) in self._sharing

    def get(self, asset_id: str) -> Asset:
        """Returns an asset.

        Raises:
            ApiError: There is no such asset.
        """
        if asset_id not in self._assets:
            raise not_found(f"there is no asset {asset_id[:100]}")
        return self._assets[asset_id]

    def remove(self, asset_id: str) -> None:
        """Removes an asset, and its file if no other asset has the same content.

        Raises:
            ApiError: There is no such asset.
        """
        asset = self.get(asset_id)
        del self._assets[asset_id]
        if asset.digest is None or asset.path is None:
            return
        sharing = self._sharing[asset.digest]
        sharing.discard(asset_id)
        if not sharing:
            del self._sharing[asset.digest]
            self._total_bytes -= asset.size_bytes
            with suppress(OSError):
                asset.path.unlink()

    def close(self) -> None:
        """Removes every file."""
        self._folder.cleanup()

    def _make_room(self, size: int) -> None:
        for asset in list(self._assets.values()):
            if asset.info.job_id is None or asset.path is None:
                continue
            if self._total_bytes + size <= self._max_total_bytes:
                return
            self.remove(asset.asset_id)
        if self._total_bytes + size > self._max_total_bytes:
            raise ApiError(
                507,
                "storage_full",
                f"all assets together may have {self._max_total_bytes:,} bytes; delete some",
            )

    def _remember(
        self,
        info: AssetInfo,
        size_bytes: int,
        *,
        path: Path | None = None,
        digest: str | None = None,
        link: str | None = None,
    ) -> Asset:
        now = datetime.now(timezone.utc)
        asset = Asset(str(uuid4()), info, size_bytes, now, path, digest, link)
        self._assets[asset.asset_id] = asset
        if digest is not None:
            self._sharing.setdefault(digest, set()).add(asset.asset_id)
        return asset


def _copy(content: BinaryIO, write: Callable[[bytes], object]) -> tuple[str, int]:
    """Copies a file. Returns the digest of its content and its size."""
    hasher, size = blake3(), 0
    while chunk := content.read(CHUNK_BYTES):
        hasher.update(chunk)
        write(chunk)
        size += len(chunk)
    return hasher.hexdigest(), size
