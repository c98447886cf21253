"""One model file from where it comes from to where it belongs; the one home of downloads, for setup and worker.

Owns when to try again, and that nothing half or false ever gets a model's name: a file is fetched into a folder
beside, checked, and renamed.  The bytes are moved by `download_child`, a process that can be ended at any moment.
Standard library only; the child needs the virtual environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from comfy_common import paths
from comfy_common.environment import public_variables
from comfy_common.errors import SetupError
from comfy_common.safetensors_header import DamagedModel, check_whole
from comfy_common.sources import Access, Source
from comfy_common.text import duration

ATTEMPTS = 5
UNREACHED_ATTEMPTS = 3
PAUSE_S = 1.0
LONGEST_PAUSE_S = 120.0
STALLED_S = 180.0
POLL_S = 0.1
TELL_EVERY_S = 0.5


class DownloadError(SetupError):
    """A file that cannot be had; the sentence begins with its source and says what to do.

    Args:
        sentence: what is wrong.
        unreached: whether its host could not be reached at all.
    """

    def __init__(self, sentence: str, *, unreached: bool = False) -> None:
        super().__init__(sentence)
        self.unreached = unreached


class DownloadCancelled(Exception):
    """Whoever waited for the file no longer does; what has come is kept for the next one."""


@dataclass
class Watch:
    """What is asked of a download while it runs; the defaults ask nothing.

    Args:
        tell: gets the bytes that are there and, where it is known, how many there will be; twice a second.
        admit: gets the size, None where it is not known, before the first byte comes; may raise to refuse it.
        cancelled: set by another thread to end it.
    """

    tell: Callable[[int, int | None], None] = lambda _done, _total: None
    admit: Callable[[int | None], None] = lambda _size: None
    cancelled: threading.Event = field(default_factory=threading.Event)


def download(
    source: Source, target: Path, access: Access, parts: Path, *, sha256: str = "", watch: Watch | None = None
) -> None:
    """Fetch a model file.

    Args:
        source: where it comes from.
        target: where it belongs; a file there is replaced once the new one is whole.
        access: tokens, and what may be reached.
        parts: a folder on the same disk for what has come so far, of this file alone; removed in the end.
        sha256: of the file in hex, empty if it is not known.
        watch: who asks how far it is.

    Raises:
        DownloadError: it cannot be had, or is not what it should be.
        DownloadCancelled: `watch.cancelled` was set.
        OSError: the disk did not take it.
    """
    watch = watch or Watch()
    parts.mkdir(parents=True, exist_ok=True)
    failures, have = 0, bytes_in(parts)
    while True:
        child = _Child(source, access, parts, watch, xet=failures < ATTEMPTS // 2)
        told = child.run()
        if file := told.get("file"):
            break
        if "errno" in told:
            raise OSError(told["errno"], os.strerror(told["errno"]), str(target))
        if "refused" in told:
            shutil.rmtree(parts)
            raise DownloadError(f"{source.shown}: {told['refused']}")
        grew, have = bytes_in(parts) > have, bytes_in(parts)
        failures, unreached = 1 if grew else failures + 1, bool(told.get("unreached"))
        if failures >= (UNREACHED_ATTEMPTS if unreached else ATTEMPTS):
            sentence = f"{source.shown}: {told['again']}, {failures} times; try again later"
            raise DownloadError(sentence, unreached=unreached)
        pause_s = told.get("after_s")
        if pause_s is None:
            pause_s = PAUSE_S * 2 ** (failures - 1)
        elif pause_s > LONGEST_PAUSE_S:
            raise DownloadError(f"{source.shown}: {told['again']}; try again in {duration(pause_s)}")
        if watch.cancelled.wait(pause_s):
            raise DownloadCancelled
    try:
        _check(Path(file), target.suffix, {digest for digest in (sha256, child.sha256) if digest})
    except DamagedModel as error:
        shutil.rmtree(parts)
        raise DownloadError(f"{source.shown} {error}") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    Path(file).replace(target)
    shutil.rmtree(parts)


def _check(file: Path, suffix: str, promised: set[str]) -> None:
    """Make sure that a file is what it should be, before it gets a model's name."""
    check_whole(file, suffix)
    if promised and {digest_of(file)} != promised:
        raise DamagedModel(f"is not what was promised: its sha256 is not {' and '.join(sorted(promised))}")


def digest_of(path: Path) -> str:
    """The sha256 of a file in hex.

    Args:
        path: a file of any size.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def bytes_in(folder: Path) -> int:
    """How much of a file has come; holes, which hf_xet leaves for what is still to come, do not count.

    Args:
        folder: where it comes; files in it may go while they are counted.
    """
    total = 0
    for top, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                stat = Path(top, name).lstat()
                total += min(stat.st_size, 512 * stat.st_blocks or stat.st_size)
    return total


class _Child:
    """One process that fetches, watched."""

    def __init__(self, source: Source, access: Access, parts: Path, watch: Watch, *, xet: bool) -> None:
        self.sha256 = ""
        self._asked = {"source": asdict(source), "access": asdict(access), "folder": str(parts)}
        self._parts = parts
        self._watch = watch
        self._size: int | None = None
        self._environ = {
            **public_variables(os.environ),  # the tokens go through the pipe
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "HF_XET_CACHE": str(parts / "xet"),
        }

    def run(self) -> dict[str, Any]:
        """What the child said in the end."""
        process = subprocess.Popen(
            [sys.executable, "-m", "comfy_common.download_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=paths.REPO,
            env=self._environ,
        )
        try:
            return self._talk(process)
        finally:
            process.kill()
            process.communicate()

    def _talk(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(self._asked).encode() + b"\n")
        process.stdin.flush()
        moved_at, have, told_at = time.monotonic(), 0, 0.0
        while True:
            if self._watch.cancelled.is_set():
                raise DownloadCancelled
            if select.select([process.stdout], [], [], POLL_S)[0]:
                line = process.stdout.readline()
                told: dict[str, Any] = json.loads(line) if line else {"again": "broke off (its process ended)"}
                if "size" not in told:
                    self._tell(bytes_in(self._parts))
                    return told
                self._size, self.sha256 = told["size"], told["sha256"]
                self._watch.admit(self._size)
                process.stdin.write(b"go\n")
                process.stdin.flush()
            now = time.monotonic()
            if now - told_at >= TELL_EVERY_S:
                told_at, before, have = now, have, bytes_in(self._parts)
                moved_at = now if have != before else moved_at
                self._tell(have)
                if now - moved_at > STALLED_S:
                    return {"again": "stands still"}

    def _tell(self, have: int) -> None:
        self._watch.tell(have if self._size is None else min(have, self._size), self._size)
