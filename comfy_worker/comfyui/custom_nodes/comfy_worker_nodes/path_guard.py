"""Keeps nodes from reading files that are not their job's, whatever path a graph gives them.

The worker refuses graphs that name such paths before it queues them; this is a second check, for a graph that
passes the first. An audit hook of Python sees every ``open`` and every listing of a folder on the prompt thread
and on threads that it starts, whichever node makes them. Where a library opens files outside of Python (FFmpeg,
OpenCV), its function is wrapped instead; so are ComfyUI's own functions that resolve the name of an input file.

The rule itself is in :mod:`.readable`. It allows folders rather than forbids them, since nobody can list every
secret of a machine, and it names whole trees (packs, models, caches, the system), since nobody can list every file
that a pack needs. Files that are only written are let through, except into other jobs' folders.
"""

# Paths come as ComfyUI's and its nodes' own texts, and are compared as such.
# ruff: noqa: PTH100, PTH118, PTH119, PTH120, PTH208
from __future__ import annotations

import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .readable import Readable, system_roots

__all__ = ["guard_paths"]

# Folders of ComfyUI's own checkout that hold somebody's files where ComfyUI was used there before.
PERSONAL = ("input", "output", "temp", "user")
SHARED_MEMORY = "/dev/shm"  # noqa: S108
# Functions of libraries that open a file outside of Python; the first argument names it.
OPENERS = (
    ("av", "open"),
    ("cv2", "imread"),
    ("cv2", "imreadmulti"),
    ("soundfile", "read"),
    ("torchaudio", "load"),
    ("torchaudio", "info"),
)
# What FFmpeg takes for an address rather than for a path.
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)[,:]")
REMOTE = {"http", "https", "rtmp", "rtmps", "rtsp", "rtp", "srt", "tcp", "tls", "udp", "data"}
LISTINGS = frozenset({"os.listdir", "os.scandir"})
MOVES = frozenset({"os.rename", "os.link", "os.symlink"})
WATCHED = (
    LISTINGS | MOVES | {"open", "os.mkdir", "os.remove", "subprocess.Popen", "sqlite3.connect"}
)


class PathGuard:
    """The rule, and the threads that it is for."""

    def __init__(self, readable: Readable) -> None:
        self.readable = readable
        self._local = threading.local()

    @property
    def is_on(self) -> bool:
        """Whether the thread that calls works for a prompt."""
        return getattr(self._local, "is_on", False)

    @contextmanager
    def applied(self, own: frozenset[str]) -> Iterator[None]:
        """Apply the rule to this thread, for a job with these folders, for as long as the block lasts."""
        self.readable.own, self._local.is_on = own, True
        try:
            yield
        finally:
            self.readable.own, self._local.is_on = frozenset(), False

    def keep_on(self) -> None:
        """Apply the rule to this thread for as long as it lives."""
        self._local.is_on = True

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Lift the rule for what this module does itself."""
        before, self._local.is_on = self.is_on, False
        try:
            yield
        finally:
            self._local.is_on = before

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Refuse what an audit event announces, where it is not allowed."""
        if event not in WATCHED or not self.is_on:
            return
        with self.lifted():
            refused = self._refused_by(event, args)
        if refused is not None:
            raise self.refusal(refused)

    def check(self, path: Any) -> None:
        """Refuse to read a path or an address of FFmpeg's, where that is not allowed."""
        name = _text(path)
        if not self.is_on or name is None:
            return
        address = ADDRESS.match(name)
        if address is not None and address[1].lower() in REMOTE:
            return
        if address is not None and not address[1].lower().startswith("file"):
            raise self.refusal(name)  # such as `concat:` and `subfile:`, which name files within
        name = name if address is None else name[address.end() :]
        with self.lifted():
            is_allowed = self.readable.allows(name)
        if not is_allowed:
            raise self.refusal(name)

    def refusal(self, path: str) -> PermissionError:
        """The error for a path."""
        own = ", ".join(sorted(self.readable.own)) or "none was named"
        name = os.path.basename(path)
        return PermissionError(
            f"'{name}' is not for this job: nodes read what lies in the job's own folders ({own}), models, "
            "and what ComfyUI and its packs bring; send the file with the job"
        )

    def _refused_by(self, event: str, args: tuple[Any, ...]) -> str | None:
        """The path that an event must not have; None where all is well."""
        if event == "subprocess.Popen":
            return next((word for word in _files_of(args) if not self.readable.allows(word)), None)
        name = _text(args[0]) if args else None
        if name is None or name == ":memory:":
            return None
        if event == "os.mkdir":
            self.readable.note_created(name)
            return None
        if event in MOVES:
            return self._refused_move(event, name, args)
        if event == "open":
            return self._refused_open(name, args)
        return name if self._is_refused(event, name) else None

    def _is_refused(self, event: str, name: str) -> bool:
        if event == "os.remove":
            return self.readable.is_foreign(name)
        if event in LISTINGS and self.readable.is_job_root(name):
            # A listing that was not filtered: somebody kept a reference to the original function.
            return any(self.readable.is_of_other_job(entry) for entry in os.listdir(name))
        return not self.readable.allows(name)

    def _refused_move(self, event: str, name: str, args: tuple[Any, ...]) -> str | None:
        target = _text(args[1]) if len(args) > 1 else None
        if target is None:
            return name
        if event == "os.symlink":  # a link's text counts from where the link is
            name = os.path.join(os.path.dirname(os.path.abspath(target)), name)
        if not self.readable.allows(name):
            return name
        if self.readable.is_foreign(target):
            return target
        self.readable.note_created(target)
        return None

    def _refused_open(self, name: str, args: tuple[Any, ...]) -> str | None:
        flags = args[2] if len(args) > 2 and isinstance(args[2], int) else os.O_RDONLY
        is_emptied = bool(flags & os.O_TRUNC)
        if flags & os.O_CREAT:
            self.readable.note_created(name)
        if flags & os.O_ACCMODE == os.O_WRONLY or is_emptied:
            return name if self.readable.is_foreign(name) else None
        # A file that is missing is told as missing.
        if self.readable.allows(name) or not os.path.lexists(name):
            return None
        return name


