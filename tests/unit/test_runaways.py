"""A graph that can only be stopped by ending ComfyUI may do so twice, then it is refused for a while."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from comfy_worker.comfyui.runaways import REMEMBERED, Runaways, fingerprints
from comfy_worker.errors import WorkflowRefused
from comfy_worker.workflow.graph import Workflow
from tests.core_nodes import node


def graph(
    pattern: str = "(a+)+$", text: str = "aaab", *, match: str = "1", folder: str = "0" * 32
) -> Workflow:
    """A regular expression over a text from another node, shown by an output in a job's own folder."""
    return {
        "t": node("PrimitiveString", value=text),
        match: node("RegexMatch", string=["t", 0], regex_pattern=pattern),
        "2": node("PreviewAny", source=[match, 0], comfy_worker_folder=folder),
        "3": node("SaveImage", filename_prefix=f"{folder}/x", images=[match, 0]),
    }


def refused(runaways: Runaways, workflow: Workflow) -> WorkflowRefused:
    with pytest.raises(WorkflowRefused) as error:
        runaways.check(workflow)
    return error.value


@pytest.mark.parametrize("known", [True, False])
def test_the_third_time_is_refused(known: bool) -> None:
    runaways = Runaways()
    for _ in range(2):
        runaways.check(graph())
        runaways.note(graph(), "1" if known else None)
    error = refused(runaways, graph(folder="f" * 32))
    assert re.search(r"could not be interrupted 2 times.* in 10 minutes", str(error))
    assert error.details[0]["type"] == "runaway"
    assert error.details[0]["node_id"] == ("1" if known else None)


@pytest.mark.parametrize("other", [{"pattern": "a"}, {"text": "b"}])
def test_other_inputs_are_not_refused(other: dict[str, Any]) -> None:
    runaways = Runaways()
    for _ in range(3):
        runaways.note(graph(), "1")
    runaways.check(graph(**other))


def test_ids_and_nodes_beside_do_not_matter() -> None:
    runaways = Runaways()
    for _ in range(2):
        runaways.note(graph(), "1")
    changed = {**graph(match="9"), "8": node("EmptyImage", width=64)}
    assert refused(runaways, changed).details[0]["node_id"] == "9"


def test_one_run_away_is_forgiven() -> None:
    runaways = Runaways()
    runaways.note(graph(), "1")
    runaways.check(graph())


def test_a_refusal_ends() -> None:
    runaways = Runaways(refused_for_s=0.05)
    for _ in range(2):
        runaways.note(graph(), "1")
    refused(runaways, graph())
    time.sleep(0.1)
    runaways.check(graph())


def test_only_so_many_are_remembered() -> None:
    runaways = Runaways()
    for number in range(REMEMBERED + 50):
        runaways.note(graph(text=str(number)), "1")
    assert len(runaways._ended) == REMEMBERED


def test_circles_and_long_chains_end() -> None:
    chain = {str(i): node("ImageInvert", image=[str(i - 1), 0]) for i in range(5000)}
    assert len(fingerprints(chain)) == 5000
    assert len(fingerprints({"1": node("A", x=["2", 0]), "2": node("A", x=["1", 0])})) == 2


@pytest.mark.parametrize("known", [True, False])
def test_a_graph_that_completes_is_forgiven(known: bool) -> None:
    runaways = Runaways()
    node_id = "1" if known else None
    runaways.note(graph(), node_id)
    runaways.forgive(graph(folder="f" * 32))
    runaways.note(graph(), node_id)
    runaways.check(graph())
