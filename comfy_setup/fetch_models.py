"""`comfy_setup models`: downloads the files of models.txt, several at once.

Standard library only, so that a bare checkout can fill a network volume without installing
anything. :mod:`comfy_common.download` downloads each file.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Collection, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TextIO

from comfy_common import offline, paths
from comfy_common.console import DRAW_EVERY_S, Console, Step
from comfy_common.download import DownloadCancelled, DownloadError, Watch, download
from comfy_common.errors import SetupError
from comfy_common.models_txt import Entry, parse_sections
from comfy_common.sources import Access, read_source
from comfy_common.text import duration, size
from comfy_setup import models
from comfy_setup.model_selection import by_section

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
        only: sections, families, files or templates, as for :func:`comfy_setup.models.listed`.

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
    for error in failed.values():
        console.say(f"Error: {error}")
    _explain_unreached(console, environ, failed, wanted)
    console.say(f"{len(wanted) - len(failed)} of {len(wanted)} files downloaded.")
    return 1 if failed else 0


def _explain_unreached(
    console: Console,
    environ: Mapping[str, str],
    failed: Mapping[Path, DownloadError],
    wanted: Mapping[Path, Entry],
) -> None:
    """Say what to check for each host that did not answer, and how to do without it."""
    unreached = {path: error.unreached for path, error in failed.items() if error.unreached}
    for host in dict.fromkeys(unreached.values()):
        console.say(f"No answer from {host}: {offline.advice(host, environ, _mirror(host))}.")
    if not unreached:
        return
    console.say("To place a file by hand, download it elsewhere and save it under this name:")
    for path in unreached:
        console.say(f"  {wanted[path].url}\n    -> {path}")


def confirm_all(console: Console, environ: Mapping[str, str], answers: TextIO) -> bool:
    """Ask whether to download all files of models.txt, and say how large they are.

    Args:
        console: shows the question.
        environ: as for :func:`fetch_models`.
        answers: where the answer comes from.

    Returns:
        Whether the user agrees.

    Raises:
        SetupError: nobody can answer, or models.txt cannot be read.
    """
    missing = {entry.path for entry in missing_entries(environ, [])}
    if not missing:
        return True
    total, unknown = _estimate(environ, missing)
    root = paths.model_roots(environ)[0]
    beside = f", and {unknown} of them do not state a size" if unknown else ""
    question = (
        f"All of models.txt: {len(missing)} files are missing, about {size(total)}{beside}. "
        f"They go into {root}, whose disk has {size(_free(root))} free."
    )
    if not answers.isatty():
        raise SetupError(
            f"{question} Choose with --only (templates, families or files; `models --list` shows "
            "them), or add --yes to download everything"
        )
    console.say(question)
    console.say("Download everything? --only NAME downloads one template's files. [y/N]")
    return answers.readline().strip().lower() in ("y", "yes")


def _estimate(environ: Mapping[str, str], missing: Set[str]) -> tuple[int, int]:
    """About how many bytes the missing files of models.txt have, and how many files are not in it.

    Where only the whole section states a size, its files without a size share the rest evenly.
    """
    text = models.models_text()
    sections = parse_sections(text)
    total, unknown = 0.0, 0
    counted: set[str] = set()
    for name, entries in by_section(text, [], environ).items():
        section = sections.get(name)
        unsized = [entry for entry in entries if not entry.size]
        rest = (section.size if section else 0) - sum(entry.size for entry in entries)
        for entry in entries:
            if entry.path in counted or entry.path not in missing:
                continue
            counted.add(entry.path)
            if entry.size:
                total += entry.size
            elif rest > 0:
                total += rest / len(unsized)
            else:
                unknown += 1
    return round(total), unknown


def missing_entries(environ: Mapping[str, str], only: Sequence[str]) -> list[Entry]:
    """List the chosen files of models.txt that are not installed.

    Args:
        environ: as for :func:`fetch_models`.
        only: the same.

    Raises:
        SetupError: models.txt cannot be read, or a name is unknown.
    """
    installed = models.InstalledModels(environ)
    return [entry for entry in models.listed(only, environ) if installed.find(entry) is None]


def _free(folder: Path) -> int:
    """The free bytes on the disk of a folder that may be missing."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    return shutil.disk_usage(existing).free


