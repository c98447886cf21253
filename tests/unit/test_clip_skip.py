from __future__ import annotations

import pytest

from comfy_worker.errors import InvalidValue, NoPlace
from comfy_worker.workflow.edit.clip_skip import splice_clip_skip
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras
from tests.base_graphs import GRAPHS, base_graph, node, roles_of, small_defs

DEFS = small_defs(loras=["a.safetensors"])


@pytest.mark.parametrize("graph_name", GRAPHS)
def test_one_node_precedes_a_loaders_encoders(graph_name: str) -> None:
    graph = base_graph(graph_name, "base.ckpt")
    spliced = splice_clip_skip(graph, DEFS, 2)
    (new,) = spliced.keys() - graph.keys()
    assert spliced[new]["class_type"] == "CLIPSetLastLayer"
    assert spliced[new]["inputs"] == {"clip": ["1", 1], "stop_at_clip_layer": -2}
    assert {node_id: spliced[node_id] for node_id in graph} == base_graph(
        graph_name, "base.ckpt", clip=(new, 0)
    )


def test_it_stands_after_the_loras() -> None:
    graph = splice_loras(
        base_graph("KSampler", "base.ckpt"), roles_of("KSampler"), DEFS, [LoraSpec("a")]
    )
    (lora,) = (node_id for node_id, each in graph.items() if each["class_type"] == "LoraLoader")
    spliced = splice_clip_skip(graph, DEFS, 3)
    (new,) = spliced.keys() - graph.keys()
    assert spliced[new]["inputs"] == {"clip": [lora, 1], "stop_at_clip_layer": -3}
    assert spliced["2"]["inputs"]["clip"] == [new, 0]


@pytest.mark.parametrize("clip_skip", [1, 2, 24])
def test_an_existing_clip_skip_node_is_set(clip_skip: int) -> None:
    graph = base_graph("KSampler", "base.ckpt", clip=("20", 0))
    graph["20"] = node("CLIPSetLastLayer", clip=["1", 1], stop_at_clip_layer=-5)
    expected = {
        **graph,
        "20": node("CLIPSetLastLayer", clip=["1", 1], stop_at_clip_layer=-clip_skip),
    }
    assert splice_clip_skip(graph, DEFS, clip_skip) == expected


def test_an_encoder_without_clip_skip_gets_one() -> None:
    graph = base_graph("KSampler", "base.ckpt")
    graph["20"] = node("CLIPSetLastLayer", clip=["1", 1], stop_at_clip_layer=-5)
    graph["2"]["inputs"]["clip"] = ["20", 0]
    spliced = splice_clip_skip(graph, DEFS, 2)
    (new,) = spliced.keys() - graph.keys()
    assert spliced["20"]["inputs"]["stop_at_clip_layer"] == -2
    assert spliced["2"]["inputs"]["clip"] == ["20", 0]
    assert spliced["3"]["inputs"]["clip"] == [new, 0]


def test_one_adds_nothing() -> None:
    graph = base_graph("KSampler", "base.ckpt")
    assert splice_clip_skip(graph, DEFS, 1) == graph


@pytest.mark.parametrize("clip_skip", [-1, 0, 25])
def test_out_of_range_is_an_error(clip_skip: int) -> None:
    with pytest.raises(InvalidValue, match="clip_skip must be at least 1"):
        splice_clip_skip(base_graph("KSampler", "base.ckpt"), DEFS, clip_skip)


def test_no_text_encoder_means_no_clip_skip() -> None:
    with pytest.raises(NoPlace, match="clip_skip"):
        splice_clip_skip(
            {"1": node("LoadImage", image="a.png"), "2": node("Unknown", clip=["1", 0])}, DEFS, 2
        )
