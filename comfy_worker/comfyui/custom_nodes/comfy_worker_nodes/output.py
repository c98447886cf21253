"""Saves pictures as raw pixels, since encoding them would block the prompt thread.

The pixels are written into memory (``COMFY_WORKER_RAW_DIR``) while it has room. A link to them
takes the place of SaveImage's file, so file names are counted as SaveImage counts them. If memory
is full, the pixels are written into that file.
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
    """Replaces the nodes that save or preview pictures in the workflows that are queued.

    In newer ComfyUIs a graph may continue behind such a node, so the pictures are its output too.
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
                "folder_type": (["output", "temp"],),
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
        folder_type: str,
        ending: str = "_.png",
        comfy_worker_folder: str = "",
    ) -> dict[str, Any]:
        """Write the pixels of each picture and report them.

        Args:
            images: a tensor, (batch, height, width, 1 to 4 channels), 0 to 1. Grey pictures may
                lack the last dimension.
            filename_prefix: as SaveImage takes it.
            folder_type: ``output`` or ``temp``.
            ending: the end of a file name, after the counter.
            comfy_worker_folder: the job's folder, which is put before the prefix.
        """
        prefix = os.path.join(comfy_worker_folder, filename_prefix)  # noqa: PTH118
        height, width = images[0].shape[:2]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_directory_by_type(folder_type), width, height
        )
        reported = []
        for number, image in enumerate(images):
            scaled = 255.0 * image.cpu().numpy()
            # A VAE's array is ordered by channel, and numpy writes such an array forty times
            # slower.
            pixels = np.clip(scaled, 0, 255, out=scaled).astype(np.uint8, order="C")
            pixels = pixels.reshape(height, width, -1)
            if not 1 <= pixels.shape[2] <= 4:
                raise ValueError(f"a picture has 1 to 4 channels, not {pixels.shape[2]}")
            file = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}{ending}"
            write(pixels, Path(folder, file), Path(subfolder, f"{folder_type}_{file}"))
            item = {
                "filename": file,
                "subfolder": subfolder,
                "type": folder_type,
                "raw_shape": list(pixels.shape),
            }
            reported.append(item)
        return {"ui": {"images": reported}, "result": (images,)}


def write(pixels: npt.NDArray[np.uint8], path: Path, raw_name: Path) -> None:
    """Write pixels into memory and link ``path`` to them; if memory is full, write to ``path``."""
    raw_dir = os.environ.get("COMFY_WORKER_RAW_DIR")
    if raw_dir:
        raw = Path(raw_dir) / raw_name
        try:
            if shutil.disk_usage(raw_dir).free > pixels.nbytes:
                raw.parent.mkdir(parents=True, exist_ok=True)
                raw.write_bytes(pixels.data)
                path.symlink_to(raw)
                return
        except OSError:  # full nevertheless, or a system without links
            raw.unlink(missing_ok=True)
    path.write_bytes(pixels.data)  # numpy's `tofile` does not report that the disk is full
