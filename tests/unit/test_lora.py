from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from comfy_worker.errors import InvalidValue, ModelMismatch, ModelNotFound, NoPlace
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras
from comfy_worker.workflow.edit.lora_tags import parse_tags
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.loaders import LoaderFile, loader_files
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.roles.samplers import Sampler
from tests.base_graphs import GRAPHS, base_graph, node, roles_of, small_defs

DEFS = small_defs(loras=["a.safetensors", "style/b.safetensors"])


@pytest.mark.parametrize(
    ("prompt", "rest", "loras"),
    [
        ("a cat", "a cat", []),
        ("a  cat ,, \n", "a  cat ,, \n", []),
        ("a cat <lora:ink>", "a cat", [LoraSpec("ink")]),
        ("a cat, <lora:ink:0.8>", "a cat", [LoraSpec("ink", 0.8)]),
        ("<lora:ink:0.8:0>, a cat", "a cat", [LoraSpec("ink", 0.8, 0.0)]),
        ("<lora:ink:-1> a cat", "a cat", [LoraSpec("ink", -1.0)]),
        ("a cat, <lora:sub/ink:0.5>, a dog", "a cat, a dog", [LoraSpec("sub/ink", 0.5)]),
        ("a cat,<lora:ink>,a dog", "a cat,a dog", [LoraSpec("ink")]),
        ("a cat <lora:ink>, a dog", "a cat, a dog", [LoraSpec("ink")]),
        ("a cat, <lora:ink> a dog", "a cat, a dog", [LoraSpec("ink")]),
        ("a <lora:ink> cat", "a cat", [LoraSpec("ink")]),
        ("a<lora:ink> cat", "a cat", [LoraSpec("ink")]),
        ("a cat\n<lora: ink : 1 >\na dog", "a cat\n\na dog", [LoraSpec("ink")]),
        (
            "a cat <lora:x:1><lora:y:2:3>, <lora:x>\n",
            "a cat",
            [LoraSpec("x"), LoraSpec("y", 2, 3), LoraSpec("x")],
        ),
        ("a cat <lyco:x:0.5>", "a cat", [LoraSpec("x", 0.5)]),
        ("<lora:x:1> <LyCo:y:2>", "", [LoraSpec("x"), LoraSpec("y", 2)]),
        ("<lora:x:1> <lora:y:2>", "", [LoraSpec("x"), LoraSpec("y", 2)]),
        ("(a cat:1.2) <b> <lora:x>", "(a cat:1.2) <b>", [LoraSpec("x")]),
    ],
)
def test_tags_leave_the_prompt_and_become_loras(
    prompt: str, rest: str, loras: list[LoraSpec]
) -> None:
    assert parse_tags(prompt) == (rest, loras)


def test_a_hypernetwork_tag_is_an_error() -> None:
    with pytest.raises(InvalidValue, match="hypernetworks cannot be added") as caught:
        parse_tags("a cat <hypernet:x:1>")
    assert caught.value.details == [{"key": "prompt", "value": "<hypernet:x:1>"}]


@pytest.mark.parametrize(
    "tag", ["<lora:>", "<lora:x:>", "<lora:x:strong>", "<lora::1>", "<lora:x:1:1:1>"]
)
def test_an_unreadable_lora_tag_is_an_error(tag: str) -> None:
    with pytest.raises(InvalidValue, match="<lora:name:strength>") as caught:
        parse_tags(f"a cat {tag}")
    assert caught.value.details == [{"key": "prompt", "value": tag}]


def added(before: Workflow, after: Workflow) -> Workflow:
    """The nodes that a splice added, without their titles."""
    return {
        node_id: {"class_type": each["class_type"], "inputs": each["inputs"]}
        for node_id, each in after.items()
        if node_id not in before
    }


