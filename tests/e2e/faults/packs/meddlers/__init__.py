"""Nodes through which one job may meddle with another: they remember, look around, and see keys."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import folder_paths
import torch

runs: Counter[str] = Counter()


class Meddler:
    """What the nodes share: a text in, a text out, and ComfyUI may keep what they made."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    CATEGORY = "tests"
    HIDDEN: ClassVar[dict[str, str]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's own name
        """A text, and what is hidden."""
        return {"required": {"text": ("STRING", {})}, "hidden": cls.HIDDEN}


class MeddleSee(Meddler):
    """Tells the whole graph, which is none of its inputs."""

    HIDDEN: ClassVar = {"graph": "PROMPT"}

    def run(self, text: str, graph: Any) -> tuple[str]:
        return (json.dumps(graph),)


class MeddleRemember(Meddler):
    """Tells every text that this very object was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def run(self, text: str) -> tuple[str]:
        self.seen.append(text)
        return (" ".join(self.seen),)


class MeddlePay(Meddler):
    """Calls a paid service with the key that came with the prompt, which it shows wherever it can."""

    API_NODE = True
    HIDDEN: ClassVar = {"key": "API_KEY_COMFY_ORG"}

    def run(self, text: str, key: str | None = None) -> tuple[str]:
        print(f"the key is {key}", flush=True)  # noqa: T201
        if text == "fail":
            raise ValueError(f"401: {key} has no credits")
        return (f"{text} costs {len(key or '')}",)


class MeddleEnviron(Meddler):
    """Tells the environment."""

    def run(self, text: str) -> tuple[str]:
        return (json.dumps(dict(os.environ)),)


class MeddleStray(Meddler):
    """Writes where no job should, tells nobody, and fails."""

    def run(self, text: str) -> tuple[str]:
        for folder in ("input", "output", "temp"):
            (Path(folder_paths.get_directory_by_type(folder)) / "stray.txt").write_text(text)
        # A folder that ComfyUI itself creates when it lists the inputs of Load3D.
        (Path(folder_paths.get_input_directory()) / "3d" / "stray.txt").write_text(text)
        raise ValueError("nothing to tell")


class MeddleCount(Meddler):
    """Tells how often it ran for a text."""

    def run(self, text: str) -> tuple[str]:
        runs[text] += 1
        return (f"{text} {runs[text]}",)


class MeddleMemory(Meddler):
    """Finds no memory the first time that it runs for a text."""

    def run(self, text: str) -> tuple[str]:
        word = text.partition(" ")[0]
        runs[f"memory {word}"] += 1
        if runs[f"memory {word}"] == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return (text,)


class MeddleRefuse(Meddler):
    """Refuses every text, and says which."""

    @classmethod
    def VALIDATE_INPUTS(cls, text: str) -> str:  # noqa: N802 - ComfyUI's own name
        """Never good."""
        return f"not {text}"

    def run(self, text: str) -> tuple[str]:
        return (text,)


NODE_CLASS_MAPPINGS = {node_class.__name__: node_class for node_class in Meddler.__subclasses__()}
