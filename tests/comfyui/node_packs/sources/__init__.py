"""Nodes for tests and benchmarks that make what no small graph of ComfyUI's own makes without a model."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest._util import MESH
from PIL import Image


class TestPhoto:
    """Pictures with soft shapes and fine grain, as a photograph has, and some values just outside of 0 to 1."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        sizes = {name: ("INT", {"default": 64, "max": 8192}) for name in ("width", "height")}
        counts = {
            "batch": ("INT", {"default": 1}),
            "channels": ("INT", {"default": 3}),
            "grain": ("INT", {}),
        }
        return {"required": {**sizes, **counts}}

    def make(
        self, width: int, height: int, batch: int, channels: int, grain: int
    ) -> tuple[torch.Tensor]:
        random = np.random.default_rng(grain)
        size = (height, width)
        picture = torch.full((batch, channels, *size), 0.5)
        for cells, strength in ((3, 0.2), (12, 0.1), (48, 0.03)):
            noise = torch.from_numpy(
                random.standard_normal((batch, channels, cells, cells), np.float32)
            )
            picture += strength * torch.nn.functional.interpolate(noise, size, mode="bicubic")
        fine = torch.from_numpy(random.standard_normal((batch, channels, *size), np.float32))
        return ((picture + 0.015 * fine).movedim(1, -1).clamp(-0.1, 1.1),)


class TestMesh:
    """One triangle."""

    RETURN_TYPES = ("MESH",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {}}

    def make(self) -> tuple[Any]:
        return (MESH(torch.eye(3)[None], torch.tensor([[[0, 1, 2]]])),)


class TestSaver:
    """Saves as nodes of some packs do: it makes no folders for its prefix, and may keep quiet of its files."""

    RETURN_TYPES = ()
    FUNCTION = "save"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        texts = {
            "output_path": ("STRING", {"default": ""}),
            "filename_prefix": ("STRING", {"default": "a"}),
        }
        return {
            "required": {"images": ("IMAGE",), **texts, "subfolder": (["right", "odd", "none"],)}
        }

    def save(
        self, images: torch.Tensor, output_path: str, filename_prefix: str, subfolder: str
    ) -> dict[str, Any]:
        output = Path(folder_paths.get_output_directory())
        folder = output / output_path
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{filename_prefix}_0001.png"
        Image.fromarray((images[0].numpy() * 255).clip(0, 255).astype("uint8")).save(path)
        written_to = str(path.parent.relative_to(output))
        reported = {"right": written_to, "odd": written_to.replace(".", "")}
        if subfolder == "none":
            return {"ui": {}}
        return {
            "ui": {
                "images": [
                    {"filename": path.name, "subfolder": reported[subfolder], "type": "output"}
                ]
            }
        }


class TestTagger:
    """Reports texts under keys of its own."""

    RETURN_TYPES = ()
    FUNCTION = "tag"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"image": ("IMAGE",)}}

    def tag(self, image: torch.Tensor) -> dict[str, Any]:
        return {"ui": {"tags": ["1girl, solo"], "string": "a whole caption", "count": [len(image)]}}


class TestGarbage:
    """Reports whether Python searches for garbage, and whether it leaves out what was imported."""

    RETURN_TYPES = ()
    FUNCTION = "look"
    OUTPUT_NODE = True
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {}}

    def look(self) -> dict[str, Any]:
        return {"ui": {"string": f"{gc.isenabled()} {gc.get_freeze_count() > 100_000}"}}


NODE_CLASS_MAPPINGS = {
    "TestPhoto": TestPhoto,
    "TestMesh": TestMesh,
    "TestSaver": TestSaver,
    "TestTagger": TestTagger,
    "TestGarbage": TestGarbage,
}
