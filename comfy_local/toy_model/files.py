"""Unpacks the toy model into ComfyUI's model folders.

The checkpoint has the shapes of SD 3, and most of its 262 MB are zeros. It is therefore stored
compressed, and the unpacked file has holes: it takes about 20 MB of disk. Standard library only.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import zlib
from pathlib import Path

from comfy_common.errors import SetupError
from comfy_common.placeholder_names import TOY_CHECKPOINT, TOY_LORA

__all__ = ["CHECKPOINT", "LORA", "PACKED", "SHA256", "install_toy", "is_current", "unpack"]

FOLDER = Path(__file__).parent
PACKED = FOLDER / "toy.safetensors.gz"
OUTLINE = FOLDER / "outline.safetensors"
SHA256 = (FOLDER / "toy.sha256").read_text(encoding="ascii").split()[0]
CHECKPOINT = Path("checkpoints") / TOY_CHECKPOINT
LORA = Path("loras") / TOY_LORA
BLOCK = 1 << 16
ZEROS = bytes(BLOCK)


def install_toy(root: Path) -> None:
    """Write the toy checkpoint and its LoRA into a folder of models, in about a second.

    Args:
        root: the folder that has `checkpoints` and `loras`; they are created if they are missing. A
            run that is killed leaves no file with a final name.

    Raises:
        SetupError: the packed file of this checkout is damaged.
        OSError: a file cannot be written.
    """
    unpack(PACKED, root / CHECKPOINT)
    lora = root / LORA
    lora.parent.mkdir(parents=True, exist_ok=True)
    unfinished = lora.with_name(lora.name + ".part")
    shutil.copyfile(OUTLINE, unfinished)
    unfinished.replace(lora)


def is_current(path: Path) -> bool:
    """Whether an unpacked checkpoint is not older than the packed file of this checkout.

    Args:
        path: the unpacked checkpoint.
    """
    return path.stat().st_mtime >= PACKED.stat().st_mtime


def unpack(packed: Path, path: Path) -> None:
    """Unpack the checkpoint and check its hash.

    Args:
        packed: the compressed file.
        path: the unpacked file; its folder is created too.

    Raises:
        SetupError: the compressed file is damaged.
        OSError: a file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    digest = hashlib.sha256()
    try:
        with gzip.open(packed) as source, unfinished.open("wb") as target:
            while block := source.read(BLOCK):
                digest.update(block)
                if block == ZEROS[: len(block)]:
                    target.seek(len(block), 1)
                else:
                    target.write(block)
            target.truncate()  # a hole at the end belongs to the file too
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        unfinished.unlink()
        raise SetupError(_damaged(packed)) from error
    if digest.hexdigest() != SHA256:
        unfinished.unlink()
        raise SetupError(_damaged(packed))
    unfinished.replace(path)


def _damaged(packed: Path) -> str:
    return f"{packed} is damaged: restore it with `git checkout {packed}`"
