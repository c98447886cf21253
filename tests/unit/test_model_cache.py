"""The cache of models where two jobs come close: what only a lucky moment would show."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

import pytest

from comfy_common.download import Watch, bytes_in
from comfy_common.sources import Access, Source, read_source
from comfy_worker.models import cache as model_cache
from comfy_worker.models.cache import ModelCache

NAME = "loras/a.safetensors"


class Dropping(ModelCache):
    """A cache whose file goes between a look at it and the lock, once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, 100)
        self.path = root / NAME
        self.locked: list[int] = []

    def _locked(self, name: str, how: int) -> IO[str] | None:
        if not self.locked:
            self.path.unlink()
        self.locked.append(how)
        return super()._locked(name, how)


def test_a_file_dropped_before_locking_downloads_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Dropping(tmp_path)
    cache.path.parent.mkdir()
    cache.path.write_bytes(b"old")

    def download(_source: Source, target: Path, *_: object, **__: object) -> None:
        assert cache.locked[-1] == fcntl.LOCK_EX
        target.write_bytes(b"new")

    monkeypatch.setattr(model_cache, "download", download)
    with cache.hold(read_source("https://h.example/a.safetensors"), NAME, Access(), Watch()):
        assert cache.path.read_bytes() == b"new"
    assert cache.locked == [fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_SH]


def test_what_another_worker_drops_meanwhile_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(tmp_path, 100)
    there = tmp_path / ".locks" / NAME
    there.parent.mkdir(parents=True)
    there.with_name("a.safetensors.lock").touch()
    gone = there.with_name("gone.safetensors.lock")
    monkeypatch.setattr(
        cache, "_locks", lambda: iter([gone, there.with_name("a.safetensors.lock")])
    )
    assert not cache.drop_oldest_until_free(1 << 62)
    assert not there.with_name("a.safetensors.lock").exists()


def test_files_deleted_while_counting_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").write_bytes(b"12345")
    monkeypatch.setattr(os, "walk", lambda _: iter([(str(tmp_path), [], ["gone", "there"])]))
    assert bytes_in(tmp_path) == 5
