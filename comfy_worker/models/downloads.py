"""Models that a job brings by URL, or that its template lacks: fetched before it runs, kept while it does.

Owns which hosts and formats a client may name, and what the job tells meanwhile. How a file is fetched, and where
it is kept, is not its business.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from threading import Event
from typing import IO

from pydantic import SecretStr

from comfy_common.download import DownloadError, Watch
from comfy_common.model_folders import SUFFIXES
from comfy_common.safetensors_header import SUFFIXES as SAFETENSORS
from comfy_common.sources import Access, Source, SourceError, read_source
from comfy_common.text import size
from comfy_worker.deadline import TICK_S, Stop
from comfy_worker.errors import ModelNotFetched
from comfy_worker.inputs.fetch import matches
from comfy_worker.logs import ContextThreadPool
from comfy_worker.models.cache import ModelCache
from comfy_worker.settings import Settings
from comfy_worker.workflow.graph import Need

__all__ = ["JobModels", "ModelsOnDemand"]

AT_ONCE = 4
# In MODELS_ALLOWED_HOSTS: models come from nowhere.
NO_HOST = "none"
TELL_EVERY_S = 0.5

# A model folder, and the word for a file that belongs there.
Asked = tuple[str, str]


class ModelsOnDemand:
    """What the jobs of a worker share.

    Args:
        settings: where such models are kept, how many, and from where they may come.

    Attributes:
        cache: where they are kept.
    """

    def __init__(self, settings: Settings) -> None:
        self.cache = ModelCache(settings.models_cache_dir, int(settings.models_cache_gb * 1e9))
        self._settings = settings

    @contextmanager
    def job(self, say: Callable[[str], None], stop: Stop) -> Iterator[JobModels]:
        """The models of one job; those that it uses stay until the block ends."""
        with ExitStack() as holds:
            yield JobModels(self._settings, self.cache, holds, say, stop)


class JobModels:
    """The models that one job brings.

    Args:
        settings: as above.
        cache: where they are kept.
        holds: keeps them.
        say: gets a sentence on how far the downloads are.
        stop: when to give up.
    """

    def __init__(
        self, settings: Settings, cache: ModelCache, holds: ExitStack, say: Callable[[str], None], stop: Stop
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._holds = holds
        self._say = say
        self._stop = stop
        self._held: set[str] = set()
        self._access = Access(
            _revealed(settings.hf_token),
            _revealed(settings.civitai_token),
            settings.hf_endpoint.rstrip("/"),
            settings.allow_private_urls,
        )

    @property
    def accepts_urls(self) -> bool:
        """Whether a client may give a model by its URL."""
        return any(host != NO_HOST for host in self._settings.models_allowed_hosts)

    def fetch(self, asked: Collection[Asked]) -> Mapping[Asked, str]:
        """Have what a client asked for, and keep it; several files at once.

        Returns:
            For each the file's name in its folder.

        Raises:
            ModelNotFetched: a word that is none, of a host or a format that is not allowed, or a file that cannot
                be had.
            JobCancelled: the job was cancelled first.
            JobTimedOut: its time was over first.
        """
        sources = {one: self._allowed(one[1]) for one in asked}
        names = {one: _file_name(source) for one, source in sources.items()}
        self._have({f"{one[0]}/{names[one]}": source for one, source in sources.items()}, self._access)
        return names

    def fetch_needs(self, needs: Collection[Need]) -> None:
        """Have files that the operator's own lists name, under their own names; errors as above."""
        sources = {f"{need.folder}/{need.file}": self._read(need.url or "") for need in needs}
        self._have(sources, replace(self._access, private=True))

    def _read(self, text: str) -> Source:
        try:
            return read_source(text, self._access.endpoint)
        except SourceError as error:
            raise ModelNotFetched(f"{error}; mend the word for the model") from None

    def _allowed(self, text: str) -> Source:
        source = self._read(text)
        hosts = self._settings.models_allowed_hosts
        if not any(matches(source.host, host) for host in hosts):
            raise ModelNotFetched(
                f"{source.shown}: this worker fetches no models from {source.host}, only from "
                f"{', '.join(hosts) or 'nowhere'}; use one of these, or a model that is installed"
            )
        suffix = PurePosixPath(source.name).suffix.lower()
        if self._settings.models_safetensors_only and suffix in SUFFIXES - SAFETENSORS:
            raise ModelNotFetched(
                f"{source.shown}: this worker fetches safetensors files only, and {suffix} may hold programs; "
                "use the .safetensors file of this model"
            )
        return source

    def _have(self, sources: Mapping[str, Source], access: Access) -> None:
        new = {name: source for name, source in sources.items() if name not in self._held}
        done: dict[str, tuple[int, int | None]] = {}
        ended = Event()

        def hold(name: str, source: Source) -> IO[str]:
            watch = Watch(lambda have, total: done.__setitem__(name, (have, total)), cancelled=ended)
            return self._cache.hold(source, name, access, watch)

        pool = ContextThreadPool(AT_ONCE, thread_name_prefix="models")
        work = {pool.submit(hold, name, source): name for name, source in new.items()}
        try:
            self._wait(work, done)
            for one, name in work.items():
                self._holds.enter_context(one.result())
                self._held.add(name)
        except (DownloadError, OSError) as error:
            raise ModelNotFetched(f"{error}; use another source, or a model that is installed") from None
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)
            for one, name in work.items():
                if name not in self._held and not one.cancelled() and one.exception() is None:
                    one.result().close()

    def _wait(self, work: Mapping[Future[IO[str]], str], done: Mapping[str, tuple[int, int | None]]) -> None:
        """Wait for the downloads, and tell how far they are; until one fails."""
        last_message, told_at = "", 0.0
        left = set(work)
        while left:
            ended, left = wait(left, timeout=TICK_S)
            for future in ended:
                future.result()
            self._stop.check()
            if time.monotonic() - told_at < TELL_EVERY_S:
                continue
            told_at = time.monotonic()
            message = "fetching " + ", ".join(_how_far(name, *done.get(name, (0, None))) for name in work.values())
            if left and message != last_message:
                last_message = message
                self._say(message)


def _how_far(name: str, have: int, total: int | None) -> str:
    file = PurePosixPath(name).name
    return f"{file}: {size(have)}" if total is None else f"{file}: {size(have)} of {size(total)}"


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _file_name(source: Source) -> str:
    """A name that says what it is, and that no other source has."""
    key = f"{source.repo}@{source.revision}/{source.file}" if source.repo else source.url
    path = PurePosixPath(source.name)
    suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".safetensors"
    stem = re.sub(r"[^\w-]+", "_", path.name.removesuffix(suffix))[:60]
    return f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:8]}{suffix}"
