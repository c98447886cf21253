"""Makes caches of Hugging Face as its library and RunPod write them: snapshots of links to blobs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["REVISION", "add_repository"]

REVISION = "1a2b3c4d" * 5


def add_repository(
    hub: Path, repo: str, files: Mapping[str, bytes | Path], *, revision: str = REVISION
) -> Path:
    """Add one revision of a repository, and let `main` mean it.

    Args:
        hub: the folder `hub` of the cache.
        repo: "owner/name".
        files: by their path in the repository, their content or a file to copy.
        revision: the commit.

    Returns:
        The folder of the snapshot.
    """
    folder = hub / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / revision
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(name.encode()).hexdigest()
        if isinstance(content, Path):
            shutil.copy(content, blob)
        else:
            blob.write_bytes(content)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(Path(name).parts) + 1)
        link.symlink_to(f"{up}blobs/{blob.name}")
    return snapshot
