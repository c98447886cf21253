"""One real ComfyUI on the CPU for all tests of this level, with placeholder models in its folders."""

from __future__ import annotations

import io
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_common import paths
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.supervisor import ComfyUIInstance, ComfyUISupervisor
from comfy_worker.deadline import Deadline
from comfy_worker.inputs.files import InputFiles
from comfy_worker.job import Job
from comfy_worker.planning.plan import Plan, PlanContext
from comfy_worker.planning.planner import build_plan
from comfy_worker.planning.templates import Templates, choose_template
from comfy_worker.request.schema import JobInput
from comfy_worker.settings import Settings
from comfy_worker.workflow.isolate import isolate_outputs
from comfy_worker.workflow.node_defs import NodeDefs

TEMPLATES = Templates([paths.REPO / "workflows"])
NODE_PACKS = Path(__file__).parent / "node_packs"


def launch_options(model_root: Path, *node_packs: Path, **changes: Any) -> LaunchOptions:
    """How the tests start ComfyUI."""
    return LaunchOptions(
        comfyui_dir=paths.comfyui_dir(os.environ),
        model_roots=(model_root,),
        custom_nodes=(paths.CUSTOM_NODES, *node_packs),
        **changes,
    )


class RealComfyUI:
    """A running ComfyUI, and what tests ask of it."""

    def __init__(self, supervisor: ComfyUISupervisor) -> None:
        self.supervisor = supervisor

    @property
    def running(self) -> ComfyUIInstance:
        return self.supervisor.ready(Deadline())

    @property
    def defs(self) -> NodeDefs:
        return self.running.defs

    @property
    def input_dir(self) -> Path:
        return self.running.process.input_dir

    def plan(self, **job_input: Any) -> Plan:
        """What a job's input becomes before it is queued."""
        request = JobInput.read(job_input)
        template = choose_template(request, TEMPLATES)
        files = InputFiles(self.input_dir / uuid.uuid4().hex, Settings().input_limits)
        return build_plan(PlanContext(Job("test", request), template, self.running, files))

    def texts(self, workflow: dict[str, Any]) -> dict[str, str]:
        """By output node, the text that a node shows."""
        result = self.running.execute(workflow, Deadline())
        return {
            node_id: output["text"][0]
            for node_id, output in result.outputs.items()
            if "text" in output
        }

    def images(self, workflow: dict[str, Any]) -> list[Image.Image]:
        """The pictures of a workflow, in the order of its output nodes."""
        queued = isolate_outputs(workflow, uuid.uuid4().hex, self.defs)
        own = re.findall(r"[0-9a-f]{32}", json.dumps(queued))
        result = self.running.execute(queued, Deadline(), extra_data={"comfy_worker_folders": own})
        folders = {"output": self.running.process.output_dir, "temp": self.running.process.temp_dir}
        found = []
        for output in result.outputs.values():
            # A loader that is like another one in the graph has an output without anything in it.
            for item in output.get("images", ()):
                path = folders[item["type"]] / item["subfolder"] / item["filename"]
                with Image.open(io.BytesIO(path.read_bytes())) as image:
                    image.load()
                    found.append(image)
                path.unlink()
        return found


@contextmanager
def real_comfyui(options: LaunchOptions) -> Iterator[RealComfyUI]:
    """A ComfyUI that ends with the block."""
    supervisor = ComfyUISupervisor(options)
    try:
        supervisor.ready(Deadline())
        yield RealComfyUI(supervisor)
    finally:
        supervisor.close()


@pytest.fixture(scope="package")
def comfyui(model_root: Path) -> Iterator[RealComfyUI]:
    """The real ComfyUI."""
    with real_comfyui(launch_options(model_root)) as started:
        yield started
