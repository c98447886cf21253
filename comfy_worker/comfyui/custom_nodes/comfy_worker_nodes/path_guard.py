"""Keeps nodes from reading other files than their job's, whatever path a graph contains.

The worker refuses graphs with such paths before it queues them. This is a second check, for a graph
that passes the first. An audit hook of Python sees every ``open`` and every listing of a folder on
the prompt thread and on threads that it starts. Libraries that open files outside of Python
(FFmpeg, OpenCV) are wrapped instead, and so are ComfyUI's functions that resolve the name of an
input file.

The rule itself is in :mod:`.readable`. It lists what is allowed, since nobody can list every secret
of a machine. It allows folders with all their contents (packs, models, caches, the system), since
nobody can list every file that a pack needs. Writing is allowed, except into other jobs' folders.

The hook also sees the files that ComfyUI's routes write on the main thread. They are no job's, so
they are noted in :mod:`.other_clients`, as are those of prompts that the worker has not queued.
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
from contextlib import contextmanager, nullcontext
from typing import Any

from .other_clients import OtherClients
from .readable import Readable, system_roots

__all__ = ["guard_paths", "other_clients"]

# Folders of ComfyUI's checkout with somebody's files, if ComfyUI was used there before.
PERSONAL = ("input", "output", "temp", "user")
SHARED_MEMORY = "/dev/shm"  # noqa: S108
# Functions of libraries that open a file outside of Python. The first argument names the file.
OPENERS = (
    ("av", "open"),
    ("cv2", "imread"),
    ("cv2", "imreadmulti"),
    ("soundfile", "read"),
    ("torchaudio", "load"),
    ("torchaudio", "info"),
)
# What FFmpeg reads as an address and not as a path.
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)[,:]")
REMOTE = {"http", "https", "rtmp", "rtmps", "rtsp", "rtp", "srt", "tcp", "tls", "udp", "data"}
MAIN_THREAD = threading.main_thread()  # ComfyUI's routes run on it
LISTINGS = frozenset({"os.listdir", "os.scandir"})
MOVES = frozenset({"os.rename", "os.link", "os.symlink"})
WATCHED = (
    LISTINGS | MOVES | {"open", "os.mkdir", "os.remove", "subprocess.Popen", "sqlite3.connect"}
)

other_clients = OtherClients()


class PathGuard:
    """Applies the rule to threads."""

    def __init__(self, readable: Readable, others: OtherClients) -> None:
        self.readable = readable
        self._others = others
        self._local = threading.local()

    @property
    def is_on(self) -> bool:
        """Whether the calling thread works for a prompt."""
        return getattr(self._local, "is_on", False)

    @property
    def is_jobs(self) -> bool:
        """Whether the calling thread works for a job of the worker's."""
        return getattr(self._local, "is_jobs", False)

    @contextmanager
    def applied(self, own: frozenset[str]) -> Iterator[None]:
        """Apply the rule to this thread within the block, for a job with these folders.

        Without folders the prompt is another client's.
        """
        others = nullcontext() if own else self._others.prompt(self.readable.job_roots)
        with others:
            self.readable.own, self._local.is_on = own, True
            self._local.is_jobs = bool(own)
            try:
                yield
            finally:
                self.readable.own, self._local.is_on = frozenset(), False
                self._local.is_jobs = False

    def keep_on(self, *, is_jobs: bool) -> None:
        """Apply the rule to this thread until it ends."""
        self._local.is_on, self._local.is_jobs = True, is_jobs

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Lift the rule within the block, for this module's own work."""
        before, self._local.is_on = self.is_on, False
        try:
            yield
        finally:
            self._local.is_on = before

    def on_audit_event(self, event: str, args: tuple[Any, ...]) -> None:
        """Refuse the operation that an audit event announces, if it is not allowed."""
        if event not in WATCHED:
            return
        if self.is_on:
            with self.lifted():
                refused = self._refused_by(event, args)
            if refused is not None:
                raise self.refusal(refused)
        written = _written_by(event, args)
        if written is not None:
            self._note_written(written)

    def check(self, path: Any) -> None:
        """Refuse to read a path, or an address of FFmpeg's, if that is not allowed."""
        name = _text(path)
        if not self.is_on or name is None:
            return
        address = ADDRESS.match(name)
        if address is not None and address[1].lower() in REMOTE:
            return
        if address is not None and not address[1].lower().startswith("file"):
            raise self.refusal(name)  # such as `concat:` and `subfile:`, which contain file names
        if address is not None:
            name = name[address.end() :]
        with self.lifted():
            is_allowed = self.readable.allows(name)
        if not is_allowed:
            raise self.refusal(name)

    def refusal(self, path: str) -> PermissionError:
        """Return the error for a path."""
        own = ", ".join(sorted(self.readable.own)) or "none was named"
        name = os.path.basename(path)
        return PermissionError(
            f"'{name}' is not for this job: nodes may read the job's own folders ({own}), models, "
            "and the files of ComfyUI and its packs; send the file with the job"
        )

    def _note_written(self, path: str) -> None:
        """Note whose file a path is from now on."""
        if threading.current_thread() is MAIN_THREAD:
            self._others.note(path, self.readable.job_roots)
        elif self.is_jobs:
            with self.lifted():
                self._others.forget(path)

    def _refused_by(self, event: str, args: tuple[Any, ...]) -> str | None:
        """Return the path that an event must not use; None if the event is allowed."""
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
            # A node that kept a reference to the original function gets an unfiltered listing.
            return any(self.readable.is_of_other_job(entry) for entry in os.listdir(name))
        return not self.readable.allows(name)

    def _refused_move(self, event: str, name: str, args: tuple[Any, ...]) -> str | None:
        target = _text(args[1]) if len(args) > 1 else None
        if target is None:
            return name
        if event == "os.symlink":  # a link's target is relative to the folder of the link
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
        # For a missing file, the node gets the usual error.
        if self.readable.allows(name) or not os.path.lexists(name):
            return None
        return name