def _text(path: Any) -> str | None:
    """A path as text; None for what names no file, such as a number."""
    if isinstance(path, (str, bytes, os.PathLike)):
        try:
            return os.fsdecode(path)
        except (TypeError, ValueError):
            return None
    return None


def _files_of(args: tuple[Any, ...]) -> Iterator[str]:
    """The files of this machine that a program is started with."""
    words = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    for word in words[1:]:
        text = _text(word)
        path = text.removeprefix("file:") if text is not None else ""
        if os.sep in path and os.path.lexists(path):
            yield path


def guard_paths() -> None:
    """Take effect for every prompt from now on."""
    if sys.platform != "linux":  # the folders are Linux's; a worker runs nowhere else
        return
    import execution
    import folder_paths

    guard = PathGuard(_readable(folder_paths))
    _filter_listings(guard)
    _guard_threads(guard)
    _guard_input_names(guard, folder_paths)
    run = execution.PromptExecutor.execute

    @functools.wraps(run)
    def execute(
        executor: Any, prompt: Any, prompt_id: str, extra_data: Any = None, *args: Any, **more: Any
    ) -> Any:
        extra_data = extra_data or {}
        guard.readable = _readable(folder_paths, guard.readable)
        _guard_openers(guard)
        own = extra_data.get("comfy_worker_folders") or ()
        with guard.applied(frozenset(map(str, own))):
            return run(executor, prompt, prompt_id, extra_data, *args, **more)

    execution.PromptExecutor.execute = execute
    sys.addaudithook(guard.hear)


def _readable(folder_paths: Any, before: Readable | None = None) -> Readable:
    """The rule for the folders that ComfyUI has now; packs and models may have come."""
    job_roots = [
        folder_paths.get_input_directory(),
        folder_paths.get_output_directory(),
        folder_paths.get_temp_directory(),
    ]
    raw_dir = os.environ.get("COMFY_WORKER_RAW_DIR")
    runtime_dir = os.environ.get("COMFY_WORKER_RUNTIME_DIR")
    roots = [folder_paths.base_path, folder_paths.models_dir, folder_paths.get_user_directory()]
    roots += [
        str(folder)
        for folders, _ in folder_paths.folder_names_and_paths.values()
        for folder in folders
    ]
    roots += system_roots(dict(os.environ))
    # Of a cache of Hugging Face the model folders hold only links, to files in folders beside them.
    for name in ("COMFY_READABLE_DIRS", "COMFY_WORKER_HUB_CACHES"):
        roots += [root for root in os.environ.get(name, "").split(os.pathsep) if root]
    roots += _linked_packs(folder_paths)
    # Other workers keep pictures in /dev/shm.
    hidden = [SHARED_MEMORY, *(os.path.join(folder_paths.base_path, name) for name in PERSONAL)]
    return Readable(
        (*job_roots, *filter(None, [raw_dir])),
        (*roots, *filter(None, [runtime_dir])),
        tuple(hidden),
        created={} if before is None else before.created,
    )