def fetch_real(console: Console, environ: Mapping[str, str]) -> bool:
    """Download a small real checkpoint.

    Args:
        console: says why if the download fails.
        environ: as for :func:`fetch_models`.

    Returns:
        Whether the checkpoint is installed now.
    """
    wanted = _wanted(console, environ, [REAL])
    failed = _Fetching(console, environ, wanted).run() if wanted else {}
    for error in failed.values():
        console.say(f"The real checkpoint cannot be downloaded ({error}).")
        if error.unreached:
            console.say(f"To download it, {offline.advice(error.unreached, environ)}.")
    return not failed


def _wanted(console: Console, environ: Mapping[str, str], only: Sequence[str]) -> dict[Path, Entry]:
    """The files to download, by their target. The target of a damaged file is the file itself."""
    installed = models.InstalledModels(environ)
    wanted = {}
    for entry in models.listed(only, environ):
        path = models.find(entry, installed.folders)
        cached = None if path else installed.find_cached(entry)
        found = path or cached
        problem = models.damage(found, entry.sha256) if found else ""
        if problem:
            console.say(f"{found} {problem}: downloading it again")
        elif cached:
            console.say(f"{entry.path} is in a cache of Hugging Face, where it is used: {cached}")
        # A file of a cache belongs to another program, and is not replaced.
        if problem or found is None:
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
        self._messages: list[str] = []

    def run(self) -> dict[Path, DownloadError]:
        """Download all files; returns the errors of those that failed, by their target."""
        # A mistake in models.txt should show before the first download.
        for entry in self._wanted.values():
            read_source(entry.url, self._access.endpoint)
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="models")
        downloads: dict[Path, Future[DownloadError | None]] = {}
        for target, entry in self._wanted.items():
            downloads[target] = pool.submit(self._fetch, target, entry)
        count = f"{len(downloads)} files" if len(downloads) > 1 else "1 file"
        try:
            with self._console.step(f"Downloading {count}") as step:
                while wait(downloads.values(), timeout=DRAW_EVERY_S).not_done:
                    self._show(step, downloads.values())
                self._show(step, downloads.values())
            results = {target: download.result() for target, download in downloads.items()}
            return {target: error for target, error in results.items() if error is not None}
        finally:
            self._cancelled.set()
            pool.shutdown(cancel_futures=True)
            for parts in set(self._parts.values()):
                if not any(path.is_file() for path in parts.rglob("*")):
                    shutil.rmtree(parts, ignore_errors=True)

    def _fetch(self, target: Path, entry: Entry) -> DownloadError | None:
        def tell(done: int, total: int | None) -> None:
            with self._lock:
                self._done[target] = done
                self._sizes[target] = total or 0

        try:
            source = read_source(entry.url, self._access.endpoint)
            watch = Watch(tell, lambda size: self._admit(target, size), self._cancelled)
            parts = self._parts[target] / entry.path
            download(source, target, self._access, parts, sha256=entry.sha256, watch=watch)
            with self._lock:
                self._messages.append(f"downloaded  {target}")
        except DownloadError as error:
            return error
        except DownloadCancelled:
            return DownloadError(f"{entry.path} was not downloaded")
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

    def _show(self, step: Step, downloads: Collection[Future[DownloadError | None]]) -> None:
        """Show the progress of all downloads together, and the files that have arrived."""
        with self._lock:
            done, total = sum(self._done.values()), sum(self._sizes.values())
            messages, self._messages = self._messages, []
        for message in messages:
            step.say(message)
        ended = sum(download.done() for download in downloads)
        note = f"{ended} of {len(downloads)} files, {size(done)} of {size(max(total, done))}"
        if done and done < total:
            left_s = (total - done) * step.elapsed_s / done
            note += f", about {duration(left_s)} left"
        step.progress(note, done / total if total else None)
