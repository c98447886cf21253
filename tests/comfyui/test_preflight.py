"""What the check says of a workflow is what ComfyUI's own validation says: nothing missed, no false alarm.

The official templates are converted, the models and pictures that the check finds missing are put there as
stand-ins, and then each is accepted; and hundreds of copies that are broken on purpose are refused by both.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_worker.comfyui.node_packs import NodePacks
from comfy_worker.errors import ModelNotFound, NodeNotInstalled
from comfy_worker.workflow.check.preflight import Finding, check, refusal
from comfy_worker.workflow.convert.to_api import read_workflow
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.model_files import CheckContext, ModelFile
from comfy_worker.workflow.replaced_classes import with_present_classes
from tests import pictures, shipped
from tests.base_graphs import node
from tests.broken_graphs import ACCEPTED, REFUSED
from tests.comfyui.conftest import NODE_PACKS, RealComfyUI, launch_options, real_comfyui
from tests.official_templates import COMFYUI_0375

TOO_MANY_STEPS = "api_moonvalley_video_to_video_pose_control.json"

pytestmark = pytest.mark.comfyui


@dataclasses.dataclass
class Preflight:
    """A ComfyUI with all of its nodes, whose models and pictures come as the check asks for them."""

    comfyui: RealComfyUI
    model_root: Path
    workflows: dict[str, Workflow] = dataclasses.field(default_factory=dict)

    @property
    def version(self) -> str:
        return str(self.comfyui.running.client.system_stats()["system"]["comfyui_version"])

    def findings(self, workflow: Workflow, needs: tuple[ModelFile, ...] = ()) -> list[Finding]:
        sources = CheckContext(needs=needs, has_input=self._has_input)
        running = self.comfyui.running
        return list(check(workflow, running.defs, sources, running.validate).findings)

    def _has_input(self, name: str) -> bool:
        """As ComfyUI looks for it: the name may end in ``[output]`` or ``[temp]``."""
        process = self.comfyui.running.process
        folders = {"output": process.output_dir, "temp": process.temp_dir}
        annotated = re.fullmatch(r"(.*?) ?\[(input|output|temp)\]", name, re.DOTALL)
        folder = folders.get(annotated[2], process.input_dir) if annotated else process.input_dir
        return os.path.exists(folder / (annotated[1] if annotated else name))  # noqa: PTH110 - a name may hold anything

    def refusal(self, workflow: Workflow) -> dict[str, Any]:
        """What ComfyUI itself finds wrong; empty where it accepts the workflow whole."""
        url = f"{self.comfyui.running.process.base_url}/tests/validate"
        answer: dict[str, Any] = requests.post(url, json=workflow, timeout=60).json()
        return {word: found for word, found in answer.items() if found}

    def add(self, name: str, workflow: Workflow, needs: tuple[ModelFile, ...]) -> None:
        """Put a stand-in wherever the check says that a file is missing."""
        self.workflows[name] = workflow
        for finding in self.findings(workflow, needs):
            if finding["type"] == "missing_model":
                path = self.model_root / finding["folder"] / finding["given"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            elif finding["type"] == "missing_input_file":
                path = self.comfyui.input_dir / finding["given"]
                path.parent.mkdir(parents=True, exist_ok=True)
                pictures.photo().save(path, format="PNG")


@pytest.fixture(scope="module")
def preflight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preflight]:
    root = tmp_path_factory.mktemp("models")
    for folder in ("diffusion_models", "loras", "text_encoders"):
        (root / folder).mkdir()  # ComfyUI looks for new files in folders that it knows
    with real_comfyui(launch_options(root, NODE_PACKS, api_nodes=True)) as started:
        found = Preflight(started, root)
        for name in filter(shipped.runs_here, shipped.NAMES):
            needs = tuple(ModelFile(**need) for need in shipped.params(name).get("needs", ()))
            found.add(name, shipped.graph(name), needs)
        for name, file in COMFYUI_0375.editor_files():
            converted = read_workflow(file, started.defs)
            if all(node["class_type"] in started.defs for node in converted.workflow.values()):
                found.add(name, converted.workflow, converted.needs)
        started.running.refresh()
        yield found


def test_both_accept_every_template_with_its_files(preflight: Preflight) -> None:
    names = [name for name in preflight.workflows if name != TOO_MANY_STEPS]
    found = {name: preflight.findings(preflight.workflows[name]) for name in names}
    refused = {name: preflight.refusal(preflight.workflows[name]) for name in names}
    # A template of another release may name a choice that this ComfyUI lacks.
    is_own_release = preflight.version == "0.3.75"
    accepted = [name for name in names if not found[name] and not refused[name]]
    assert [name for name in names if bool(found[name]) != bool(refused[name])] == []
    assert len(accepted) == len(names) if is_own_release else len(accepted) > 0.9 * len(names)


def test_both_refuse_the_one_wrong_template(preflight: Preflight) -> None:
    workflow = preflight.workflows.get(TOO_MANY_STEPS)
    if workflow is None:
        pytest.skip("this ComfyUI lacks a class of the template")
    (finding,) = preflight.findings(workflow)
    assert (finding["type"], finding["input"], finding["given"]) == (
        "value_bigger_than_max",
        "steps",
        146344522,
    )
    (errors,) = preflight.refusal(workflow)["node_errors"].values()
    assert [error["type"] for error in errors["errors"]] == ["value_bigger_than_max"]


def test_both_refuse_exactly_the_broken_graphs(
    preflight: Preflight,
) -> None:
    counted: Counter[str] = Counter()
    wrong = []
    ways = [
        (error_type, breaker) for error_type, breakers in REFUSED.items() for breaker in breakers
    ]
    ways += [("accepted", breaker) for breaker in ACCEPTED]
    names = [name for name in preflight.workflows if name != TOO_MANY_STEPS]
    for number, (error_type, breaker) in enumerate(ways):
        for turn, name in enumerate(names[number % 3 :: 3]):
            broken = breaker(preflight.workflows[name], preflight.comfyui.defs, number + 7 * turn)
            if broken is None:
                continue
            before = copy.deepcopy(broken)
            found = preflight.findings(broken)
            assert broken == before
            refused = preflight.refusal(broken)
            counted[error_type] += 1
            found_types = {finding["type"] for finding in found}
            if (
                bool(found) != bool(refused)
                or (error_type in REFUSED and error_type not in found_types)
                or not all_named(refused, found)
            ):
                wrong.append((error_type, name, number, found, refused))
    assert wrong == []
    assert counted.keys() == {*REFUSED, "accepted"}
    assert all(count >= 10 for count in counted.values())
    assert counted.total() >= 300


def all_named(refused: dict[str, Any], found: list[Finding]) -> bool:
    """Whether each input that ComfyUI names is named by a finding too."""
    ours = {(finding["node_id"], finding["input"]) for finding in found}
    theirs = {
        (node_id, name)
        for node_id, entry in refused.get("node_errors", {}).items()
        for error in entry["errors"]
        if (name := error["extra_info"].get("input_name")) and "exception" not in error["type"]
    }
    return theirs <= ours


def test_missing_models_in_newer_lists_are_found(
    preflight: Preflight,
) -> None:
    workflow = copy.deepcopy(preflight.workflows["upscale"])
    (loader,) = (
        graph_node
        for graph_node in workflow.values()
        if graph_node["class_type"] == "UpscaleModelLoader"
    )
    loader["inputs"]["model_name"] = "absent.pth"
    assert bool(preflight.refusal(workflow)) == (preflight.version != "0.3.75")
    (finding,) = preflight.findings(workflow)
    assert (finding["type"], finding["folder"]) == ("missing_model", "upscale_models")
    assert finding["nearest"] or finding["would_do"].endswith("put it into models/upscale_models")


def test_comfyui_runs_a_classs_custom_validation(preflight: Preflight) -> None:
    inputs = {
        "prompt": "x",
        "aspect_ratio": "9:1",
        "prompt_upsampling": False,
        "seed": 0,
        "raw": False,
    }
    workflow = {
        "1": node("FluxProUltraImageNode", **inputs),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    (finding,) = preflight.findings(workflow)
    assert (finding["node_id"], finding["input"]) == ("1", "aspect_ratio")
    workflow["1"]["inputs"]["aspect_ratio"] = "16:9"
    assert preflight.findings(workflow) == []


def test_an_output_that_comfyui_would_drop_is_told(preflight: Preflight) -> None:
    workflow = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
        "3": node("ImageInvert", image=["4", 0]),
        "4": node("ImageInvert", image=["3", 0]),
        "5": node("SaveImage", images=["4", 0], filename_prefix="x"),
    }
    assert [finding["type"] for finding in preflight.findings(workflow)] == ["cycle"]
    workflow["4"]["inputs"] = {}
    assert preflight.refusal(workflow)["dropped"] == ["5"]
    assert [finding["type"] for finding in preflight.findings(workflow)] == [
        "required_input_missing"
    ]


def _encoders(clip: str) -> dict[str, Any]:
    return {
        "6": node("CLIPTextEncode", text="ancient rome", clip=[clip, 1]),
        "7": node("CLIPTextEncode", text="text, watermark", clip=[clip, 1]),
    }


def _sampled(checkpoint: str, latent: dict[str, Any], save: dict[str, Any]) -> Workflow:
    sampler = {
        "seed": 4,
        "steps": 20,
        "cfg": 8,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1,
    }
    links = {
        "model": ["4", 0],
        "positive": ["6", 0],
        "negative": ["7", 0],
        "latent_image": ["5", 0],
    }
    return {
        "3": node("KSampler", **sampler, **links),
        "4": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "5": latent,
        **_encoders("4"),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": save,
    }


def _flux(unet: str) -> Workflow:
    links = {"noise": ["25", 0], "guider": ["22", 0], "sampler": ["16", 0], "sigmas": ["17", 0]}
    return {
        "5": node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
        "6": node("CLIPTextEncode", text="grey cat", clip=["11", 0]),
        "8": node("VAEDecode", samples=["13", 0], vae=["10", 0]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
        "10": node("VAELoader", vae_name=f"ae-of-{unet}"),
        "11": node(
            "DualCLIPLoader",
            clip_name1=f"t5-of-{unet}",
            clip_name2=f"l-of-{unet}",
            type="flux",
        ),
        "12": node("UNETLoader", unet_name=unet, weight_dtype="fp8_e4m3fn"),
        "13": node("SamplerCustomAdvanced", **links, latent_image=["5", 0]),
        "16": node("KSamplerSelect", sampler_name="euler"),
        "17": node("BasicScheduler", scheduler="sgm_uniform", steps=4, denoise=1, model=["12", 0]),
        "22": node("BasicGuider", model=["12", 0], conditioning=["6", 0]),
        "25": node("RandomNoise", noise_seed=108),
    }


LATENT = {
    name: node(name, width=512, height=512, batch_size=1)
    for name in ("EmptyLatentImage", "EmptySD3LatentImage")
}
SAVE = node("SaveImage", filename_prefix="images/rome", images=["8", 0])
# Graphs of the shapes of worker-comfyui's published requests, written anew.
REQUESTS = {
    "flux1-dev": (_flux("example-dev.safetensors"), 4),
    "flux1-schnell": (_flux("example-schnell.safetensors"), 4),
    "sd3": (_sampled("example-sd3.safetensors", LATENT["EmptySD3LatentImage"], SAVE), 1),
    "sdxl-turbo": (_sampled("example-turbo.safetensors", LATENT["EmptyLatentImage"], SAVE), 1),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_worker_comfyuis_request_reports_and_validates_models(
    preflight: Preflight, name: str
) -> None:
    workflow, missing = REQUESTS[name]
    findings = preflight.findings(workflow)
    error = refusal(findings)
    assert isinstance(error, ModelNotFound)
    assert len(error.details) == missing
    assert {finding["type"] for finding in findings} == {"missing_model"}
    preflight.add(name, workflow, ())
    preflight.comfyui.running.refresh()
    assert preflight.findings(workflow) == []
    assert preflight.refusal(workflow) == {}


def test_its_webp_request_names_pack_and_model(preflight: Preflight) -> None:
    save = node("Image Save", images=["8", 0], extension="webp", quality=10)
    workflow = _sampled("example-webp.safetensors", LATENT["EmptyLatentImage"], save)
    workflow["11"] = node("PreviewImage", images=["8", 0])
    error = refusal(preflight.findings(workflow))
    assert isinstance(error, NodeNotInstalled)
    assert [finding["type"] for finding in error.details] == ["unknown_class", "missing_model"]
    del workflow["9"]
    assert isinstance(refusal(preflight.findings(workflow)), ModelNotFound)
    preflight.add("webp", workflow, ())
    preflight.comfyui.running.refresh()
    assert (preflight.findings(workflow), preflight.refusal(workflow)) == ([], {})


def test_removed_classes_are_replaced_like_comfyui_does(preflight: Preflight) -> None:
    running = preflight.comfyui.running
    if "T2IAdapterLoader" not in running.defs.replacements:
        pytest.skip("this ComfyUI replaces no classes")
    old = {
        "1": node("T2IAdapterLoader", t2i_adapter_name="absent.safetensors"),
        "2": node(
            "ControlNetApply",
            conditioning=["4", 0],
            control_net=["1", 0],
            image=["5", 0],
            strength=1.0,
        ),
        "3": node("SDV_img2vid_Conditioning"),
        "4": node("CLIPTextEncode", text="x", clip=["6", 1]),
        "5": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "6": node("CheckpointLoaderSimple", ckpt_name="absent.safetensors"),
        "7": node("PreviewAny", source=["2", 0]),
    }
    present = with_present_classes(old, running.defs)
    assert present["1"] == node("ControlNetLoader", control_net_name="absent.safetensors")
    assert present["3"]["class_type"] == "SVD_img2vid_Conditioning"
    assert {finding["type"] for finding in preflight.findings(present)} == {"missing_model"}
    titled = {node_id: {**entry, "_meta": {}} for node_id, entry in old.items()}
    refused = preflight.refusal(titled)["node_errors"]
    assert refused["1"]["class_type"] == "ControlNetLoader"


def test_links_that_no_class_declares_are_found(preflight: Preflight) -> None:
    links = {f"x{number}": ["2", 0] for number in range(1000)}
    workflow = {
        "1": node("PreviewAny", source="a", **links),
        "2": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
    }
    findings = preflight.findings(workflow)
    assert {finding["type"] for finding in findings} == {"undeclared_input", "more"}
    expected = "node 1 (PreviewAny): x0 is not an input of PreviewAny; remove it"
    assert str(refusal(findings)).partition(" (500")[0].startswith(expected)


def test_every_paid_class_is_known_by_name(preflight: Preflight) -> None:
    running = preflight.comfyui.running
    packs = NodePacks(launch_options(preflight.model_root).comfyui_dir, (), api_nodes=False)
    paid = [name for name, declared in running.defs.items() if declared.is_api]
    assert paid
    assert [name for name in paid if "paid" not in str(packs.explain(name))] == []
