"""The data in `workflows/` keeps its own rules: params name what the graph has, the docs name every template."""

from __future__ import annotations

import json

import pytest

from comfy_worker.planning.templates import Parameter
from tests import shipped

DOCS = (shipped.REPO / "docs" / "templates.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", shipped.NAMES)
def test_params_declare_only_values_of_the_graph(name: str) -> None:
    graph = shipped.graph(name)
    for parameter in shipped.params(name).get("parameters", {}).values():
        assert parameter.keys() <= {*Parameter.model_fields}
        assert isinstance(graph[parameter["node"]]["inputs"][parameter["input"]], (int, float, str))


@pytest.mark.parametrize("name", shipped.NAMES)
def test_files_that_a_graph_loads_are_required(name: str) -> None:
    """Each file is a key of the request; what need not be sent is an optional parameter."""
    params = shipped.params(name)
    declared = params.get("parameters", {})
    own = {entry["node"]: key for key, entry in declared.items()}
    loaders = {"LoadImage": "image", "LoadImageMask": "mask", "LoadVideo": "video"}
    for node_id, node in shipped.graph(name).items():
        if node["class_type"] in loaders:
            key = own.get(node_id, loaders[node["class_type"]])
            is_optional = declared.get(key, {}).get("optional", False)
            assert (key in params.get("required", [])) is not is_optional


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_title_and_an_example_are_given(name: str) -> None:
    params = shipped.params(name)
    assert params["title"]
    example = params["example"]
    assert example["workflow"] == name
    values = {**example, **example.get("parameters", {})}
    assert values.keys() >= {*params.get("required", [])}


@pytest.mark.parametrize("name", shipped.NAMES)
def test_the_gallery_shows_each_template(name: str) -> None:
    """Its models, its parameters, and a request that is the example."""
    section = DOCS.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    params = shipped.params(name)
    assert params["description"] in section
    assert all(f"`{need['folder']}/{need['file']}`" in section for need in params["needs"])
    keys = [*params.get("required", []), *params.get("parameters", {})]
    assert all(f"`{key}`" in section or f"`parameters.{key}`" in section for key in keys)
    request = section.partition("```json\n")[2].partition("```")[0]
    assert json.loads(request) == {"input": params["example"]}
