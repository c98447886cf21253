"""Nodes for tests and benchmarks that make what no small graph of ComfyUI's own makes without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


class TestPhoto:
    """Pictures with soft shapes and fine grain, as a photograph has, and some values just outside of 0 to 1."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        sizes = {name: ("INT", {"default": 64, "max": 8192}) for name in ("width", "height")}
        counts = {"batch": ("INT", {"default": 1}), "channels": ("INT", {"default": 3}), "grain": ("INT", {})}
        return {"required": {**sizes, **counts}}

    def make(self, width: int, height: int, batch: int, channels: int, grain: int) -> tuple[torch.Tensor]:
        random = np.random.default_rng(grain)
        size = (height, width)
        picture = torch.full((batch, channels, *size), 0.5)
        for cells, strength in ((3, 0.2), (12, 0.1), (48, 0.03)):
            noise = torch.from_numpy(random.standard_normal((batch, channels, cells, cells), np.float32))
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

    def make(self) -> tuple[SimpleNamespace]:
        return (SimpleNamespace(vertices=torch.eye(3)[None], faces=torch.tensor([[[0, 1, 2]]])),)


NODE_CLASS_MAPPINGS = {"TestPhoto": TestPhoto, "TestMesh": TestMesh}
