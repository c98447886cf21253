"""How long one 1024x1024 picture takes from the job to its base64, beside what a common worker does.

Both run the same graph on the same ComfyUI, in turns: this worker's whole walk of a job, and a graph that ends in
SaveImage with ``/prompt``, the websocket, ``/history``, ``/view`` and base64. The picture itself is made once and
cached, so that only its way out is measured. Run it as ``python -m benchmarks.output_encoding``.
"""

from __future__ import annotations

import argparse
import base64
import copy
import json
import os
import shutil
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import requests
import websocket

from comfy_common import paths
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.process import ComfyUIProcess
from comfy_worker.comfyui.supervisor import ComfyUISupervisor
from comfy_worker.deadline import Deadline
from comfy_worker.planning.templates import Templates
from comfy_worker.runner import JobRunner
from comfy_worker.settings import Settings

GRAPH: dict[str, Any] = {
    "source": {
        "class_type": "TestPhoto",
        "inputs": {"width": 1024, "height": 1024, "batch": 1, "channels": 3, "grain": 1},
    },
    "save": {
        "class_type": "SaveImage",
        "inputs": {"images": ["source", 0], "filename_prefix": "ComfyUI"},
    },
}
LIMITS = {"png": 0.2, "jpeg": 0.15}


class CommonWorker:
    """The way most workers go."""

    def __init__(self, process: ComfyUIProcess) -> None:
        self._url = process.base_url
        self._session = requests.Session()
        self._client_id = uuid.uuid4().hex
        self._socket = websocket.create_connection(
            f"ws{self._url[4:]}/ws?clientId={self._client_id}", timeout=60
        )

    def run(self) -> str:
        """One picture as base64."""
        graph = copy.deepcopy(GRAPH)
        graph["save"]["inputs"]["filename_prefix"] = (
            f"{uuid.uuid4().hex}/ComfyUI"  # else it would be cached
        )
        body = {"prompt": graph, "client_id": self._client_id}
        prompt_id = self._session.post(f"{self._url}/prompt", json=body).json()["prompt_id"]
        while True:
            message = self._socket.recv()
            if isinstance(message, str):
                event = json.loads(message)
                if event["type"] == "executing" and event["data"]["node"] is None:
                    break
        history = self._session.get(f"{self._url}/history/{prompt_id}").json()
        item = history[prompt_id]["outputs"]["save"]["images"][0]
        return base64.b64encode(
            self._session.get(f"{self._url}/view", params=item).content
        ).decode()

    def close(self) -> None:
        """Close the connections."""
        self._socket.close()
        self._session.close()


def measure(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def main(rounds: int) -> int:
    node_packs = paths.REPO / "tests" / "comfyui" / "node_packs"
    comfyui = ComfyUISupervisor(
        LaunchOptions(paths.comfyui_dir(os.environ), custom_nodes=(paths.CUSTOM_NODES, node_packs))
    )
    runner = JobRunner(Settings(), comfyui, Templates([]))

    def job(image_format: str) -> dict[str, Any]:
        job_input = {"workflow": GRAPH, "output": {"format": image_format}}
        answer = runner.run({"id": "benchmark", "input": job_input}, threading.Event())
        if "error" in answer:
            raise SystemExit(answer["error"])
        return answer

    try:
        process = comfyui.ready(Deadline()).process
        common = CommonWorker(process)
        ways: dict[str, Callable[[], object]] = {
            "SaveImage, /history, /view": common.run,
            **{
                image_format: lambda image_format=image_format: job(image_format)
                for image_format in (*LIMITS, "webp")
            },  # type: ignore[misc]
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 2):
            for name, work in ways.items():
                taken = measure(work)
                if turn >= 2:  # the first two warm up
                    times[name].append(taken)
            for folder in process.output_dir.iterdir():
                shutil.rmtree(folder)
        common.close()
    finally:
        comfyui.close()
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    reference = next(iter(medians.values()))
    for name, median in medians.items():
        limit = f", at most {LIMITS[name]}" if name in LIMITS else ""
        print(f"{name:27} {median:6.1f} ms  {median / reference:.3f} of it{limit}")
    return 0 if all(medians[name] <= limit * reference for name, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25, help="measured turns of each way")
    sys.exit(main(parser.parse_args().rounds))