def lora_node(
    model: list[Any], clip: list[Any] | None, name: str, *strengths: float
) -> dict[str, Any]:
    if clip is None:
        return node("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=strengths[0])
    return node(
        "LoraLoader",
        model=model,
        clip=clip,
        lora_name=name,
        strength_model=strengths[0],
        strength_clip=strengths[1],
    )


@pytest.mark.parametrize("graph_name", GRAPHS)
def test_loras_chain_between_loader_and_its_users(graph_name: str) -> None:
    loras = [LoraSpec("a", 0.5), LoraSpec("b", 0.8, 0.3)]
    spliced = splice_loras(base_graph(graph_name, "base.ckpt"), roles_of(graph_name), DEFS, loras)
    graph = base_graph(graph_name, "base.ckpt")
    first, second = added(graph, spliced)
    assert (
        spliced[first]["inputs"]
        == lora_node(["1", 0], ["1", 1], "a.safetensors", 0.5, 0.5)["inputs"]
    )
    assert (
        spliced[second]["inputs"]
        == lora_node([first, 0], [first, 1], "style/b.safetensors", 0.8, 0.3)["inputs"]
    )
    wired = base_graph(graph_name, "base.ckpt", model=(second, 0), clip=(second, 1))
    assert {node_id: spliced[node_id] for node_id in graph} == wired


def test_the_given_graph_stays_as_it_is() -> None:
    graph = base_graph("KSampler", "base.ckpt")
    before = copy.deepcopy(graph)
    splice_loras(graph, roles_of("KSampler"), DEFS, [LoraSpec("a")])
    assert graph == before


def test_strength_clip_zero_leaves_the_text_encoder_alone() -> None:
    graph = base_graph("KSampler", "base.ckpt")
    spliced = splice_loras(
        graph, roles_of("KSampler"), DEFS, [LoraSpec("a", 0.5, 0.0), LoraSpec("b")]
    )
    first, second = added(graph, spliced)
    assert added(graph, spliced) == {
        first: lora_node(["1", 0], None, "a.safetensors", 0.5),
        second: lora_node([first, 0], ["1", 1], "style/b.safetensors", 1.0, 1.0),
    }


def test_existing_loras_stay_after_new_loras() -> None:
    own = {"20": lora_node(["1", 0], ["1", 1], "own.safetensors", 1, 1)}
    graph = {**base_graph("KSampler", "base.ckpt", model=("20", 0), clip=("20", 1)), **own}
    spliced = splice_loras(graph, roles_of("KSampler"), DEFS, [LoraSpec("a")])
    (new,) = added(graph, spliced)
    assert spliced["20"] == lora_node([new, 0], [new, 1], "own.safetensors", 1, 1)
    assert spliced["5"] == graph["5"]


def two_models(clip: str) -> tuple[Workflow, Roles]:
    """Two stages with a model each, as base and refiner or as Wan 2.2; the second encodes with ``clip``."""
    graph = base_graph("KSampler twice", "base.ckpt")
    graph["20"] = node("CheckpointLoaderSimple", ckpt_name="second.ckpt")
    graph["21"] = node("ModelSamplingSD3", model=["20", 0], shift=3.0)
    graph["22"] = node("CLIPTextEncode", clip=[clip, 1], text="a cat")
    graph["6"]["inputs"] |= {"model": ["21", 0], "positive": ["22", 0], "negative": ["22", 0]}
    return graph, roles_of("KSampler twice")


def test_each_model_and_text_encoder_is_patched_once() -> None:
    graph, roles = two_models(clip="1")
    spliced = splice_loras(graph, roles, DEFS, [LoraSpec("a")])
    first, second = added(graph, spliced)
    assert added(graph, spliced) == {
        first: lora_node(["1", 0], ["1", 1], "a.safetensors", 1.0, 1.0),
        second: lora_node(["20", 0], None, "a.safetensors", 1.0),
    }
    assert spliced["21"]["inputs"]["model"] == [second, 0]
    assert [spliced[encoder]["inputs"]["clip"] for encoder in ("2", "3", "22")] == [[first, 1]] * 3


def test_both_loaders_text_encoders_are_patched() -> None:
    graph, roles = two_models(clip="20")
    spliced = splice_loras(graph, roles, DEFS, [LoraSpec("a")])
    assert list(added(graph, spliced).values()) == [
        lora_node(["1", 0], ["1", 1], "a.safetensors", 1.0, 1.0),
        lora_node(["20", 0], ["20", 1], "a.safetensors", 1.0, 1.0),
    ]


def test_an_incompatible_model_is_unchanged() -> None:
    graph, roles = two_models(clip="20")
    spliced = splice_loras(
        graph, roles, DEFS, [LoraSpec("a")], fits=lambda root, file: root != "20"
    )
    assert list(added(graph, spliced).values()) == [
        lora_node(["1", 0], ["1", 1], "a.safetensors", 1.0, 1.0)
    ]
    assert {node_id: spliced[node_id] for node_id in ("20", "21", "22")} == {
        node_id: graph[node_id] for node_id in ("20", "21", "22")
    }


def test_a_shared_encoder_follows_the_compatible_model() -> None:
    graph, roles = two_models(clip="1")
    spliced = splice_loras(
        graph, roles, DEFS, [LoraSpec("a")], fits=lambda root, file: root == "20"
    )
    assert list(added(graph, spliced).values()) == [
        lora_node(["20", 0], ["1", 1], "a.safetensors", 1.0, 1.0)
    ]


def test_a_models_second_text_encoder_is_patched() -> None:
    graph = base_graph("KSampler", "base.ckpt")
    graph["20"] = node("CLIPLoader", clip_name="other", type="stable_diffusion")
    graph["3"]["inputs"]["clip"] = ["20", 0]
    spliced = splice_loras(graph, roles_of("KSampler"), DEFS, [LoraSpec("a", 0.5)])
    first, second = added(graph, spliced)
    assert added(graph, spliced) == {
        first: lora_node(["1", 0], ["1", 1], "a.safetensors", 0.5, 0.5),
        second: lora_node(["1", 0], ["20", 0], "a.safetensors", 0.0, 0.5),
    }
    assert spliced["5"]["inputs"]["model"] == [first, 0]
    assert spliced["3"]["inputs"]["clip"] == [second, 1]


def test_no_text_encoder_means_model_only_loader() -> None:
    graph = base_graph("KSampler", "base.ckpt", positive=("20", 0), negative=("20", 0))
    graph["20"] = node("LoadConditioning", name="x")
    spliced = splice_loras(graph, roles_of("KSampler"), DEFS, [LoraSpec("a")])
    assert list(added(graph, spliced).values()) == [lora_node(["1", 0], None, "a.safetensors", 1.0)]


def test_every_part_of_a_merge_is_patched() -> None:
    graph = base_graph("KSampler", "base.ckpt", model=("21", 0))
    graph["20"] = node("UNETLoader", unet_name="other.safetensors", weight_dtype="default")
    graph["21"] = node("ModelMergeSimple", model1=["20", 0], model2=["1", 0], ratio=0.5)
    spliced = splice_loras(graph, roles_of("KSampler"), DEFS, [LoraSpec("a")])
    first, second = added(graph, spliced)
    assert added(graph, spliced) == {
        first: lora_node(["20", 0], None, "a.safetensors", 1.0),
        second: lora_node(["1", 0], ["1", 1], "a.safetensors", 1.0, 1.0),
    }
    assert spliced["21"] == node(
        "ModelMergeSimple", model1=[first, 0], model2=[second, 0], ratio=0.5
    )


def test_a_loaders_inputs_do_not_follow_it() -> None:
    declared = {"input": {"required": {"model": ["MODEL"]}}, "output": ["CLIP"]}
    defs = small_defs({"ClipOfModel": declared}, loras=["a.safetensors"])
    graph = base_graph("KSampler", "base.ckpt", clip=("20", 0))
    graph["20"] = node("ClipOfModel", model=["1", 0])
    spliced = splice_loras(graph, roles_of("KSampler"), defs, [LoraSpec("a")])
    (new,) = added(graph, spliced)
    assert added(graph, spliced)[new] == lora_node(["1", 0], ["20", 0], "a.safetensors", 1.0, 1.0)
    assert spliced["20"] == graph["20"]


def test_loader_files_name_what_feeds_each_sampler() -> None:
    graph, roles = two_models(clip="1")
    graph["23"] = node("UNETLoader", unet_name="unet.safetensors", weight_dtype="default")
    graph["24"] = node("ModelMergeSimple", model1=["20", 0], model2=["23", 0], ratio=0.5)
    graph["21"]["inputs"]["model"] = ["24", 0]
    assert loader_files(graph, roles, DEFS) == [
        LoaderFile("5", "1", "checkpoints", "base.ckpt"),
        LoaderFile("6", "20", "checkpoints", "second.ckpt"),
        LoaderFile("6", "23", "diffusion_models", "unet.safetensors"),
    ]


def test_a_sampler_without_model_takes_no_loras() -> None:
    graph = {"1": node("ApiImage", prompt="a cat")}
    for samplers in ((), (Sampler("1", None, None, None, None),)):
        roles = Roles(samplers, {}, {}, ())
        assert loader_files(graph, roles, DEFS) == []
        with pytest.raises(NoPlace, match="loras"):
            splice_loras(graph, roles, DEFS, [LoraSpec("a")])


def test_a_circle_of_model_links_ends() -> None:
    graph = base_graph("KSampler", "base.ckpt", model=("20", 0))
    graph["20"] = node("ModelSamplingSD3", model=["21", 0], shift=3.0)
    graph["21"] = node("ModelSamplingSD3", model=["20", 0], shift=3.0)
    with pytest.raises(NoPlace):
        splice_loras(graph, roles_of("KSampler"), DEFS, [LoraSpec("a")])


@pytest.mark.parametrize(
    "lora",
    [LoraSpec("a", 101), LoraSpec("a", -101), LoraSpec("a", 1, 100.5), LoraSpec("a", math.nan)],
)
def test_a_strength_out_of_range_is_an_error(lora: LoraSpec) -> None:
    with pytest.raises(InvalidValue, match=r"strength.* of lora 'a' must be at least -100"):
        splice_loras(base_graph("KSampler", "base.ckpt"), roles_of("KSampler"), DEFS, [lora])


def test_a_missing_lora_is_an_error() -> None:
    with pytest.raises(ModelNotFound, match="models/loras"):
        splice_loras(
            base_graph("KSampler", "base.ckpt"), roles_of("KSampler"), DEFS, [LoraSpec("nothing")]
        )


def test_an_incompatible_lora_is_an_error() -> None:
    with pytest.raises(ModelMismatch, match=r"style/b\.safetensors") as caught:
        splice_loras(
            base_graph("KSampler", "base.ckpt"),
            roles_of("KSampler"),
            DEFS,
            [LoraSpec("b")],
            fits=lambda *_: False,
        )
    assert caught.value.details == [{"file": "style/b.safetensors", "node_id": "1"}]