def _linked_packs(folder_paths: Any) -> list[str]:
    """Where node packs lie that are linked into a folder of packs."""
    folders, _ = folder_paths.folder_names_and_paths.get("custom_nodes", ((), ()))
    links: list[str] = []
    for folder in filter(os.path.isdir, folders):
        links += [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
    return [os.path.realpath(link) for link in links]


def _filter_listings(guard: PathGuard) -> None:
    """Leave other jobs' folders out where a node lists a folder that holds those of all jobs."""
    listdir, scandir = os.listdir, os.scandir

    @functools.wraps(listdir)
    def filtered_listdir(path: Any = ".") -> list[Any]:
        if not _is_shared(guard, path):
            return listdir(path)
        with guard.lifted():
            names = listdir(path)
        return [name for name in names if not guard.readable.is_of_other_job(os.fsdecode(name))]

    @functools.wraps(scandir)
    def filtered_scandir(path: Any = ".") -> Any:
        if not _is_shared(guard, path):
            return scandir(path)
        with guard.lifted(), scandir(path) as entries:
            kept = [
                entry
                for entry in entries
                if not guard.readable.is_of_other_job(os.fsdecode(entry.name))
            ]
        return _Entries(kept)

    os.listdir, os.scandir = filtered_listdir, filtered_scandir


def _is_shared(guard: PathGuard, path: Any) -> bool:
    name = _text(path)
    if not guard.is_on or name is None:
        return False
    with guard.lifted():
        return guard.readable.is_job_root(name)


class _Entries:
    """What ``os.scandir`` gives, from a list."""

    def __init__(self, entries: list[Any]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> _Entries:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_args: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the rest."""
        self._entries = iter(())


def _guard_threads(guard: PathGuard) -> None:
    """Have a thread that a node starts keep to the rule that its starter keeps to."""
    start = threading.Thread.start

    @functools.wraps(start)
    def start_guarded(thread: threading.Thread) -> None:
        if guard.is_on:
            run = thread.run

            def run_guarded() -> None:
                guard.keep_on()
                run()

            thread.run = run_guarded  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = start_guarded  # type: ignore[assignment,method-assign]


def _guard_input_names(guard: PathGuard, folder_paths: Any) -> None:
    """Have the names of input files lead into ComfyUI's input, output and temp folders only."""
    resolve, exists = folder_paths.get_annotated_filepath, folder_paths.exists_annotated_filepath

    @functools.wraps(resolve)
    def get_annotated_filepath(name: str, default_dir: str | None = None) -> Any:
        path = resolve(name, default_dir)
        if not _is_input(guard, path, default_dir):
            raise guard.refusal(path)
        return path

    @functools.wraps(exists)
    def exists_annotated_filepath(name: Any) -> bool:
        return bool(exists(name)) and _is_input(guard, resolve(name), None)

    folder_paths.get_annotated_filepath = get_annotated_filepath
    folder_paths.exists_annotated_filepath = exists_annotated_filepath


def _is_input(guard: PathGuard, path: str, default_dir: str | None) -> bool:
    """Whether a path is where input files may lie; validation runs on a thread that knows of no job."""
    with guard.lifted():
        readable = guard.readable
    if not guard.is_on:
        readable = Readable(readable.job_roots, (), own=_AnyName())
    if default_dir is not None and not readable.is_foreign(path):
        home = os.path.realpath(default_dir)
        if os.path.realpath(path).startswith(home + os.sep):
            return True
    return readable.is_in_job_root(path)


class _AnyName(frozenset[str]):
    """The folders of every job."""

    def __contains__(self, _name: object) -> bool:
        return True


def _guard_openers(guard: PathGuard) -> None:
    """Wrap the functions of libraries that have been imported meanwhile."""
    for module_name, name in OPENERS:
        module = sys.modules.get(module_name)
        function = getattr(module, name, None)
        if function is not None and not hasattr(function, "comfy_worker_guarded"):
            setattr(module, name, _guarded(guard, function))


def _guarded(guard: PathGuard, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def opened(*args: Any, **options: Any) -> Any:
        guard.check(args[0] if args else options.get("file"))
        return function(*args, **options)

    opened.comfy_worker_guarded = True  # type: ignore[attr-defined]
    return opened
