"""Nodes that do what a bad node pack does, and a door for a proxy between the worker and ComfyUI.

Every node takes a picture and hands it on, so that it can stand between any two others, and never comes from the
cache.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import comfy.model_management
import comfy.utils
import torch
from comfy.cli_args import args
from server import PromptServer

Picture = torch.Tensor


def move_behind_proxy(folder: Path) -> None:
    """Have ComfyUI listen on another port than it was told, and write both down for the proxy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        inside = probe.getsockname()[1]
    ports = {"outside": args.port, "inside": inside, "pid": os.getpid()}
    args.port = inside
    part = folder / f"{os.getpid()}.part"
    part.write_text(json.dumps(ports))
    part.rename(part.with_suffix(".ports"))


if folder := os.environ.get("TEST_PROXY_DIR"):
    move_behind_proxy(Path(folder))


class Fault:
    """What the nodes share."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "tests"
    INPUTS: ClassVar[dict[str, Any]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's own name
        """A picture, and what the node is to do."""
        return {"required": {"image": ("IMAGE",), **cls.INPUTS}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:  # noqa: N802 - ComfyUI's own name
        """Never the same."""
        return float("nan")


class FaultSleep(Fault):
    """Sleeps; where it does not heed, an interrupt is not noticed."""

    INPUTS: ClassVar = {
        "seconds": ("FLOAT", {"max": 3600.0}),
        "heed": ("BOOLEAN", {"default": True}),
    }

    def run(self, image: Picture, seconds: float, heed: bool) -> tuple[Picture]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if heed:
                comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.02)
        return (image,)


class FaultWait(Fault):
    """Waits until it is interrupted, and shows signs of life."""

    def run(self, image: Picture) -> tuple[Picture]:
        while True:
            # Raises once the prompt is interrupted. Newer ComfyUIs pass on only what is new of a bar.
            comfy.utils.ProgressBar(100).update(1)
            time.sleep(0.2)


class FaultRaise(Fault):
    """Raises an exception of this name, of Python or of torch, with this message."""

    INPUTS: ClassVar = {"exception": ("STRING", {}), "message": ("STRING", {"default": ""})}

    def run(self, image: Picture, exception: str, message: str) -> tuple[Picture]:
        error_class = getattr(torch, exception, None) or __builtins__[exception]
        raise error_class(message)


class FaultExit(Fault):
    """Writes its last words and ends ComfyUI without a word to anybody."""

    INPUTS: ClassVar = {"status": ("INT", {"max": 255}), "last_words": ("STRING", {"default": ""})}

    def run(self, image: Picture, status: int, last_words: str) -> tuple[Picture]:
        print(last_words, flush=True)  # noqa: T201
        os._exit(status)


class FaultSegfault(Fault):
    """Reads address 0."""

    def run(self, image: Picture) -> tuple[Picture]:
        ctypes.string_at(0)
        return (image,)


class FaultFork(Fault):
    """Leaves a process behind, in a session of its own, that ignores SIGTERM and prints who it is."""

    def run(self, image: Picture) -> tuple[Picture]:
        code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
        child = subprocess.Popen(
            [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        print(f"forked {child.pid}", flush=True)  # noqa: T201
        return (image,)


class FaultPrint(Fault):
    """Prints a text, logs it, and writes it to the other stream."""

    INPUTS: ClassVar = {"text": ("STRING", {})}

    def run(self, image: Picture, text: str) -> tuple[Picture]:
        print(text, flush=True)  # noqa: T201
        print(text, file=sys.stderr, flush=True)  # noqa: T201
        logging.warning("%s", text)
        return (image,)


class FaultWedge(Fault):
    """Has ComfyUI take up no further prompt, although its prompt thread lives."""

    def run(self, image: Picture) -> tuple[Picture]:
        PromptServer.instance.prompt_queue.get = lambda timeout: time.sleep(3600)
        return (image,)


NODE_CLASS_MAPPINGS = {node_class.__name__: node_class for node_class in Fault.__subclasses__()}
