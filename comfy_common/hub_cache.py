"""Finds model files in caches of Hugging Face: those that RunPod fills, and the user's own.

A cache is a folder `hub` with a folder `models--ORG--NAME` for each repository. Its `snapshots`
hold the files of a revision, as links to `blobs`; `refs/main` names the newest revision. RunPod
puts such a cache on the network volume before a worker starts, and does not bill the download.
Standard library only. Every function reads the disk, which may be a network volume that hangs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from comfy_common.sources import HUB, Source, SourceError, read_source

__all__ = [
    "MODEL_FOLDERS",
    "Snapshot",
    "find_source",
    "find_url",
    "links",
    "model_roots",
    "snapshots",
]

REPOSITORY = "models--"
# Repositories have ComfyUI's model folders below this folder, or without it.
SPLIT_FILES = "split_files"
# The names of ComfyUI's model folders.
MODEL_FOLDERS = {
    "audio_encoders",
    "checkpoints",
    "clip",
    "clip_vision",
    "controlnet",
    "diffusion_models",
    "embeddings",
    "latent_upscale_models",
    "loras",
    "model_patches",
    "gligen",
    "hypernetworks",
    "photomaker",
    "style_models",
    "text_encoders",
    "unet",
    "upscale_models",
    "vae",
    "vae_approx",
}
# Repositories for the library diffusers have folders with such names and other files in them.
DIFFUSERS_FILE = "model_index.json"


@dataclass(frozen=True)
class Snapshot:
    """One revision of a repository in a cache.

    Args:
        repo: "owner/name".
        revision: the commit.
        path: the folder with its files.
        refs: the branches and tags that mean this revision, such as "main".
    """

    repo: str
    revision: str
    path: Path
    refs: tuple[str, ...] = ()

    @property
    def root(self) -> Path | None:
        """The folder that is laid out as ComfyUI's `models`; None if there is none."""
        if _is_file(self.path / DIFFUSERS_FILE):
            return None
        for folder in (self.path / SPLIT_FILES, self.path):
            if any(_is_folder(folder / name) for name in MODEL_FOLDERS):
                return folder
        return None

    def means(self, revision: str) -> bool:
        """Whether a branch, a tag or a commit means this revision."""
        return revision in self.refs or self.revision == revision


def snapshots(hubs: Iterable[Path]) -> list[Snapshot]:
    """List the newest revision of each repository of some caches.

    Args:
        hubs: the caches' folders `hub`, in order of search; they may be missing.

    Returns:
        The snapshots of the first cache first. A repository may have several, of which only one
        means "main".
    """
    found: list[Snapshot] = []
    for hub in hubs:
        for folder in _subfolders(hub):
            name = folder.name.removeprefix(REPOSITORY)
            owner, separator, repo = name.partition("--")
            if folder.name.startswith(REPOSITORY) and separator:
                with suppress(OSError):  # a repository that cannot be read is not there
                    found += _snapshots_of(f"{owner}/{repo}", folder)
    return found


def _snapshots_of(repo: str, folder: Path) -> list[Snapshot]:
    by_revision: dict[str, list[str]] = {}
    refs = folder / "refs"
    for file in sorted(refs.rglob("*")) if refs.is_dir() else ():
        if file.is_file():
            revision = file.read_text(encoding="utf-8", errors="replace").strip()
            by_revision.setdefault(revision, []).append(str(file.relative_to(refs)))
    revisions = _subfolders(folder / "snapshots")
    if revisions and not any("main" in names for names in by_revision.values()):
        # A cache without refs, or with refs to something that is gone: the newest folder counts.
        newest = max(revisions, key=lambda path: path.stat().st_mtime)
        by_revision.setdefault(newest.name, []).append("main")
    found = [
        Snapshot(repo, path.name, path, tuple(by_revision.get(path.name, ()))) for path in revisions
    ]
    return sorted(found, key=lambda snapshot: "main" not in snapshot.refs)


def model_roots(cached: Iterable[Snapshot]) -> list[Path]:
    """The folders of snapshots that are laid out as ComfyUI's `models`, of the newest revisions.

    Args:
        cached: as :func:`snapshots` returns them.
    """
    roots = [snapshot.root for snapshot in cached if snapshot.means("main")]
    return list(dict.fromkeys(root for root in roots if root is not None))


def find_source(source: Source, cached: Iterable[Snapshot]) -> Path | None:
    """Find the cached file of a source; None if it is not of the hub, or not cached.

    Args:
        source: where the file comes from.
        cached: as :func:`snapshots` returns them.
    """
    if not source.repo or ".." in source.file.split("/"):
        return None
    for snapshot in cached:
        # RunPod may write a repository's name in lower case; the hub ignores case too.
        if snapshot.repo.lower() != source.repo.lower() or not snapshot.means(source.revision):
            continue
        file = snapshot.path / source.file
        if _is_file(file):
            return file
    return None


def find_url(url: str, cached: Sequence[Snapshot], endpoint: str = HUB) -> Path | None:
    """Find the cached file of a URL; None if there is none.

    Args:
        url: of a file of the hub, or any other.
        cached: as :func:`snapshots` returns them.
        endpoint: the URL of the hub.
    """
    if not cached or not url:
        return None
    try:
        source = read_source(url, endpoint)
    except SourceError:
        return None
    return find_source(source, cached)


def links(
    needs: Iterable[tuple[str, str]], cached: Sequence[Snapshot], endpoint: str = HUB
) -> dict[str, Path]:
    """Find cached files that are needed under another name than they have in their repository.

    Args:
        needs: model files as `folder/file`, each with its URL.
        cached: as :func:`snapshots` returns them.
        endpoint: the URL of the hub.

    Returns:
        The cached files by `folder/file`. Files that have this name in a model root are left out.
    """
    roots = model_roots(cached)
    found: dict[str, Path] = {}
    for name, url in needs:
        if name in found or ".." in Path(name).parts:
            continue
        file = find_url(url, cached, endpoint)
        if file is not None and not any(_is_file(root / name) for root in roots):
            found[name] = file
    return found


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if _is_folder(entry))
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir()
    return False


def _is_file(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file()
    return False
