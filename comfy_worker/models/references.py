"""Where a request gives a model by a URL or as ``hf:owner/repo/file``, and not by the name of an installed file.

Owns the places: LoRAs, ControlNets, ``checkpoint``, ``vae``, parameters, overrides, any input of a graph that
takes a model file, and ``embedding:`` in any text. Fetches nothing.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

from comfy_common.sources import is_source
from comfy_worker.errors import InvalidValue
from comfy_worker.request.schema import JobInput
from comfy_worker.workflow.edit.overrides import OverrideKeys
from comfy_worker.workflow.edit.parameters import Declared, places_of
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.model_files import Sources, find_need
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.tracing import Graph

__all__ = ["Take", "with_files"]

# Gets a model folder and the word for a file that belongs there; gives the file's name.
Take = Callable[[str, str], str]

# In "(embedding:URL:1.2)" the weight is not part of the URL.
EMBEDDING = re.compile(r"embedding:(?P<word>(?:hf:|https?://)[^\s,()]+?)(?=:[\d.]+\)|[\s,()]|$)")
TEXTS = ("prompt", "negative_prompt")
FILES = ("checkpoint", "vae")


def with_files(
    request: JobInput, workflow: Workflow, defs: NodeDefs, declared: Mapping[str, Declared], take: Take
) -> tuple[JobInput, Workflow]:
    """A request and its graph with files in place of what is to be fetched.

    Args:
        request: as it was sent; stays as it is.
        workflow: the graph that it means, not filled; stays as it is.
        defs: the node classes that this ComfyUI has.
        declared: the template's further parameters.
        take: asked for each such word.

    Raises:
        InvalidValue: a node takes a file, and of which folder is not known.
        NoPlace: a file for a parameter that the graph has no place for.
        Ambiguous: the same, where it has several.
    """
    graph = Graph(workflow, defs)
    keys = OverrideKeys(graph)

    def parameter(name: str, value: Any) -> Any:
        if not _is_asked(value):
            return value
        return _at(graph, places_of(workflow, find_roles(workflow, defs), name, declared)[0], value, take)

    changed: dict[str, Any] = {name: parameter(name, getattr(request, name)) for name in FILES}
    changed |= {name: _in_text(getattr(request, name), take) for name in TEXTS}
    changed["parameters"] = {name: parameter(name, value) for name, value in request.parameters.items()}
    changed["overrides"] = {
        key: _at(graph, keys.place(key), value, take) if _is_asked(value) else value
        for key, value in request.overrides.items()
    }
    changed["loras"] = tuple(
        lora.model_copy(update={"name": _in_folder("loras", lora.name, take)}) for lora in request.loras
    )
    changed["controlnets"] = tuple(
        one.model_copy(update={"model": one.model and _in_folder("controlnet", one.model, take)})
        for one in request.controlnets
    )
    filled = copy.deepcopy(workflow)
    for node_id, node in workflow.items():
        for name, value in node["inputs"].items():
            if _is_asked(value):
                filled[node_id]["inputs"][name] = _at(graph, Input(node_id, name), value, take)
    return request.model_copy(update=changed), filled


def _is_asked(value: Any) -> bool:
    return isinstance(value, str) and (is_source(value) or EMBEDDING.search(value) is not None)


def _in_folder(folder: str, value: str, take: Take) -> str:
    return take(folder, value) if is_source(value) else value


def _in_text(text: str | None, take: Take) -> str | None:
    return text and EMBEDDING.sub(lambda found: f"embedding:{take('embeddings', found['word'])}", text)


def _at(graph: Graph, place: Input, value: str, take: Take) -> str | None:
    """What stands in one input: a URL that no model file is meant by, of a picture say, stays."""
    spec = graph.spec(place)
    if spec is None or not _takes_a_file(spec) or not is_source(value):
        return _in_text(value, take)
    class_type = graph.workflow[place.node_id]["class_type"]
    folder = find_need(class_type, place.name, "", Sources()).folder
    if not folder:
        raise InvalidValue(
            f"{place.name} of node {place.node_id} ({class_type}) takes an installed file only: which folder it "
            "searches is not known",
            [{"node_id": place.node_id, "input": place.name}],
        )
    return take(folder, value)


def _takes_a_file(spec: InputSpec) -> bool:
    return spec.choices is not None and not spec.is_upload
