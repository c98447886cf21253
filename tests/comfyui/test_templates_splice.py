"""Every shipped template, as it is, filled and spliced, is accepted by ComfyUI's own validation.

The models that they need are stand-ins, with the names and the headers of the real ones.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from comfy_worker.comfyui.supervisor import ComfyUIInstance
from comfy_worker.deadline import Deadline
from comfy_worker.errors import ComfyUITooOld, ModelMismatch
from comfy_worker.models.detect import FAMILIES
from comfy_worker.request.schema import JobInput
from comfy_worker.runner import JobRunner
from comfy_worker.settings import Settings
from comfy_worker.workflow.edit.describe import describe
from comfy_worker.workflow.graph import Workflow, ancestors
from comfy_worker.workflow.roles.find import find_roles
from tests import clips, pictures, shipped, standins
from tests.comfyui.conftest import NODE_PACKS, TEMPLATES, RealComfyUI, launch_options, real_comfyui
from tests.frontend import NEWER_PACKS
from tests.template_plans import with_inline_files

pytestmark = pytest.mark.comfyui

# What each model file of the templates is; its stand-in has that header. Other files need no more than a name.
MODELS = {
    "v1-5-pruned-emaonly-fp16.safetensors": "sd15",
    "512-inpainting-ema.safetensors": "sd2-inpaint",
    "sd_xl_base_1.0.safetensors": "sdxl",
    "sd_xl_refiner_1.0.safetensors": "sdxl-refiner",
    "sd_xl_turbo_1.0_fp16.safetensors": "sdxl",
    "sd3.5_large_fp8_scaled.safetensors": "sd35-large",
    "flux1-dev.safetensors": "flux-dev",
    "flux1-schnell.safetensors": "flux-schnell",
    "flux1-fill-dev.safetensors": "flux-fill",
    "flux1-dev-kontext_fp8_scaled.safetensors": "flux-kontext",
    "qwen_image_fp8_e4m3fn.safetensors": "qwen-image",
    "qwen_image_edit_2509_fp8_e4m3fn.safetensors": "qwen-image-edit",
    "z_image_turbo_bf16.safetensors": "z-image",
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors": "wan22-t2v-14b",
    "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors": "wan22-t2v-14b",
    "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors": "wan22-i2v-14b",
    "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors": "wan22-i2v-14b",
}
CANNY_SD15 = "control_v11p_sd15_canny_fp16.safetensors"
MODEL_FOLDERS = ("checkpoints", "diffusion_models")
VIDEO = "data:video/mp4;base64," + base64.b64encode(clips.video()).decode()

Graph = dict[str, Any]


def families(name: str) -> list[str]:
    """The families of the models that sample in a template, by name."""
    files = [
        need["file"] for need in shipped.params(name)["needs"] if need["folder"] in MODEL_FOLDERS
    ]
    known = [standins.FAMILIES[MODELS[file]] for file in files if file in MODELS]
    return list(dict.fromkeys(known))


NAMES = [name for name in shipped.NAMES if shipped.runs_here(name)]
# ComfyUI 0.3.75 has the classes of these, but cannot load their models.
KNOWN_CLASSES = ("flux2-klein-edit", "z-image-turbo-controlnet")
TOO_NEW = [name for name in shipped.NAMES if name not in NAMES]
IS_CURRENT = shipped.comfyui_version() >= (0, 33, 0)
SPLICED = [(name, family) for name in NAMES for family in families(name)]
CONTROLLED = [(name, family) for name, family in SPLICED if family in standins.CONTROLNET_FAMILIES]


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealComfyUI]:
    """A ComfyUI that finds a stand-in for every model of the templates, two LoRAs and a ControlNet a family."""
    root = tmp_path_factory.mktemp("models")
    for need in (need for name in shipped.NAMES for need in shipped.params(name)["needs"]):
        path = root / need["folder"] / need["file"]
        path.parent.mkdir(exist_ok=True)
        if need["file"] in MODELS:
            standins.write_standin(path, MODELS[need["file"]])
        elif need["folder"] == "controlnet":
            assert need["file"] == CANNY_SD15
            standins.write_controlnet_standin(path, "sd15")
        else:
            path.touch()
    (root / "loras").mkdir(exist_ok=True)
    for family in standins.LORA_FAMILIES:
        for letter in "ab":
            standins.write_lora_standin(root / "loras" / f"{family}-{letter}.safetensors", family)
    standins.write_sparse(root / "loras" / "strange.safetensors", {"x.lora_A.weight": (4, 5)})
    for family in standins.CONTROLNET_FAMILIES:
        if family != "sd15":
            standins.write_controlnet_standin(
                root / "controlnet" / f"{family}-canny.safetensors", family
            )
    node_packs = (NODE_PACKS, NEWER_PACKS) if IS_CURRENT else (NODE_PACKS,)
    with real_comfyui(launch_options(root, *node_packs)) as started:
        pictures.photo().save(started.input_dir / "example.png")
        (started.input_dir / "example.mp4").write_bytes(clips.video())
        yield started


def findings(comfyui: RealComfyUI, workflow: Graph) -> dict[str, Any]:
    """What ComfyUI finds wrong; empty where it accepts the workflow."""
    url = f"{comfyui.running.process.base_url}/tests/validate"
    answer: dict[str, Any] = requests.post(url, json=workflow, timeout=30).json()
    return {word: found for word, found in answer.items() if found}


def required(name: str) -> dict[str, Any]:
    """The pictures that a template cannot do without."""
    photo = pictures.encoded(pictures.photo())
    sent = {"image": photo, "mask": pictures.encoded(pictures.mask())}
    keys = shipped.params(name).get("required", ())
    files = {"LoadImage": photo, "LoadVideo": VIDEO}
    further = {
        key: files[class_type]
        for key, class_type in shipped.file_parameters(name).items()
        if key in keys and key not in sent
    }
    own = {key: sent[key] for key in keys if key in sent}
    return {"workflow": name, **own, "parameters": further}


def live(comfyui: RealComfyUI, workflow: Workflow) -> list[dict[str, Any]]:
    """The nodes that an output needs; ComfyUI looks at no others."""
    outputs = [
        node_id for node_id, node in workflow.items() if comfyui.defs[node["class_type"]].is_output
    ]
    return [workflow[above] for node_id in outputs for above in ancestors(workflow, node_id)]


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_accepted_as_it_is(comfyui: RealComfyUI, name: str) -> None:
    assert findings(comfyui, shipped.graph(name)) == {}


@pytest.mark.parametrize("name", TOO_NEW)
def test_newer_graphs_fit_the_declared_classes(comfyui: RealComfyUI, name: str) -> None:
    """ComfyUI 0.33 accepts all but a model type that it lacks; an older one lacks most classes."""
    found = findings(comfyui, shipped.graph(name))
    if not IS_CURRENT:
        assert ("error" in found) == (name not in KNOWN_CLASSES)
        return
    node_errors = found.get("node_errors", {}).values()
    details = [error["details"] for node in node_errors for error in node["errors"]]
    lacks_type = name.startswith("flux3")
    assert [text[:26] for text in details] == (["type: 'flux3' not in (list"] if lacks_type else [])


@pytest.mark.parametrize("name", NAMES)
def test_the_example_has_no_findings(comfyui: RealComfyUI, name: str) -> None:
    runner = JobRunner(Settings(), comfyui.supervisor, TEMPLATES)
    example = with_inline_files(shipped.params(name)["example"])
    job = {"id": "1", "input": {**example, "validate_only": True}}
    answer = runner.run(job, threading.Event())
    assert answer["findings"] == []
    assert answer["warnings"] == []


@pytest.mark.parametrize("name", TOO_NEW)
def test_a_newer_template_is_refused(comfyui: RealComfyUI, name: str) -> None:
    """One that names an older template runs that one."""
    older = shipped.params(name).get("older")
    if older:
        assert comfyui.plan(**required(name)).name == older
        return
    with pytest.raises(ComfyUITooOld, match=rf"'{name}' needs ComfyUI [0-9.]+ or newer"):
        comfyui.plan(**required(name))


def test_a_template_whose_model_is_missing_is_refused(comfyui: RealComfyUI) -> None:
    workflow = shipped.graph("txt2img")
    workflow["1"]["inputs"]["ckpt_name"] = "absent.safetensors"
    found = findings(comfyui, workflow)
    assert [error["type"] for error in found["node_errors"]["1"]["errors"]] == ["value_not_in_list"]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_filled_and_accepted(comfyui: RealComfyUI, name: str) -> None:
    template = TEMPLATES.load(name)
    declared = template.params.parameters
    roles = find_roles(template.workflow, comfyui.defs)
    several = [*roles.ambiguous.values(), *roles.unassigned.values()]
    unclear = {str(candidate.node_input) for candidates in several for candidate in candidates}
    assert unclear <= {f"{entry.node}.{entry.input}" for entry in declared.values()}
    schemas = describe(template.workflow, roles, comfyui.defs, declared)
    # A switch decides which inputs the others are; see test_template_parameters.
    left_out = {"image", "mask", "turbo", "split", *shipped.file_parameters(name)}
    values = {key: another(schema) for key, schema in schemas.items() if key not in left_out}
    if "length" in values:  # a clip has 4n + 1, 8n + 1 or 17n + 5 frames
        values["length"] = schemas["length"]["default"] + 8 * 17
    own = {key: value for key, value in values.items() if key in JobInput.model_fields}
    further = {key: value for key, value in values.items() if key not in own}
    request = required(name)
    plan = comfyui.plan(**{**request, **own, "parameters": {**request["parameters"], **further}})
    assert findings(comfyui, plan.workflow) == {}
    for key, value in values.items():
        for node_input in schemas[key]["places"]:
            node_id, _, input_name = node_input.partition(".")
            assert plan.workflow[node_id]["inputs"][input_name] == value, key
    assert plan.parameters.items() >= values.items()


def another(schema: dict[str, Any]) -> Any:
    """A value that a parameter takes, and not the one that it has, where there are two."""
    now = schema["default"]
    if "enum" in schema:
        return next((choice for choice in reversed(schema["enum"]) if choice != now), now)
    if schema["type"] == "string":
        return f"{now} at dusk"
    if schema["type"] == "number":
        return (now + schema["minimum" if now > schema["minimum"] else "maximum"]) / 2
    return now + schema.get("multipleOf", 4)


@pytest.mark.parametrize(("name", "family"), SPLICED)
def test_two_loras_are_spliced_and_accepted(comfyui: RealComfyUI, name: str, family: str) -> None:
    files = [f"{family}-{letter}.safetensors" for letter in "ab"]
    loras = [
        {"name": files[0], "strength": 0.8},
        {"name": f"{family}-b", "strength": 0.5, "strength_clip": 0},
    ]
    plan = comfyui.plan(**required(name), loras=loras)
    assert findings(comfyui, plan.workflow) == {}
    loaded = [
        node["inputs"]["lora_name"]
        for node in live(comfyui, plan.workflow)
        if "Lora" in node["class_type"]
    ]
    own = {need["file"] for need in shipped.params(name)["needs"]}
    assert set(loaded) - own == set(files)
    # A LoRA that names none of two experts goes to both, with a warning.
    has_experts = name.startswith("wan22")
    assert len(plan.warnings) == (2 if has_experts else 0)
    assert all("went to both models" in warning for warning in plan.warnings)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(("name", "family"), CONTROLLED)
def test_a_controlnet_is_spliced_and_accepted(
    comfyui: RealComfyUI, name: str, family: str, lora: bool
) -> None:
    file = CANNY_SD15 if family == "sd15" else f"{family}-canny.safetensors"
    job_input: dict[str, Any] = {
        "controlnets": [{"type": "canny", "image": pictures.encoded(pictures.photo())}]
    }
    if lora:
        job_input["prompt"] = f"a cat <lora:{family}-a:0.7>"
    plan = comfyui.plan(**required(name), **job_input)
    assert findings(comfyui, plan.workflow) == {}
    nodes = live(comfyui, plan.workflow)
    loaders = [node for node in nodes if node["class_type"] == "ControlNetLoader"]
    assert {node["inputs"]["control_net_name"] for node in loaders} == {file}
    applied = [
        node
        for node in nodes
        if node["_meta"]["title"] == f"ControlNet {file}" and node not in loaders
    ]
    assert {"vae" in node["inputs"] for node in applied} == {FAMILIES[family].controlnet_vae}
    assert any(node["class_type"] == "Canny" for node in nodes)
    assert any("Lora" in node["class_type"] for node in nodes) is lora
    assert plan.warnings == []


def test_a_lora_of_another_family_is_never_queued(
    comfyui: RealComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(*_: object) -> None:
        raise AssertionError("it was queued")

    monkeypatch.setattr(ComfyUIInstance, "execute", execute)
    runner = JobRunner(Settings(), comfyui.supervisor, TEMPLATES)
    job = {"id": "1", "input": {"workflow": "txt2img", "loras": [{"name": "sdxl-a"}]}}
    answer = runner.run(job, threading.Event())
    assert answer["error"].startswith("MODEL_MISMATCH: sdxl-a.safetensors is made for SDXL")
    assert answer["details"] == [{"file": "sdxl-a.safetensors", "family": "sdxl", "base": "SD 1.5"}]


def test_a_controlnet_of_another_family_is_refused(comfyui: RealComfyUI) -> None:
    controlnet = {"model": "flux-canny", "image": pictures.encoded(pictures.photo())}
    with pytest.raises(ModelMismatch, match=r"flux-canny\.safetensors is made for Flux"):
        comfyui.plan(workflow="txt2img", controlnets=[controlnet])


@pytest.mark.parametrize("name", ["txt2img", "flux-dev", "wan22-t2v"])
def test_a_lora_of_unknown_family_warns(comfyui: RealComfyUI, name: str) -> None:
    plan = comfyui.plan(workflow=name, loras=[{"name": "strange"}])
    assert findings(comfyui, plan.workflow) == {}
    assert plan.warnings
    assert all("strange.safetensors" in warning for warning in plan.warnings)


def test_extra_data_reaches_only_this_prompts_nodes(comfyui: RealComfyUI) -> None:
    graph = {"1": {"class_type": "ShowKey", "inputs": {}}}
    executed = comfyui.running.execute(
        graph, Deadline(), extra_data={"api_key_comfy_org": "comfyui-key"}
    )
    assert executed.outputs["1"]["text"] == ["comfyui-key"]
    graph = {"2": {"class_type": "ShowKey", "inputs": {}}}
    assert comfyui.running.execute(graph, Deadline()).outputs["2"]["text"] == ["None"]
