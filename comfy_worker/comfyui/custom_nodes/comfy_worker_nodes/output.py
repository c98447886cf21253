"""Hands pictures over raw: what SaveImage does, but for the encoding, which would keep the prompt thread waiting.

A picture's pixels go into memory (``COMFY_WORKER_RAW_DIR``) while that has room, and a link to them stands where
SaveImage would put its file, so that names are counted as SaveImage counts them; else they go into that file.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import numpy.typing as npt


class ComfyWorkerOutput:
    """Stands in for the nodes that save or preview pictures in the graphs that the worker queues.

    Newer ComfyUIs let a graph go on behind such a node, so the pictures are its output too.
    """

    RETURN_TYPES = ("IMAGE",)
    OUTPUT_NODE = True
    FUNCTION = "hand_over"
    CATEGORY = "comfy_worker"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802, D102
        return {
            "required": {
                "images": ("IMAGE",),
                "filename_prefix": ("STRING", {"default": "ComfyUI"}),
                "kind": (["output", "temp"],),
            },
            "optional": {
                "ending": ("STRING", {"default": "_.png"}),
                "comfy_worker_folder": ("STRING", {"default": ""}),
            },
        }

    def hand_over(
        self,
        images: Any,
        filename_prefix: str,
        kind: str,
        ending: str = "_.png",
        comfy_worker_folder: str = "",
    ) -> dict[str, Any]:
        """Write the pixels of each picture and report them.

        Args:
            images: a tensor, (batch, height, width, 1 to 4 channels), 0 to 1; grey ones may lack the
                last dimension.
            filename_prefix: as SaveImage takes it.
            kind: whose folder: ``output`` or ``temp``.
            ending: of a file name, after the counter.
            comfy_worker_folder: goes before the prefix.
        """
        prefix = os.path.join(comfy_worker_folder, filename_prefix)  # noqa: PTH118
        height, width = images[0].shape[:2]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_directory_by_type(kind), width, height
        )
        reported = []
        for number, image in enumerate(images):
            scaled = 255.0 * image.cpu().numpy()
            # A VAE decodes channel by channel; numpy writes such an array forty times slower.
            pixels = np.clip(scaled, 0, 255, out=scaled).astype(np.uint8, order="C")
            pixels = pixels.reshape(height, width, -1)
            if not 1 <= pixels.shape[2] <= 4:
                raise ValueError(f"a picture has 1 to 4 channels, not {pixels.shape[2]}")
            file = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}{ending}"
            write(pixels, Path(folder, file), Path(subfolder, f"{kind}_{file}"))
            item = {
                "filename": file,
                "subfolder": subfolder,
                "type": kind,
                "raw_shape": list(pixels.shape),
            }
            reported.append(item)
        return {"ui": {"images": reported}, "result": (images,)}


def write(pixels: npt.NDArray[np.uint8], path: Path, raw_name: Path) -> None:
    """Write pixels into memory with a link to them at ``path``; where that has no room, to ``path``."""
    raw_dir = os.environ.get("COMFY_WORKER_RAW_DIR")
    if raw_dir:
        raw = Path(raw_dir) / raw_name
        try:
            if shutil.disk_usage(raw_dir).free > pixels.nbytes:
                raw.parent.mkdir(parents=True, exist_ok=True)
                raw.write_bytes(pixels.data)
                path.symlink_to(raw)
                return
        except OSError:  # full all the same, or a system without links
            raw.unlink(missing_ok=True)
    path.write_bytes(pixels.data)  # tofile does not say that the disk is full
