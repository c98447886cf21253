"""Decides which files of this machine a node may read while a job's prompt runs.

A node may read the files of ComfyUI and its packs, models, caches of libraries, what the system
shares with every program, and the files of its own job. A job's files are in folders with a name
that cannot be guessed, below ComfyUI's input, output and temp folders. Nothing else is readable:
other jobs' folders, the worker's own files, other users' pictures, secrets under ``/etc``.

This module imports nothing of ComfyUI, so it can be tested without ComfyUI.
"""

# Paths come as ComfyUI's and its nodes' own texts, and are compared as such.
# ruff: noqa: PTH100, PTH111, PTH118, PTH206
from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Readable", "system_roots"]

JOB_NAME = re.compile(r"[0-9a-f]{32}")
# What the system shares with every program. Not all of /etc and /run: hosts keep secrets there.
SHARED = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/opt",
    "/nix",
    "/sys",
    "/dev",
    "/proc",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/OpenCL",
    "/etc/gai.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/nvidia",
    "/etc/os-release",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/ssl",
    "/etc/timezone",
    "/etc/vulkan",
    "/var/cache/fontconfig",
    "/var/lib/ca-certificates",
)
# The environment variables that name the folders of libraries' downloads and compiled code.
CACHES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "HF_MODULES_CACHE",
    "TRANSFORMERS_CACHE",
    "DIFFUSERS_CACHE",
    "TORCH_HOME",
    "TORCH_EXTENSIONS_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "TRITON_HOME",
    "CUDA_CACHE_PATH",
    "NUMBA_CACHE_DIR",
    "MPLCONFIGDIR",
    "XDG_CACHE_HOME",
    "U2NET_HOME",
    "YOLO_CONFIG_DIR",
    "NLTK_DATA",
    "TFHUB_CACHE_DIR",
    "AUX_ANNOTATOR_CKPTS_PATH",
)
# Such folders in the home folder.
HOME_CACHES = (
    ".cache",
    ".triton",
    ".nv",
    ".torch",
    ".u2net",
    ".insightface",
    ".keras",
    ".fonts",
    ".paddleocr",
    "nltk_data",
    ".local/share",
    ".local/lib",
    ".config/matplotlib",
    ".config/Ultralytics",
    ".config/fontconfig",
)
KERNEL = ("/proc", "/dev", "/sys")
# Of another process, only the files that psutil reads. Its environment may hold keys.
PROCESS_FILE = re.compile(r"/proc/(\d+)/(.*)")
OF_ANY_PROCESS = {
    "stat",
    "statm",
    "status",
    "cmdline",
    "comm",
    "io",
    "limits",
    "cgroup",
    "smaps",
    "smaps_rollup",
}
MAX_CREATED = 20_000


def system_roots(environ: dict[str, str]) -> list[str]:
    """Return the folders that Python, libraries and the system read from."""
    home = os.path.expanduser("~")
    roots = [*SHARED, sys.prefix, sys.base_prefix, sys.exec_prefix, *filter(None, sys.path)]
    roots += filter(None, map(environ.get, CACHES))
    roots += [os.path.join(home, name) for name in HOME_CACHES]
    # These would allow everything.
    return [root for root in roots if os.path.realpath(root) not in ("/", home)]


def _with_real(roots: Iterable[str]) -> tuple[str, ...]:
    """Return the folders as they are written and with their links resolved."""
    absolute = [os.path.abspath(root) for root in roots]
    return tuple(dict.fromkeys([*absolute, *map(_real, absolute)]))


def _real(path: str) -> str:
    """Return a path with its links resolved; the absolute path if they cannot be read."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)


def _is_in(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root + os.sep) for root in roots)


@dataclass
class Readable:
    """The rule for one ComfyUI.

    Attributes:
        job_roots: the folders that contain a folder for each job.
        roots: the folders that every job may read.
        hidden: folders within ``roots`` that no job may read.
        own: the names of the running job's folders.
        created: what nodes created elsewhere since ComfyUI started.
    """

    job_roots: tuple[str, ...]
    roots: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    own: frozenset[str] = frozenset()
    created: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.job_roots = _with_real(self.job_roots)
        self.roots = _with_real(self.roots)
        self.hidden = tuple(
            path for path in _with_real(self.hidden) if not _is_in(path, self.job_roots)
        )

    def is_foreign(self, path: str) -> bool:
        """Return whether a path is in the folder of another job."""
        return any(self._is_foreign_job(form) for form in self._forms(path))

    def is_job_root(self, path: str) -> bool:
        """Return whether a path is one of the folders that contain the folders of all jobs."""
        return any(form in self.job_roots for form in self._forms(path))

    def is_in_job_root(self, path: str) -> bool:
        """Return whether a path is in a job root, but not in the folder of another job."""
        if self.is_foreign(path):
            return False
        return any(_is_in(form, self.job_roots) for form in self._forms(path))

    def allows(self, path: str) -> bool:
        """Return whether a node may read a file or list a folder."""
        forms = self._forms(path)
        if any(self._is_foreign_job(form) for form in forms):
            return False
        return any(self._is_open(form) for form in forms)

    def note_created(self, path: str) -> None:
        """Remember a file or folder that a node is about to create, so that it can be read back."""
        if not os.path.lexists(path):
            self.created[os.path.abspath(path)] = None
            while len(self.created) > MAX_CREATED:
                del self.created[next(iter(self.created))]

    def is_of_other_job(self, name: str) -> bool:
        """Return whether an entry of a job root is the folder of another job."""
        return bool(JOB_NAME.fullmatch(name)) and name not in self.own

    def _forms(self, path: str) -> list[str]:
        """Return a path as it is written, and with its links resolved.

        The written path counts because operators link models and packs from elsewhere. It does not
        count if it contains ``..``, or leads through links of the kernel (``/proc/self/root``).
        """
        written, real = os.path.abspath(path), _real(path)
        if ".." in path.split(os.sep) or _is_in(written, KERNEL):
            return [real]
        return list(dict.fromkeys([written, real]))

    def _is_foreign_job(self, path: str) -> bool:
        for root in self.job_roots:
            if path.startswith(root + os.sep):
                name = path[len(root) + 1 :].split(os.sep, 1)[0]
                if self.is_of_other_job(name):
                    return True
        return False

    def _is_open(self, path: str) -> bool:
        if _is_in(path, self.job_roots) or self._was_created(path):
            return True
        if _is_in(path, self.hidden) or _is_of_other_process(path):
            return False
        return _is_in(path, self.roots)

    def _was_created(self, path: str) -> bool:
        while path not in self.created:
            path, name = os.path.split(path)
            if not name:
                return False
        return True


def _is_of_other_process(path: str) -> bool:
    match = PROCESS_FILE.match(path)
    if match is None or match[1] == str(os.getpid()):
        return False
    return match[2] not in OF_ANY_PROCESS
