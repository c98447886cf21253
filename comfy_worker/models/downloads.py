"""Downloads models that a job names by URL or that its template lacks, and keeps them for the job.

The rules for clients are here: which hosts and formats they may name. :mod:`comfy_common.download`
fetches a file, :mod:`comfy_worker.models.cache` keeps it.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from threading import Event
from typing import IO

from pydantic import SecretStr

from comfy_common import hub_cache
from comfy_common.addresses import host_matches
from comfy_common.download import DownloadError, Watch
from comfy_common.model_folders import SUFFIXES
from comfy_common.safetensors_header import SUFFIXES as SAFETENSORS
from comfy_common.safetensors_header import DamagedModel, check_whole
from comfy_common.sources import Access, Source, SourceError, read_source
from comfy_common.text import size
from comfy_worker.deadline import TICK_S, Deadline
from comfy_worker.errors import ModelNotFetched
from comfy_worker.logs import ContextThreadPool
from comfy_worker.models.cache import ModelCache
from comfy_worker.settings import Settings
from comfy_worker.workflow.model_files import ModelFile

__all__ = ["JobModels", "ModelsOnDemand"]

AT_ONCE = 4
PROGRESS_INTERVAL_S = 0.5
CACHE_ANSWER_S = 10.0

# A model folder, and the reference that a client wrote for a file in it.
Reference = tuple[str, str]


class ModelsOnDemand:
    """The downloaded models that all jobs of a worker share.

    Args:
        settings: the folder and size of the cache, the allowed hosts, and the tokens.

    Attributes:
        cache: keeps the files.
    """

    def __init__(self, settings: Settings) -> None:
        self.cache = ModelCache(
            settings.models_cache_dir, int(settings.models_cache_gb * 1e9), self._find_cached
        )
        self._settings = settings

    def _find_cached(self, source: Source) -> Path | None:
        """Find a file in the caches of Hugging Face; None if a cache does not answer in time."""
        found: list[Path] = []

        def find() -> None:
            file = hub_cache.find_source(source, self._settings.hub_snapshots)
            if file is not None and _is_whole(file, PurePosixPath(source.name).suffix):
                found.append(file)

        # The caches may be on a network volume that hangs. A job must be able to do without it.
        search = threading.Thread(target=find, name="hub-cache", daemon=True)
        search.start()
        search.join(CACHE_ANSWER_S)
        return found[0] if found else None

    @contextmanager
    def job(self, say: Callable[[str], None], stop: Deadline) -> Iterator[JobModels]:
        """The models of one job; the cache keeps the files that it uses until the block ends."""
        with ExitStack() as holds:
            yield JobModels(self._settings, self.cache, holds, say, stop)


def _is_whole(file: Path, suffix: str) -> bool:
    try:
        check_whole(file, suffix)
    except (DamagedModel, OSError):
        return False
    return True


class JobModels:
    """Downloads the models of one job.

    Args:
        settings: see :class:`ModelsOnDemand`.
        cache: keeps the files.
        holds: gets the locks of the files that the job uses.
        say: receives a sentence about the progress of the downloads.
        stop: when to give up.
    """

    def __init__(
        self,
        settings: Settings,
        cache: ModelCache,
        holds: ExitStack,
        say: Callable[[str], None],
        stop: Deadline,
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
        """Whether a client may name a model by its URL."""
        return bool(self._settings.models_allowed_hosts)

    def fetch(self, references: Collection[Reference]) -> Mapping[Reference, str]:
        """Download what a client refers to, several files at once, and keep it for the job.

        Returns:
            For each reference the file's name in its folder.

        Raises:
            ModelNotFetched: a reference is malformed, its host or format is not allowed, or the
                download failed.
            JobCancelled: the job was cancelled first.
            JobTimedOut: the job's time was over first.
        """
        names: dict[Reference, str] = {}
        sources: dict[str, Source] = {}
        for reference in references:
            folder, text = reference
            source = self._allowed(text)
            names[reference] = _file_name(source)
            sources[f"{folder}/{names[reference]}"] = source
        self._hold_all(sources, self._access)
        return names

    def fetch_needs(self, needs: Collection[ModelFile]) -> None:
        """Download files that the operator's own lists name; raises the same errors as `fetch`."""
        sources = {f"{need.folder}/{need.file}": self._read(need.url or "") for need in needs}
        self._hold_all(sources, replace(self._access, private=True))

    def _read(self, text: str) -> Source:
        try:
            return read_source(text, self._access.endpoint)
        except SourceError as error:
            raise ModelNotFetched(f"{error}; correct the address of the model") from None

    def _allowed(self, text: str) -> Source:
        """Read a client's reference, and refuse a host or format that the settings do not allow."""
        source = self._read(text)
        hosts = self._settings.models_allowed_hosts
        if not any(host_matches(source.host, host) for host in hosts):
            raise ModelNotFetched(
                f"{source.shown}: this worker does not download models from {source.host}; "
                f"allowed hosts: {', '.join(hosts) or 'none'}; use an allowed host or an installed "
                "model"
            )
        suffix = PurePosixPath(source.name).suffix.lower()
        if self._settings.models_safetensors_only and suffix in SUFFIXES - SAFETENSORS:
            raise ModelNotFetched(
                f"{source.shown}: this worker downloads only safetensors files, since a {suffix} "
                "file may contain programs; use the .safetensors file of this model"
            )
        return source

    def _hold_all(self, sources: Mapping[str, Source], access: Access) -> None:
        """Download several files at once, and keep them for the job.

        Args:
            sources: by ``folder/file``.
            access: the tokens to send, and the addresses that may be reached.
        """
        new = {name: source for name, source in sources.items() if name not in self._held}
        progress = dict.fromkeys(new, Progress())
        ended = Event()

        def hold(name: str, source: Source) -> IO[str]:
            def tell(have: int, total: int | None) -> None:
                progress[name] = Progress(have, total)

            return self._cache.hold(source, name, access, Watch(tell, cancelled=ended))

        pool = ContextThreadPool(AT_ONCE, thread_name_prefix="models")
        downloads = {name: pool.submit(hold, name, source) for name, source in new.items()}
        try:
            self._wait(downloads.values(), progress)
            for name, download in downloads.items():
                self._holds.enter_context(download.result())
                self._held.add(name)
        except (DownloadError, OSError) as error:
            raise ModelNotFetched(
                f"{error}; use another source, or a model that is installed"
            ) from None
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)
            # Files that came although the job failed must not stay locked.
            for name, download in downloads.items():
                if name not in self._held:
                    _release(download)

    def _wait(
        self, downloads: Collection[Future[IO[str]]], progress: Mapping[str, Progress]
    ) -> None:
        """Wait for all downloads and report their progress; raises the error of one that fails."""
        last_message, reported_at = "", 0.0
        left = set(downloads)
        while left:
            ended, left = wait(left, timeout=TICK_S)
            for download in ended:
                download.result()
            self._stop.check()
            if time.monotonic() - reported_at < PROGRESS_INTERVAL_S:
                continue
            reported_at = time.monotonic()
            parts = [f"{PurePosixPath(name).name}: {have}" for name, have in progress.items()]
            message = f"downloading {', '.join(parts)}"
            if left and message != last_message:
                last_message = message
                self._say(message)


@dataclass(frozen=True)
class Progress:
    """How much of a file is downloaded.

    Args:
        have: bytes.
        total: the file's size in bytes; None if it is not known.
    """

    have: int = 0
    total: int | None = None

    def __str__(self) -> str:
        """Write it as "1.2 GB of 6.9 GB"."""
        return size(self.have) if self.total is None else f"{size(self.have)} of {size(self.total)}"


def _release(download: Future[IO[str]]) -> None:
    """Unlock the file of a download that nobody needs."""
    if not download.cancelled() and download.exception() is None:
        download.result().close()


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _file_name(source: Source) -> str:
    """A readable file name that no other source has."""
    key = f"{source.repo}@{source.revision}/{source.file}" if source.repo else source.url
    path = PurePosixPath(source.name)
    suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".safetensors"
    stem = re.sub(r"[^\w-]+", "_", path.name.removesuffix(suffix))[:60]
    return f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:8]}{suffix}"
