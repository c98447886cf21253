"""`comfy_setup models`: the files of models.txt, several at once, each with a bar and one in total.

Runs inside the virtual environment.  How one file is fetched is the matter of `download`.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from tqdm import tqdm

from comfy_common import offline, paths
from comfy_common.console import PLAIN_EVERY_S, Console
from comfy_common.download import DownloadCancelled, DownloadError, Watch, download
from comfy_common.models_txt import Entry
from comfy_common.sources import Access, read_source
from comfy_common.text import size
from comfy_setup import models

AT_ONCE = 4
REAL = "sd-turbo"
REAL_INPUT = {"checkpoint": "sd_turbo.safetensors", "steps": 1, "cfg": 1.0, "width": 512, "height": 512}


def fetch_models(console: Console, environ: Mapping[str, str], only: Sequence[str]) -> int:
    """Fetch the files of models.txt that are missing or damaged.

    Args:
        console: where it is told.
        environ: may hold MODELS_DIR, COMFYUI_DIR, VOLUME_DIR, HF_TOKEN, CIVITAI_TOKEN and HF_ENDPOINT.
        only: sections of models.txt, empty for all.

    Returns:
        1 if one cannot be had, else 0.

    Raises:
        SetupError: models.txt cannot be read, or has no such section.
        OSError: the disk did not take a file.
    """
    wanted = _wanted(console, environ, only)
    if not wanted:
        console.say("All files are there.")
        return 0
    failed = _Fetching(console, environ, wanted).run()
    for error in failed:
        console.say(f"Error: {error}")
    for host in dict.fromkeys(error.unreached for error in failed if error.unreached):
        console.say(f"No answer from {host}: {offline.advice(host, environ, _mirror(host))}.")
    console.say(f"{len(wanted) - len(failed)} of {len(wanted)} files fetched.")
    return 1 if failed else 0


def fetch_real(console: Console, environ: Mapping[str, str]) -> bool:
    """Fetch the smallest real checkpoint worth showing.

    Args:
        console: told why where it cannot be had.
        environ: as above.

    Returns:
        Whether it is there now.
    """
    wanted = _wanted(console, environ, [REAL])
    failed = _Fetching(console, environ, wanted).run() if wanted else []
    for error in failed:
        where = "The hub is out of reach" if error.unreached else "The real checkpoint cannot be had"
        console.say(f"{where} ({error}): the placeholder stands in.")
        if error.unreached:
            console.say(f"To fetch it, {offline.advice(error.unreached, environ)}.")
    return not failed


def _wanted(console: Console, environ: Mapping[str, str], only: Sequence[str]) -> dict[Path, Entry]:
    """The files to fetch, by where each belongs: one that is damaged to where it lies."""
    searched = models.folders(environ)
    wanted = {}
    for entry in models.listed(only, environ):
        path = models.find(entry, searched)
        problem = models.damage(path, entry.sha256) if path else ""
        if path and problem:
            console.say(f"{path} {problem}: it is fetched anew")
        if problem or path is None:
            wanted[path or paths.model_roots(environ)[0] / entry.path] = entry
    return wanted


def _mirror(host: str) -> str:
    """How another address is set for a host of models; empty where the host itself tells."""
    return "" if host in offline.MIRRORS else "name another source in models.txt"


class _Fetching:
    """Files under way, in threads."""

    def __init__(self, console: Console, environ: Mapping[str, str], wanted: Mapping[Path, Entry]) -> None:
        self._console = console
        self._access = Access.from_env(environ)
        self._wanted = wanted
        # Beside the folder of the kind: what lies below that one ComfyUI would list.
        self._parts = {path: path.parents[len(Path(e.path).parts) - 1] / ".parts" for path, e in wanted.items()}
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._done: dict[Path, int] = {}
        self._sizes: dict[Path, int] = {}
        self._bars: dict[Path, tqdm[None]] = {}
        self._is_terminal = console.stream.isatty()

    def run(self) -> list[DownloadError]:
        """Fetch all; the errors of those that cannot be had."""
        for source in {entry.url for entry in self._wanted.values()}:
            read_source(source, self._access.endpoint)  # a slip in models.txt is told before anything is fetched
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="models")
        total = self._bar(f"{len(self._wanted)} files", 0)
        rows = itertools.cycle(range(1, AT_ONCE + 1))
        work = [pool.submit(self._fetch, *one, row) for one, row in zip(self._wanted.items(), rows, strict=False)]
        try:
            while wait(work, timeout=0.2 if self._is_terminal else PLAIN_EVERY_S).not_done:
                self._tell(total, work)
            return [error for one in work if (error := one.result()) is not None]
        finally:
            self._cancelled.set()
            pool.shutdown(cancel_futures=True)
            total.close()
            for parts in set(self._parts.values()):
                if not any(path.is_file() for path in parts.rglob("*")):
                    shutil.rmtree(parts, ignore_errors=True)

    def _fetch(self, target: Path, entry: Entry, row: int) -> DownloadError | None:
        def tell(done: int, total: int | None) -> None:
            with self._lock:
                self._done[target] = done
                self._bars[target].total = total
                self._bars[target].n = done
                self._bars[target].refresh()

        with self._lock:
            self._bars[target] = self._bar(entry.path, row)
        try:
            source = read_source(entry.url, self._access.endpoint)
            watch = Watch(tell, lambda size: self._admit(target, size), self._cancelled)
            download(
                source, target, self._access, self._parts[target] / entry.path, sha256=entry.sha256, watch=watch
            )
            self._console.say(f"fetched  {target}")
        except DownloadError as error:
            return error
        except DownloadCancelled:
            return DownloadError(f"{entry.path} was not fetched")
        finally:
            with self._lock:
                self._bars[target].close()
        return None

    def _admit(self, target: Path, total: int | None) -> None:
        """Refuse a file for which there is no room beside those that are under way."""
        folder = next(folder for folder in target.parents if folder.is_dir())
        with self._lock:
            self._sizes[target] = total or 0
            to_come = sum(self._sizes.values()) - sum(self._done.get(path, 0) for path in self._sizes)
            free = shutil.disk_usage(folder).free
        if to_come > free:
            raise DownloadError(f"{target} needs {size(total or 0)}, its disk has {size(free)} free: make room")

    def _bar(self, title: str, row: int) -> tqdm[None]:
        return tqdm(
            total=None, desc=title, position=row, unit="B", unit_scale=True, leave=False,
            file=self._console.stream, disable=not self._is_terminal,
        )  # fmt: skip

    def _tell(self, bar: tqdm[None], work: Sequence[Future[DownloadError | None]]) -> None:
        """Tell how far all are together."""
        with self._lock:
            done, total = sum(self._done.values()), sum(self._sizes.values())
            bar.total, bar.n = max(total, done), done
            bar.refresh()
        if not self._is_terminal:
            ended = sum(one.done() for one in work)
            self._console.say(f"  {ended} of {len(work)} files, {size(done)} of {size(total)} under way")
