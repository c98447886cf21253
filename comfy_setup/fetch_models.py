"""`comfy_setup models`: downloads the files of models.txt, several at once, with progress bars.

Runs inside the virtual environment. :mod:`comfy_common.download` downloads each file.
"""

from __future__ import annotations

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
REAL_INPUT = {
    "checkpoint": "sd_turbo.safetensors",
    "steps": 1,
    "cfg": 1.0,
    "width": 512,
    "height": 512,
}


def fetch_models(console: Console, environ: Mapping[str, str], only: Sequence[str]) -> int:
    """Download the files of models.txt that are missing or damaged.

    Args:
        console: shows the progress.
        environ: may hold MODELS_DIR, COMFYUI_DIR, VOLUME_DIR, HF_TOKEN, CIVITAI_TOKEN and
            HF_ENDPOINT.
        only: sections, files or templates, as for :func:`comfy_setup.models.listed`.

    Returns:
        The exit code: 1 if a download failed, else 0.

    Raises:
        SetupError: models.txt cannot be read, or a name is unknown.
        OSError: the disk failed.
    """
    wanted = _wanted(console, environ, only)
    if not wanted:
        console.say("All files are present.")
        return 0
    failed = _Fetching(console, environ, wanted).run()
    for error in failed:
        console.say(f"Error: {error}")
    unreached = [error.unreached for error in failed if error.unreached]
    for host in dict.fromkeys(unreached):
        console.say(f"No answer from {host}: {offline.advice(host, environ, _mirror(host))}.")
    console.say(f"{len(wanted) - len(failed)} of {len(wanted)} files downloaded.")
    return 1 if failed else 0


def fetch_real(console: Console, environ: Mapping[str, str]) -> bool:
    """Download a small real checkpoint.

    Args:
        console: says why if the download fails.
        environ: as for :func:`fetch_models`.

    Returns:
        Whether the checkpoint is installed now.
    """
    wanted = _wanted(console, environ, [REAL])
    failed = _Fetching(console, environ, wanted).run() if wanted else []
    for error in failed:
        console.say(f"The real checkpoint cannot be downloaded ({error}).")
        if error.unreached:
            console.say(f"To download it, {offline.advice(error.unreached, environ)}.")
    return not failed


def _wanted(console: Console, environ: Mapping[str, str], only: Sequence[str]) -> dict[Path, Entry]:
    """The files to download, by their target. The target of a damaged file is the file itself."""
    searched = models.folders(environ)
    wanted = {}
    for entry in models.listed(only, environ):
        path = models.find(entry, searched)
        problem = models.damage(path, entry.sha256) if path else ""
        if path and problem:
            console.say(f"{path} {problem}: downloading it again")
        if problem or path is None:
            wanted[path or paths.model_roots(environ)[0] / entry.path] = entry
    return wanted


def _mirror(host: str) -> str:
    """How to set another source for a host of models; empty to choose the text by the host."""
    return "" if host in offline.MIRRORS else "name another source in models.txt"


class _Fetching:
    """Downloads files in threads."""

    def __init__(
        self, console: Console, environ: Mapping[str, str], wanted: Mapping[Path, Entry]
    ) -> None:
        self._console = console
        self._access = Access.from_env(environ)
        self._wanted = wanted
        # Outside the model folder, since ComfyUI lists all files below it.
        self._parts: dict[Path, Path] = {}
        for target, entry in wanted.items():
            root = target.parents[len(Path(entry.path).parts) - 1]
            self._parts[target] = root / ".parts"
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._done: dict[Path, int] = {}
        self._sizes: dict[Path, int] = {}
        self._bars: dict[Path, tqdm[None]] = {}
        self._is_terminal = console.stream.isatty()

    def run(self) -> list[DownloadError]:
        """Download all files; returns the errors of those that failed."""
        # A mistake in models.txt should show before the first download.
        for entry in self._wanted.values():
            read_source(entry.url, self._access.endpoint)
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="models")
        total = self._bar(f"{len(self._wanted)} files", 0)
        downloads = []
        for number, (target, entry) in enumerate(self._wanted.items()):
            row = number % AT_ONCE + 1
            downloads.append(pool.submit(self._fetch, target, entry, row))
        interval_s = 0.2 if self._is_terminal else PLAIN_EVERY_S
        try:
            while wait(downloads, timeout=interval_s).not_done:
                self._show_total(total, downloads)
            results = [download.result() for download in downloads]
            return [error for error in results if error is not None]
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
            parts = self._parts[target] / entry.path
            download(source, target, self._access, parts, sha256=entry.sha256, watch=watch)
            self._console.say(f"downloaded  {target}")
        except DownloadError as error:
            return error
        except DownloadCancelled:
            return DownloadError(f"{entry.path} was not downloaded")
        finally:
            with self._lock:
                self._bars[target].close()
        return None

    def _admit(self, target: Path, total: int | None) -> None:
        """Refuse a file that does not fit on the disk beside the other downloads."""
        folder = next(folder for folder in target.parents if folder.is_dir())
        with self._lock:
            self._sizes[target] = total or 0
            done = sum(self._done.get(path, 0) for path in self._sizes)
            to_come = sum(self._sizes.values()) - done
            free = shutil.disk_usage(folder).free
        if to_come > free:
            raise DownloadError(
                f"{target} needs {size(total or 0)}, its disk has {size(free)} free: free some "
                "space"
            )

    def _bar(self, title: str, row: int) -> tqdm[None]:
        return tqdm(
            total=None, desc=title, position=row, unit="B", unit_scale=True, leave=False,
            file=self._console.stream, disable=not self._is_terminal,
        )  # fmt: skip

    def _show_total(
        self, bar: tqdm[None], downloads: Sequence[Future[DownloadError | None]]
    ) -> None:
        """Show the progress of all downloads together."""
        with self._lock:
            done, total = sum(self._done.values()), sum(self._sizes.values())
            bar.total, bar.n = max(total, done), done
            bar.refresh()
        if not self._is_terminal:
            ended = sum(download.done() for download in downloads)
            self._console.say(
                f"  {ended} of {len(downloads)} files, {size(done)} of {size(total)} downloaded"
            )
