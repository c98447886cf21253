"""Graphs that people really send and that once were read wrong."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.workflow.edit.controlnet import (
    ControlNetRules,
    ControlNetSpec,
    splice_controlnets,
)
from comfy_worker.workflow.edit.controlnet_types import ControlNetFile, choose_model
from comfy_worker.workflow.edit.fill import fill
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.parse import MAX_INPUTS, parse
from comfy_worker.workflow.roles.find import find_roles
from tests.base_graphs import small_defs
from tests.core_nodes import (
    DEFS,
    OBJECT_INFO,
    found,
    found_in,
    ksampler,
    node,
    second_stage,
    txt2img,
)


def declared(outputs: list[str], output_node: bool = False, **inputs: list[Any]) -> dict[str, Any]:
    """A node class as ``/object_info`` declares it."""
    return {"input": {"required": inputs}, "output": outputs, "output_node": output_node}


def defs_with(**classes: dict[str, Any]) -> NodeDefs:
    return NodeDefs({**OBJECT_INFO, **small_defs(loras=["a.safetensors"])._object_info, **classes})


def test_a_title_leaves_the_other_stages_parameter() -> None:
    graph = txt2img(
        refiner=node("CheckpointLoaderSimple", ckpt_name="sub/sdxl.safetensors"),
        positive=node("CLIPTextEncode", "Positive", clip=["loader", 1], text="a lighthouse"),
        refined=node("CLIPTextEncode", clip=["refiner", 1], text="a lighthouse, sharp"),
        sampler=ksampler() | {"_meta": {"title": "Steps"}},
        second=second_stage(model=["refiner", 0], positive=["refined", 0]),
        decode=node("VAEDecode", samples=["second", 0], vae=["refiner", 2]),
    )
    assert found_in(graph, "prompt") == ["positive.text", "refined.text"]
    assert found_in(graph, "steps") == ["sampler.steps", "second.steps"]


def test_second_stage_steps_stay_in_proportion() -> None:
    graph = txt2img(
        second=second_stage(), decode=node("VAEDecode", samples=["second", 0], vae=["loader", 2])
    )
    result = fill(graph, find_roles(graph, DEFS), DEFS, {"steps": 30})
    assert (result["sampler"]["inputs"]["steps"], result["second"]["inputs"]["steps"]) == (30, 15)
    shortest = fill(graph, find_roles(graph, DEFS), DEFS, {"steps": 1})
    assert shortest["second"]["inputs"]["steps"] == 1


def test_the_start_image_goes_before_a_control_map() -> None:
    graph = txt2img(
        map=node("LoadImage", image="map.png"),
        net=node("ControlNetLoader", control_net_name="net.safetensors"),
        apply=node(
            "ControlNetApplyAdvanced",
            positive=["positive", 0],
            negative=["negative", 0],
            control_net=["net", 0],
            image=["map", 0],
            strength=1.0,
            start_percent=0.0,
            end_percent=1.0,
        ),
        start=node("LoadImage", image="start.png"),
        latent=node("VAEEncode", pixels=["start", 0], vae=["loader", 2]),
        sampler=ksampler(positive=["apply", 0], negative=["apply", 1]),
    )
    roles = find_roles(graph, DEFS)
    assert found(roles, "image") == ["start.image"]
    assert [str(candidate.node_input) for candidate in roles.unassigned["image"]] == ["map.image"]


CONTEXT = declared(
    ["RGTHREE_CONTEXT", "MODEL", "CONDITIONING"],
    base_ctx=["RGTHREE_CONTEXT"],
    model=["MODEL"],
    positive=["CONDITIONING"],
    clip=["CLIP"],
)


def test_a_lora_reaches_nodes_behind_contexts() -> None:
    defs = defs_with(Context=CONTEXT)
    graph = txt2img(
        first=node("Context", model=["loader", 0], clip=["loader", 1], positive=["positive", 0]),
        second=node("Context", base_ctx=["first", 0]),
        sampler=ksampler(model=["second", 1], positive=["second", 2]),
    )
    result = splice_loras(graph, find_roles(graph, defs), defs, [LoraSpec("a")])
    (lora,) = (
        node_id
        for node_id, graph_node in result.items()
        if graph_node["class_type"] == "LoraLoader"
    )
    assert result[lora]["inputs"]["model"] == ["loader", 0]
    assert result["first"]["inputs"]["model"] == [lora, 0]
    assert result["positive"]["inputs"]["clip"] == result["negative"]["inputs"]["clip"] == [lora, 1]


def test_text_from_a_picture_is_no_prompt() -> None:
    tagger = declared(["STRING"], image=["IMAGE"], exclude_tags=["STRING", {}])
    graph = txt2img(
        picture=node("LoadImage", image="a.png"),
        tagger=node("Tagger", image=["picture", 0], exclude_tags="hat"),
        positive=node("CLIPTextEncode", clip=["loader", 1], text=["tagger", 0]),
    )
    assert found(find_roles(graph, defs_with(Tagger=tagger)), "prompt") is None


@pytest.mark.parametrize(
    ("title", "name", "target"),
    [
        ("input:batch_size", "batch_size", "latent.batch_size"),
        ("Input: Prompt", "prompt", "positive.text"),
        ("input:height", "height", "latent.height"),
    ],
)
def test_an_input_title_selects_the_named_input(title: str, name: str, target: str) -> None:
    graph = txt2img()
    graph[target.split(".")[0]]["_meta"] = {"title": title}
    assert found_in(graph, name) == [target]


def test_a_plain_title_claims_only_matching_inputs() -> None:
    graph = txt2img(sampler=ksampler() | {"_meta": {"title": "width"}})
    assert found_in(graph, "width") == ["latent.width"]


def test_a_controlnet_avoids_its_samplers_own_vae() -> None:
    efficient = declared(
        ["LATENT", "VAE"],
        model=["MODEL"],
        positive=["CONDITIONING"],
        negative=["CONDITIONING"],
        latent_image=["LATENT"],
        seed=["INT", {}],
        steps=["INT", {}],
    )
    defs = NodeDefs(
        {**OBJECT_INFO, **small_defs(controlnets=["net"])._object_info, "Efficient": efficient}
    )
    inputs = ksampler()["inputs"]
    graph = txt2img(
        sampler=node(
            "Efficient", **{name: inputs[name] for name in efficient["input"]["required"]}
        ),
        decode=node("VAEDecode", samples=["sampler", 0], vae=["sampler", 1]),
    )
    spec = ControlNetSpec(image="job/map.png", model="net")
    result = splice_controlnets(
        graph, find_roles(graph, defs), defs, [spec], rules=ControlNetRules(needs_vae=True)
    )
    (apply,) = (
        graph_node
        for graph_node in result.values()
        if graph_node["class_type"] == "ControlNetApplyAdvanced"
    )
    assert apply["inputs"]["vae"] == ["loader", 2]


def test_a_dangling_link_never_finds_new_nodes() -> None:
    graph = txt2img(sampler=ksampler(positive=["1", 0]))
    defs = defs_with()
    result = splice_loras(graph, find_roles(graph, defs), defs, [LoraSpec("a")])
    assert "1" not in result


def test_the_file_of_the_very_type_is_meant() -> None:
    files = [
        ControlNetFile("lineart"),
        ControlNetFile("lineart_anime"),
        ControlNetFile("canny/depth"),
    ]
    assert choose_model("lineart_anime", files).name == "lineart_anime"
    assert choose_model("depth", files).name == "canny/depth"


@pytest.mark.parametrize("wrong", [{"_meta": "x"}, {"inputs": []}, {"class_type": 3}])
def test_a_node_of_a_wrong_form_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidWorkflow, match="node 1"):
        parse({"1": {"class_type": "KSampler", "inputs": {"seed": 1}, **wrong}})


def test_an_id_of_many_digits_is_an_id() -> None:
    graph = {"9" * 5000: txt2img()["save"], **txt2img()}
    defs = defs_with()
    assert (
        len(splice_loras(graph, find_roles(graph, defs), defs, [LoraSpec("a")])) == len(graph) + 1
    )


def test_the_inputs_of_one_node_are_bounded() -> None:
    inputs = {f"x{number}": 1 for number in range(MAX_INPUTS)}
    parse({"1": {"class_type": "PreviewAny", "inputs": inputs}})
    with pytest.raises(InvalidWorkflow, match="node 1 has 5001 inputs; send at most 5000"):
        parse({"1": {"class_type": "PreviewAny", "inputs": {**inputs, "more": 1}}})
