"""Output files -> what a result carries of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from PIL import Image

from comfy_worker.job import Media
from comfy_worker.outputs.collect import OutputFile, sniff

__all__ = ["encode"]


def encode(files: Sequence[OutputFile], seed: int | None) -> dict[str, list[Media]]:
    """Read each file as base64.

    Args:
        files: as :func:`find_files` gives them.
        seed: the job's.

    Returns:
        By kind (``images``, ``videos``, ``audio``, ``files``), in the order given.
    """
    encoded: dict[str, list[Media]] = {}
    for file in files:
        data = file.path.read_bytes()
        kind, mime_type = sniff(data[:64])
        width = height = None
        if kind == "images" and mime_type != "image/svg+xml":
            with Image.open(file.path) as image:
                width, height = image.size
        media = Media(
            filename=file.path.name,
            type="base64",
            data=base64.b64encode(data).decode("ascii"),
            mime_type=mime_type,
            node_id=file.node_id,
            bytes=len(data),
            width=width,
            height=height,
            seed=seed,
        )
        encoded.setdefault(kind, []).append(media)
    return encoded
