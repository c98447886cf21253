"""Whatever is filled into whatever graph: no link breaks, nothing else changes, a second time changes nothing."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from comfy_worker.errors import InputError
from comfy_worker.workflow.edit.describe import describe
from comfy_worker.workflow.edit.fill import fill
from comfy_worker.workflow.edit.read import read
from comfy_worker.workflow.graph import Input, Link, Workflow, links_of
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.roles.roles import Roles
from tests import shipped
from tests.core_nodes import DEFS, OBJECT_INFO

TEMPLATES: dict[str, tuple[Workflow, Roles]] = {}
for _name in shipped.NAMES:
    _graph = shipped.graph(_name)
    if all(_node["class_type"] in OBJECT_INFO for _node in _graph.values()):
        TEMPLATES[_name] = (_graph, find_roles(_graph, DEFS))

# What fill changes for a parameter beside its own places.
FOLLOWING = {
    "steps": {"start_at_step", "end_at_step", "step"},
    "width": {"width"},
    "height": {"height"},
}


def value_for(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Any value that a parameter's description allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) if schema["enum"] else st.nothing()
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema["type"] == "integer":
        step = schema.get("multipleOf", 1)
        assert low is not None
        assert high is not None
        return st.integers(-(-low // step), high // step).map(lambda count: count * step)
    if schema["type"] == "number":
        return st.floats(low, high, allow_nan=False)
    return st.text()


@st.composite
def filling(draw: st.DrawFn) -> tuple[Workflow, Roles, dict[str, Any]]:
    """A template, and values for some of its parameters."""
    graph, roles = TEMPLATES[draw(st.sampled_from(sorted(TEMPLATES)))]
    described = describe(graph, roles, DEFS)
    described = {
        name: schema
        for name, schema in described.items()
        if schema.get("enum") != [] and not ("length" in name and "multipleOf" not in schema)
    }
    names = draw(st.lists(st.sampled_from(sorted(described)), unique=True)) if described else []
    return graph, roles, {name: draw(value_for(described[name])) for name in names}


@given(filling())
def test_filling_changes_only_the_targeted_nodes(
    case: tuple[Workflow, Roles, dict[str, Any]],
) -> None:
    graph, roles, values = case
    before = copy.deepcopy(graph)
    result = fill(graph, roles, DEFS, values)
    assert graph == before
    owned = {target for name in values for target in roles.inputs[name]}
    follow = {word for name in values for word in FOLLOWING.get(name, ())}
    for node_id, node in result.items():
        assert node["class_type"] == graph[node_id]["class_type"]
        assert node.get("_meta") == graph[node_id].get("_meta")
        assert links_of(node) == links_of(graph[node_id])
        assert node["inputs"].keys() == graph[node_id]["inputs"].keys()
        for name, value in node["inputs"].items():
            if value != graph[node_id]["inputs"][name]:
                assert (node_id, name) in owned or name in follow


@given(filling())
def test_filling_is_readable_and_idempotent(
    case: tuple[Workflow, Roles, dict[str, Any]],
) -> None:
    graph, roles, values = case
    once = fill(graph, roles, DEFS, values)
    after = find_roles(once, DEFS)
    assert values.items() <= read(once, after).items()
    assert after.inputs.keys() >= roles.inputs.keys()
    assert fill(once, after, DEFS, values) == once


LINK = st.tuples(st.sampled_from([str(number) for number in range(8)]), st.integers(-1, 4)).map(
    list
)
LITERAL = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers())
)
CLASSES = st.sampled_from([*sorted(OBJECT_INFO), "Missing", "Other"])
INPUTS = [
    "model",
    "clip",
    "positive",
    "negative",
    "latent_image",
    "samples",
    "pixels",
    "image",
    "images",
    "text",
]
INPUTS += [
    "seed",
    "steps",
    "sigmas",
    "guider",
    "noise",
    "width",
    "height",
    "value",
    "string_a",
    "string_b",
    "vae",
]


@st.composite
def any_graph(draw: st.DrawFn) -> Workflow:
    """Nodes wired at random, with circles, dangling links and literals of any type."""

    def node() -> dict[str, Any]:
        class_type = draw(CLASSES)
        declared = DEFS.get(class_type)
        names = (
            [*declared.inputs] if declared else draw(st.lists(st.sampled_from(INPUTS), unique=True))
        )
        title = draw(st.sampled_from(["", "prompt", "seed", "input:x", "Width"]))
        return {
            "class_type": class_type,
            "inputs": {name: draw(LINK | LITERAL) for name in names},
            "_meta": {"title": title},
        }

    return {str(number): node() for number in range(draw(st.integers(1, 6)))}


def input_links(graph: Workflow) -> dict[Input, Link]:
    return {
        Input(node_id, name): link
        for node_id, node in graph.items()
        for name, link in links_of(node).items()
    }


def settable_inputs(roles: Roles, name: str) -> set[Input]:
    splits = {split.node_input for split in roles.step_ranges} if name == "steps" else set()
    return {*roles.inputs.get(name, ()), *splits}


@given(any_graph(), st.booleans())
def test_any_graph_is_read_without_harm(graph: Workflow, is_known: bool) -> None:
    defs = DEFS if is_known else NodeDefs({})
    before = copy.deepcopy(graph)
    roles = find_roles(graph, defs)
    assert graph == before or str(graph) == str(before)
    for name, targets in roles.inputs.items():
        assert name not in roles.ambiguous
        assert len(set(targets)) == len(targets) > 0
        assert all(target.name in graph[target.node_id]["inputs"] for target in targets)
    describe(graph, roles, defs)
    for name, value in read(graph, roles).items():
        with contextlib.suppress(InputError):
            result = fill(graph, roles, defs, {name: value})
            before_fill, after_fill = input_links(graph), input_links(result)
            assert after_fill.items() <= before_fill.items()
            # A value takes the place of the link that computed it, and no other link goes.
            assert before_fill.keys() - after_fill.keys() <= settable_inputs(roles, name)
