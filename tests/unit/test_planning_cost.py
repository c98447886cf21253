"""Large graphs are read in time that grows with their size, and a cancel is heard meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from comfy_worker.errors import JobCancelled
from comfy_worker.workflow.check.file_access import check_paths
from comfy_worker.workflow.edit.clip_skip import splice_clip_skip
from comfy_worker.workflow.edit.fill import fill
from comfy_worker.workflow.edit.lora_tags import parse_tags
from comfy_worker.workflow.edit.overrides import apply_overrides
from comfy_worker.workflow.edit.read import seeds_of_outputs
from comfy_worker.workflow.graph import Workflow, ancestors
from comfy_worker.workflow.loaders import loader_files
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.walks import Fold, walk
from tests.core_nodes import DEFS, ksampler, node, txt2img

# Far above what linear work takes on a busy machine, far below what the square of these sizes takes.
GENEROUS_S = 30


def ladder(
    count: int, rung: Callable[[int, Any], dict[str, Any]], **changed: Callable[[Any], Any]
) -> Workflow:
    """A chain of nodes, and at each of them a sampler with an output of its own."""
    graph = txt2img()
    above: Any = None
    for number in range(count):
        graph[f"rung{number}"] = rung(number, above)
        above = [f"rung{number}", 0]
        graph[f"sampler{number}"] = ksampler(
            **{name: link(above) for name, link in changed.items()}
        )
        graph[f"decode{number}"] = node(
            "VAEDecode", samples=[f"sampler{number}", 0], vae=["loader", 2]
        )
        graph[f"save{number}"] = node("PreviewImage", images=[f"decode{number}", 0])
    return graph


def same(link: Any) -> Any:
    return link


def chained_samplers(count: int) -> Workflow:
    graph = txt2img()
    for number in range(count):
        graph[f"text{number}"] = node("CLIPTextEncode", clip=["loader", 1], text="same")
        graph[f"sampler{number}"] = ksampler(
            positive=[f"text{number}", 0],
            latent_image=[f"sampler{number - 1}", 0] if number else ["latent", 0],
        )
    graph["decode"] = node("VAEDecode", samples=[f"sampler{count - 1}", 0], vae=["loader", 2])
    return graph


def primitives(count: int) -> Workflow:
    graph = txt2img(
        latent=node("EmptyLatentImage", width=[f"number{count - 1}", 0], height=64, batch_size=1)
    )
    for number in range(count):
        graph[f"number{number}"] = node(
            "PrimitiveInt", value=[f"number{number - 1}", 0] if number else 64
        )
    return graph


def many_outputs(count: int) -> Workflow:
    graph = txt2img()
    for number in range(count):
        above = [f"invert{number - 1}", 0] if number else ["decode", 0]
        graph[f"invert{number}"] = node("ImageInvert", image=above)
    for number in range(count):
        graph[f"save{number}"] = node("PreviewImage", images=[f"invert{count - 1}", 0])
    return graph


def lora_ladder(count: int) -> Workflow:
    def rung(_number: int, above: Any) -> dict[str, Any]:
        return node(
            "LoraLoaderModelOnly", model=above or ["loader", 0], lora_name="x", strength_model=1.0
        )

    return ladder(count, rung, model=same)


def conditioning_ladder(count: int) -> Workflow:
    def rung(_number: int, above: Any) -> dict[str, Any]:
        return node("FluxGuidance", conditioning=above or ["positive", 0], guidance=3.5)

    return ladder(count, rung, positive=same, negative=same)


def text_ladder(count: int) -> Workflow:
    def rung(number: int, above: Any) -> dict[str, Any]:
        return node("StringConcatenate", string_a=above or "a", string_b=f"b{number}", delimiter="")

    graph = ladder(count, rung, positive=lambda link: [link[0].replace("rung", "text"), 0])
    for number in range(count):
        graph[f"text{number}"] = node(
            "CLIPTextEncode", clip=["loader", 1], text=[f"rung{number}", 0]
        )
    return graph


def latent_ladder(count: int) -> Workflow:
    def rung(_number: int, above: Any) -> dict[str, Any]:
        return node("LatentUpscale", samples=above or ["latent", 0], width=64, height=64)

    return ladder(count, rung, latent_image=same)


def computed(count: int) -> Workflow:
    """A chain of expressions, and as many samplers that get their steps and cfg from its end."""
    graph = primitives(1)
    graph["end"] = node("Missing", first=1, second=2)
    for number in range(count):
        above = [f"step{number - 1}", 1] if number else ["end", 0]
        graph[f"step{number}"] = node("ComfyMathExpression", expression="a", **{"values.a": above})
        last = [f"step{count - 1}", 1]
        graph[f"sampler{number}"] = ksampler(steps=last, cfg=last)
        graph[f"save{number}"] = node("LatentSaver", samples=[f"sampler{number}", 0])
    return graph


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (chained_samplers, 2400),
        (primitives, 4900),
        (many_outputs, 2400),
        (lora_ladder, 1200),
        (conditioning_ladder, 1200),
        (text_ladder, 950),
        (latent_ladder, 1200),
        (computed, 1200),
    ],
)
def test_the_cost_grows_with_the_graph(make: Callable[[int], Workflow], count: int) -> None:
    graph = make(count)
    begun = time.process_time()
    roles = find_roles(graph, DEFS)
    result = fill(graph, roles, DEFS, {"seed": 7, "steps": 9})
    check_paths(result, DEFS, roles.outputs, set())
    seeds_of_outputs(result, roles)
    loader_files(result, roles, DEFS)
    splice_clip_skip(result, DEFS, 2)
    assert time.process_time() - begun < GENEROUS_S


def test_overrides_by_title_and_id_cost_alike() -> None:
    graph = {
        str(number): node("EmptyLatentImage", f"title {number}", width=64, height=64, batch_size=1)
        for number in range(4900)
    }
    overrides = {
        f"title {number}.{side}": 128 for number in range(4900) for side in ("width", "height")
    }
    begun = time.process_time()
    changed = apply_overrides(graph, DEFS, overrides)
    assert time.process_time() - begun < GENEROUS_S
    assert {changed[node_id]["inputs"]["width"] for node_id in changed} == {128}


@pytest.mark.parametrize("make", [chained_samplers, primitives, many_outputs])
def test_cancelling_works_while_reading_a_graph(make: Callable[[int], Workflow]) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise JobCancelled("the job was cancelled")

    with pytest.raises(JobCancelled):
        find_roles(make(2000), DEFS, check)


@pytest.mark.parametrize(
    "prompt",
    [
        "<lora:x:1>a" + " " * 1_000_000 + "b",
        "<lora:x:1>" + " ," * 500_000 + "b",
        "<lora:" * 170_000,
        ", " * 500_000 + "<lora:x:1>",
    ],
)
def test_tags_are_read_in_one_pass(prompt: str) -> None:
    begun = time.process_time()
    parse_tags(prompt)
    assert time.process_time() - begun < GENEROUS_S


def test_circles_are_walked_once() -> None:
    graph = {
        str(number): node("ImageInvert", image=[str((number + 1) % 5), 0]) for number in range(5)
    }
    assert list(ancestors(graph, "0")) == ["1", "2", "3", "4"]
    count: Fold[int, int] = Fold(
        lambda state: [(state + 1) % 5], lambda _state, above: 1 + sum(above)
    )
    assert count(0) == 5
    assert list(walk([0, 3], lambda state: [(state + 1) % 5])) == [0, 1, 2, 3, 4]


def test_a_fold_does_not_recurse() -> None:
    depth: Fold[int, int] = Fold(
        lambda state: [state - 1] if state else [], lambda _state, above: 1 + sum(above)
    )
    assert depth(100_000) == 100_001
