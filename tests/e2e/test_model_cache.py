"""The cache of models that jobs bring: each fetched once, the least recently used goes, none that is in use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from comfy_common.download import DownloadCancelled, DownloadError, Watch
from comfy_common.sources import Access, read_source
from comfy_worker.models import cache as model_cache
from comfy_worker.models.cache import ModelCache
from tests.hub_server import HubServer, hub_server, weights

pytestmark = pytest.mark.e2e

MB = 1_000_000
ONE = weights(MB)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        for name in ("a", "b", "c", "d", "stuck"):
            server.pages[f"/{name}.safetensors"] = ONE
        server.pages["/large.safetensors"] = weights(5 * MB)
        yield server


class Cache:
    """A cache of at most 3.5 MB, and its files."""

    def __init__(self, hub: HubServer, root: Path) -> None:
        self.hub = hub
        self.root = root
        self.cache = self.another()

    def another(self) -> ModelCache:
        return ModelCache(self.root, int(3.5 * MB))

    def hold(
        self, name: str, watch: Watch | None = None, cache: ModelCache | None = None
    ) -> IO[str]:
        source = read_source(f"{self.hub.url}/{name}.safetensors?token=hush")
        return (cache or self.cache).hold(
            source, f"loras/{name}.safetensors", Access(), watch or Watch()
        )

    def use(self, name: str, used_s_ago: float) -> None:
        self.hold(name).close()
        then = time.time() - used_s_ago
        os.utime(self.root / ".locks" / "loras" / f"{name}.safetensors.lock", (then, then))

    def names(self) -> str:
        return "".join(sorted(path.stem for path in self.root.glob("loras/*")))


@pytest.fixture
def cache(hub: HubServer, tmp_path: Path) -> Cache:
    return Cache(hub, tmp_path / "cache")


def test_ten_concurrent_requests_share_a_download(cache: Cache, hub: HubServer) -> None:
    begun = [threading.Event() for _ in range(10)]

    def use(number: int) -> bytes:
        watch = Watch(lambda have, _total: begun[number].set() if have else None)
        # Two workers on one disk, five jobs each.
        with cache.hold("stuck", watch, cache.cache if number % 2 else cache.another()):
            return (cache.root / "loras" / "stuck.safetensors").read_bytes()

    with ThreadPoolExecutor(10) as pool:
        jobs = [pool.submit(use, number) for number in range(10)]
        for event in begun:
            assert event.wait(30)
        assert cache.names() == "", "half a file is seen by nobody"
        hub.go_on.set()
        assert {job.result(60) for job in jobs} == {ONE}
    assert len(hub.served()) == 1


def test_the_least_recently_used_file_goes(cache: Cache, hub: HubServer) -> None:
    for name, used_s_ago in (("a", 300), ("b", 200), ("c", 100)):
        cache.use(name, used_s_ago)
    cache.hold("a").close()
    assert len(hub.served()) == 3
    cache.hold("d").close()
    assert cache.names() == "acd"


def test_files_in_use_are_never_deleted(cache: Cache) -> None:
    with ExitStack() as held:
        for name in "abc":
            held.enter_context(cache.hold(name))
        with pytest.raises(DownloadError, match="does not fit beside the models in use") as caught:
            cache.hold("d", cache=cache.another())
        assert "hush" not in str(caught.value)
        assert cache.names() == "abc"
    cache.hold("d").close()
    assert len(cache.names()) == 3


def test_concurrent_downloads_reserve_separate_space(cache: Cache, hub: HubServer) -> None:
    cache.use("a", 300)
    cache.use("b", 200)
    cancelled = threading.Event()
    begun = threading.Event()
    watch = Watch(lambda have, _total: begun.set() if have else None, cancelled=cancelled)
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(cache.hold, "stuck", watch)
        assert begun.wait(30)
        cache.hold("c").close()
        assert cache.names() == "bc", "a made room: b, c and what is still to come fill the cache"
        cancelled.set()
        with pytest.raises(DownloadCancelled):
            stuck.result(30)


def test_oversized_files_are_refused_before_downloading(cache: Cache) -> None:
    cache.use("a", 100)
    with pytest.raises(
        DownloadError, match=r"large\.safetensors is 5 MB, and MODELS_CACHE_GB allows 4 MB"
    ):
        cache.hold("large")
    assert cache.names() == "a"


def test_the_oldest_go_until_the_disk_has_room(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.cache.drop_oldest_until_free(1), "there is nothing yet"
    for name, used_s_ago in (("a", 300), ("b", 200), ("c", 100)):
        cache.use(name, used_s_ago)

    def disk_usage(_path: Path) -> object:
        return type("Usage", (), {"free": 10 * MB - len(cache.names()) * MB})

    monkeypatch.setattr(model_cache.shutil, "disk_usage", disk_usage)
    with cache.hold("a"):
        assert cache.cache.drop_oldest_until_free(8 * MB)
        assert cache.names() == "ac"
        assert not cache.cache.drop_oldest_until_free(10 * MB)
        assert cache.names() == "a"
    monkeypatch.setattr(
        model_cache.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 1000})
    )
    with pytest.raises(DownloadError, match="the worker's disk has no space for it"):
        cache.hold("b")


def test_whoever_waits_for_a_download_may_give_up(cache: Cache, hub: HubServer) -> None:
    first, second = threading.Event(), threading.Event()
    begun, waits = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        stuck = pool.submit(
            cache.hold,
            "stuck",
            Watch(lambda have, _: begun.set() if have else None, cancelled=first),
        )
        assert begun.wait(30)
        other = pool.submit(cache.hold, "stuck", Watch(lambda *_: waits.set(), cancelled=second))
        assert waits.wait(30)
        second.set()
        with pytest.raises(DownloadCancelled):
            other.result(30)
        assert not stuck.done()
        third = pool.submit(cache.hold, "stuck")
        first.set()  # and the next one takes over where it was
        with pytest.raises(DownloadCancelled):
            stuck.result(30)
        hub.go_on.set()
        third.result(30).close()
    assert [request.range for request in hub.served()] == ["", f"bytes={len(ONE) // 2}-"]
