"""The data in `workflows/` keeps its own rules: params name what the graph has, the docs name every template."""

from __future__ import annotations

import pytest

from tests import shipped

DOCS = (shipped.REPO / "docs" / "templates.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", shipped.NAMES)
def test_params_declare_only_values_of_the_graph(name: str) -> None:
    graph = shipped.graph(name)
    for parameter in shipped.params(name).get("parameters", {}).values():
        assert parameter.keys() <= {"node", "input", "description", "default", "minimum", "maximum"}
        assert isinstance(graph[parameter["node"]]["inputs"][parameter["input"]], (int, float, str))


@pytest.mark.parametrize("name", shipped.NAMES)
def test_loaded_images_and_masks_are_required(name: str) -> None:
    loaders = {"LoadImage": "image", "LoadImageMask": "mask"}
    kinds = [node["class_type"] for node in shipped.graph(name).values()]
    loaded = [loaders[kind] for kind in kinds if kind in loaders]
    assert sorted(shipped.params(name).get("required", [])) == sorted(loaded)


def test_docs_list_each_template_and_its_models() -> None:
    lines = {line.split("`")[1]: line for line in DOCS.splitlines() if line.startswith("| `")}
    assert sorted(lines) == shipped.NAMES
    for name, line in lines.items():
        params = shipped.params(name)
        assert all(f"`{need['folder']}/{need['file']}`" in line for need in params["needs"])
        for column, key in ((3, "required"), (4, "parameters")):
            assert line.split("|")[column].strip() == ", ".join(
                f"`{word}`" for word in params.get(key, [])
            )
