"""Planning a job: a second try, and what it finds of the first."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from comfy_common import node_map
from comfy_common.node_map import NodeMap
from comfy_worker.errors import InvalidValue, ModelNotFound, NodeNotInstalled
from comfy_worker.inputs.files import InputFiles
from comfy_worker.job import Job
from comfy_worker.planning.plan import PlanContext
from comfy_worker.planning.planner import prepare
from comfy_worker.request.dialects import translate
from comfy_worker.request.schema import JobInput
from comfy_worker.settings import Settings
from comfy_worker.workflow.node_defs import NodeDefs
from tests.core_nodes import OBJECT_INFO, ksampler, node, txt2img


class LateComfyUI:
    """A ComfyUI whose list of LoRAs has a file only after it is read again.

    Args:
        late: the file; None: none arrives.
    """

    version = "0.33.0"

    def __init__(self, late: str | None) -> None:
        self.refreshes = 0
        self.defs = NodeDefs(self._info([]))
        self._late = late

    @staticmethod
    def _info(loras: list[str]) -> dict[str, Any]:
        info = copy.deepcopy(OBJECT_INFO)
        info["LoraLoader"]["input"]["required"]["lora_name"][0] = loras
        return info

    def refresh(self) -> None:
        self.refreshes += 1
        self.defs = NodeDefs(self._info([] if self._late is None else [self._late]))

    def model_path(self, folder: str, name: str) -> None:
        return None

    def explain(self, class_type: str) -> None:
        return None

    def searched(self, folder: str) -> list[str]:
        return [f"/models/{folder}"]

    def validate(self, workflow: Any) -> None:
        return None


def context(tmp_path: Path, comfyui: Any) -> PlanContext:
    job_input = {"workflow": txt2img(), "loras": [{"name": "late"}], "fps": 8}
    job = Job(
        "job", JobInput.read(job_input), client_words={"fps": "frame_rate"}, warnings=["first"]
    )
    return PlanContext(job, None, comfyui, InputFiles(tmp_path, Settings().input_limits))


def test_a_file_that_arrives_is_found_once(tmp_path: Path) -> None:
    comfyui = LateComfyUI("late.safetensors")
    plan = prepare(context(tmp_path, comfyui))
    assert comfyui.refreshes == 1
    loras = [node for node in plan.workflow.values() if node["class_type"] == "LoraLoader"]
    assert [node["inputs"]["lora_name"] for node in loras] == ["late.safetensors"]


@pytest.mark.parametrize("words", [("cfg", "guidance"), ("cfg_scale", "distilled_cfg_scale")])
def test_cfg_counts_where_only_cfg_has_an_input(tmp_path: Path, words: tuple[str, str]) -> None:
    own, twin = words
    translated = translate({"workflow": txt2img(), own: 7.5, twin: 3.5})
    job = Job("job", JobInput.read(translated.input), client_words=translated.client_words)
    files = InputFiles(tmp_path, Settings().input_limits)
    plan = prepare(PlanContext(job, None, LateComfyUI(None), files))
    assert plan.parameters["cfg"] == 7.5
    assert plan.warnings == [f"{twin} is ignored: this workflow has only cfg, and {own} sets that"]


def test_a_second_try_repeats_no_warning(tmp_path: Path) -> None:
    plan = prepare(context(tmp_path, LateComfyUI("late.safetensors")))
    assert plan.warnings[:2] == ["first", "frame_rate is ignored: this graph has no fps"]
    assert len(plan.warnings) == len(set(plan.warnings))


def test_a_file_that_stays_away_is_named(tmp_path: Path) -> None:
    comfyui = LateComfyUI(None)
    with pytest.raises(ModelNotFound, match="looked in /models/loras"):
        prepare(context(tmp_path, comfyui))
    assert comfyui.refreshes == 1


def test_a_missing_class_names_its_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "map.json"
    url = "https://github.com/o/p"
    made = NodeMap([url], {"Gone": [0]})
    file.write_text(json.dumps(made.as_json()), encoding="utf-8")
    monkeypatch.setattr(node_map, "NODE_MAP", file)
    workflow = {**txt2img(), "99": {"class_type": "Gone", "inputs": {}}}
    job = Job("job", JobInput.read({"workflow": workflow}))
    files = InputFiles(tmp_path, Settings().input_limits)
    planned = PlanContext(job, None, LateComfyUI(None), files)
    with pytest.raises(
        NodeNotInstalled, match=f"has no Gone; install the node pack {url}"
    ) as caught:
        prepare(planned)
    assert caught.value.details[0]["pack"] == url


def test_a_check_names_unsent_files_and_more(tmp_path: Path) -> None:
    unsent = node("LoadImage", image="b.png")
    graph = txt2img(
        latent=node("VAEEncode", pixels=["image", 0], vae=["loader", 2]),
        image=node("LoadImage", image="a.png"),
        unsent=unsent,
        show=node("PreviewImage", images=["unsent", 0]),
        sampler=ksampler(steps=0),
    )
    plan = prepare(checking(tmp_path, {"workflow": graph, "validate_only": True}))
    found = [(finding["node_id"], finding["type"]) for finding in plan.findings]
    assert found == [
        ("image", "missing_input_file"),
        ("unsent", "missing_input_file"),
        ("sampler", "value_smaller_than_min"),
    ]
    with pytest.raises(InvalidValue, match="a file that was not sent"):
        prepare(checking(tmp_path, {"workflow": graph}))


def checking(tmp_path: Path, job_input: dict[str, Any]) -> PlanContext:
    job = Job("job", JobInput.read(job_input))
    return PlanContext(job, None, LateComfyUI(None), InputFiles(tmp_path, Settings().input_limits))
