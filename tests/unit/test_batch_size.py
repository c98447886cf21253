"""MAX_BATCH_SIZE against every number that decides how many pictures are made at once."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.errors import InvalidValue
from comfy_worker.workflow.check.batch import check_batch_size
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from tests.core_nodes import OBJECT_INFO, node, txt2img

INT: list[Any] = ["INT", {"min": 1, "max": 4096}]


def latent_class(inputs: dict[str, list[Any]]) -> dict[str, Any]:
    return {"input": {"required": inputs}, "output": ["LATENT"], "output_name": ["LATENT"]}


DEFS = NodeDefs(
    {
        **OBJECT_INFO,
        "RepeatLatentBatch": latent_class({"samples": ["LATENT"], "amount": INT}),
        "LatentBatch": latent_class({"samples1": ["LATENT"], "samples2": ["LATENT"]}),
        "RebatchLatents": latent_class({"latents": ["LATENT"], "batch_size": INT}),
    }
)


def latent(batch_size: Any) -> dict[str, Any]:
    return node("EmptyLatentImage", width=64, height=64, batch_size=batch_size)


@pytest.mark.parametrize(
    "graph",
    [
        txt2img(latent=latent(64)),
        txt2img(latent=latent("64")),
        txt2img(latent=latent(["number", 0]), number=node("PrimitiveInt", value=64)),
        txt2img(
            latent=latent(["number", 0]),
            number=node("PrimitiveInt", value=["first", 0]),
            first=node("PrimitiveInt", value=5),
        ),
        txt2img(repeat=node("RepeatLatentBatch", samples=["latent", 0], amount=9)),
    ],
)
def test_more_than_the_endpoint_allows_is_refused(graph: Workflow) -> None:
    with pytest.raises(InvalidValue, match=r"must be at most 4.*MAX_BATCH_SIZE"):
        check_batch_size(graph, DEFS, 4)


@pytest.mark.parametrize(
    "graph",
    [
        txt2img(latent=latent(4)),
        txt2img(latent=latent("%batch_size%")),
        txt2img(latent=latent(["gone", 0])),
        txt2img(cut=node("RebatchLatents", latents=["latent", 0], batch_size=64)),
    ],
)
def test_what_makes_no_more_pictures_passes(graph: Workflow) -> None:
    check_batch_size(graph, DEFS, 4)


def repeats(batch_size: int, amounts: list[int]) -> Workflow:
    """A latent that several nodes repeat, one after the other, before the sampler."""
    graph = txt2img(latent=latent(batch_size))
    before = "latent"
    for index, amount in enumerate(amounts):
        graph[f"r{index}"] = node("RepeatLatentBatch", samples=[before, 0], amount=amount)
        before = f"r{index}"
    graph["sampler"]["inputs"]["latent_image"] = [before, 0]
    return graph


def test_factors_along_a_chain_are_multiplied() -> None:
    with pytest.raises(InvalidValue, match=r"r0 .*at most 4 latents, not 16.*MAX_BATCH_SIZE"):
        check_batch_size(repeats(4, [4, 4, 4, 4]), DEFS, 4)
    with pytest.raises(InvalidValue, match=r"r1 .*at most 4 latents, not 8"):
        check_batch_size(repeats(2, [2, 2]), DEFS, 4)
    check_batch_size(repeats(1, [2, 2]), DEFS, 4)


def test_joined_batches_count_together() -> None:
    graph = txt2img(latent=latent(3), other=latent(2))
    graph["join"] = node("LatentBatch", samples1=["latent", 0], samples2=["other", 0])
    graph["sampler"]["inputs"]["latent_image"] = ["join", 0]
    with pytest.raises(InvalidValue, match=r"join \(LatentBatch\) .*at most 4 latents, not 5"):
        check_batch_size(graph, DEFS, 4)
    check_batch_size(graph, DEFS, 5)
