"""Plans of the templates on recorded declarations of node classes, with no ComfyUI running."""

from __future__ import annotations

import base64
import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_worker.inputs.files import InputFiles
from comfy_worker.job import Job
from comfy_worker.planning.plan import Plan, PlanContext
from comfy_worker.planning.planner import build_plan
from comfy_worker.planning.templates import Templates, choose_template
from comfy_worker.request.schema import JobInput
from comfy_worker.settings import Settings
from comfy_worker.workflow.node_defs import NodeDefs
from tests import clips, pictures, shipped
from tests.newer_classes import object_info

__all__ = ["LORA", "RecordedComfyUI", "plan_of", "with_inline_files"]

TEMPLATES = Templates([shipped.WORKFLOWS])
LORA = "added.safetensors"
# No template needs a newer ComfyUI.
NEWEST = "0.41.0"
SOURCES = {
    ".png": "data:image/png;base64," + pictures.encoded(pictures.photo()),
    ".mp4": "data:video/mp4;base64," + base64.b64encode(clips.video()).decode(),
}


class RecordedComfyUI:
    """A ComfyUI with the recorded node classes and all models of the templates.

    Args:
        version: its version.
    """

    def __init__(self, version: str = NEWEST) -> None:
        self.version = version
        self.defs = recorded_defs()

    def refresh(self) -> None:
        """Nothing new arrives."""

    def model_path(self, folder: str, name: str) -> Path | None:
        return None

    def explain(self, class_type: str) -> None:
        return None

    def searched(self, folder: str) -> list[str]:
        return []

    def validate(self, workflow: Any) -> None:
        return None


@functools.cache
def recorded_defs() -> NodeDefs:
    """The declarations, with each model of a template among the choices of its loader."""
    info = object_info()
    for class_type, name, file in [*model_inputs(), ("LoraLoader", "lora_name", LORA)]:
        entry = info[class_type]["input"]["required"][name]
        choices = entry[1]["options"] if entry[0] == "COMBO" else entry[0]
        if file not in choices:
            choices.append(file)
    only_model = info["LoraLoaderModelOnly"]["input"]["required"]["lora_name"]
    only_model[0].append(LORA)
    return NodeDefs(info)


def model_inputs() -> Iterator[tuple[str, str, str]]:
    """Yield the class, the input and the file of each model that a template names."""
    for template in shipped.NAMES:
        for node in shipped.graph(template).values():
            for name, value in node["inputs"].items():
                if isinstance(value, str) and value.endswith(".safetensors"):
                    yield node["class_type"], name, value


def with_inline_files(value: Any) -> Any:
    """Put a small file in place of each URL of a request."""
    if isinstance(value, dict):
        return {key: with_inline_files(entry) for key, entry in value.items()}
    if isinstance(value, str) and value.startswith("https://example.com/"):
        return SOURCES[Path(value).suffix]
    return value


@contextmanager
def plan_of(job_input: dict[str, Any], version: str = NEWEST) -> Iterator[Plan]:
    """Plan a request for a template; its files exist until the block ends."""
    request = JobInput.read(with_inline_files(job_input))
    template = choose_template(request, TEMPLATES)
    with tempfile.TemporaryDirectory() as folder:
        files = InputFiles(Path(folder), Settings().input_limits)
        context = PlanContext(Job("test", request), template, RecordedComfyUI(version), files)
        yield build_plan(context)