def _written_by(event: str, args: tuple[Any, ...]) -> str | None:
    """Return the path that an event may create or change; None if it does neither."""
    if event == "open":
        flags = args[2] if len(args) > 2 and isinstance(args[2], int) else os.O_RDONLY
        return _text(args[0]) if flags & (os.O_ACCMODE | os.O_CREAT) else None
    if event in MOVES:
        return _text(args[1]) if len(args) > 1 else None
    return _text(args[0]) if event == "os.mkdir" and args else None


def _text(path: Any) -> str | None:
    """Return a path as text; None if it does not name a file, such as a number."""
    if isinstance(path, (str, bytes, os.PathLike)):
        try:
            return os.fsdecode(path)
        except (TypeError, ValueError):
            return None
    return None


def _files_of(args: tuple[Any, ...]) -> Iterator[str]:
    """Yield the existing files that the arguments of a new program name."""
    words = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    for word in words[1:]:
        text = _text(word)
        path = text.removeprefix("file:") if text is not None else ""
        if os.sep in path and os.path.lexists(path):
            yield path


def guard_paths() -> None:
    """Change ComfyUI, for every prompt from now on."""
    if sys.platform != "linux":  # the rule names Linux folders, and workers run on Linux only
        return
    import execution
    import folder_paths

    guard = PathGuard(_readable(folder_paths), other_clients)
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
    sys.addaudithook(guard.on_audit_event)


def _readable(folder_paths: Any, before: Readable | None = None) -> Readable:
    """Return the rule for ComfyUI's current folders; packs may have added some."""
    job_roots = [
        folder_paths.get_input_directory(),
        folder_paths.get_output_directory(),
        folder_paths.get_temp_directory(),
    ]
    raw_dir = os.environ.get("COMFY_WORKER_RAW_DIR")
    runtime_dir = os.environ.get("COMFY_WORKER_RUNTIME_DIR")
    roots = [folder_paths.base_path, folder_paths.models_dir, folder_paths.get_user_directory()]
    for folders, _extensions in folder_paths.folder_names_and_paths.values():
        roots += map(str, folders)
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
    """Return the targets of node packs that are linked into a folder of packs."""
    folders, _extensions = folder_paths.folder_names_and_paths.get("custom_nodes", ((), ()))
    links: list[str] = []
    for folder in filter(os.path.isdir, folders):
        links += [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
    return [os.path.realpath(link) for link in links]


def _filter_listings(guard: PathGuard) -> None:
    """Leave other jobs' folders out of the listing of a folder with the folders of all jobs."""
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
    """A list in the form that ``os.scandir`` returns."""

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
        """Drop the remaining entries."""
        self._entries = iter(())


def _guard_threads(guard: PathGuard) -> None:
    """Apply the rule to threads that a guarded thread starts."""
    start = threading.Thread.start

    @functools.wraps(start)
    def start_guarded(thread: threading.Thread) -> None:
        if guard.is_on:
            run, is_jobs = thread.run, guard.is_jobs

            def run_guarded() -> None:
                guard.keep_on(is_jobs=is_jobs)
                run()

            thread.run = run_guarded  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = start_guarded  # type: ignore[assignment,method-assign]


def _guard_input_names(guard: PathGuard, folder_paths: Any) -> None:
    """Let the names of input files lead only into ComfyUI's input, output and temp folders."""
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
    """Return whether an input file may have a path."""
    with guard.lifted():
        readable = guard.readable
    if not guard.is_on:  # validation runs on a thread that does not know the job
        readable = Readable(readable.job_roots, (), own=_AnyName())
    if default_dir is not None and not readable.is_foreign(path):
        home = os.path.realpath(default_dir)
        if os.path.realpath(path).startswith(home + os.sep):
            return True
    return readable.is_in_job_root(path)


class _AnyName(frozenset[str]):
    """The names of all jobs' folders."""

    def __contains__(self, _name: object) -> bool:
        return True


def _guard_openers(guard: PathGuard) -> None:
    """Wrap the functions of libraries that were imported since the last prompt."""
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
