"""Replaces a request's model URLs, such as ``hf:owner/repo/file``, by names of model files.

Such references may be in LoRAs, ControlNets, ``checkpoint``, ``vae``, parameters, overrides, in any
input of the workflow that takes a model file, and behind ``embedding:`` in any text. The caller
downloads the files.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_common.sources import is_source
from comfy_worker.errors import InvalidValue
from comfy_worker.request.schema import JobInput
from comfy_worker.workflow.edit.overrides import OverrideKeys
from comfy_worker.workflow.edit.parameters import Declared, inputs_of
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.model_files import CheckContext, find_model_file
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["FileName", "resolve_model_urls"]

# Gives the name of a file, by its model folder and the reference that the client wrote.
FileName = Callable[[str, str], str]

# In "(embedding:URL:1.2)" the weight is not part of the URL.
EMBEDDING = re.compile(
    r"embedding:(?P<reference>(?:hf:|https?://)[^\s,()]+?)(?=:[\d.]+\)|[\s,()]|$)",
)
TEXTS = ("prompt", "negative_prompt")
FILES = ("checkpoint", "vae")


def resolve_model_urls(
    request: JobInput,
    workflow: Workflow,
    defs: NodeDefs,
    declared: Mapping[str, Declared],
    file_name: FileName,
) -> tuple[JobInput, Workflow]:
    """Replace the URLs of models by file names, in copies of a request and its workflow.

    Args:
        request: as the client sent it.
        workflow: the workflow that the request names, not filled yet.
        defs: the node definitions of the running ComfyUI.
        declared: the template's further parameters.
        file_name: called for each reference.

    Raises:
        InvalidValue: a node takes a model file, and its model folder is not known.
        NoPlace: a reference is the value of a parameter that the workflow does not have.
        Ambiguous: the same, for a parameter that fits several inputs.
    """
    graph = TypedWorkflow(workflow, defs)
    references = _References(graph, file_name)
    return (
        request.model_copy(update=_resolved_fields(request, graph, declared, references)),
        _resolved_workflow(workflow, references),
    )


def _resolved_fields(
    request: JobInput,
    graph: TypedWorkflow,
    declared: Mapping[str, Declared],
    references: _References,
) -> dict[str, Any]:
    """The fields of a request that may hold references, resolved."""
    keys = OverrideKeys(graph)

    def of_parameter(name: str, value: Any) -> Any:
        if not _has_reference(value):
            return value
        roles = find_roles(graph.workflow, graph.defs)
        return references.in_input(inputs_of(graph.workflow, roles, name, declared)[0], value)

    def of_override(key: str, value: Any) -> Any:
        return references.in_input(keys.input_of(key), value) if _has_reference(value) else value

    fields: dict[str, Any] = {}
    for name in FILES:
        fields[name] = of_parameter(name, getattr(request, name))
    for name in TEXTS:
        fields[name] = references.in_text(getattr(request, name))
    fields["parameters"] = {
        name: of_parameter(name, value) for name, value in request.parameters.items()
    }
    fields["overrides"] = {key: of_override(key, value) for key, value in request.overrides.items()}
    fields["loras"] = tuple(
        lora.model_copy(update={"name": references.in_folder("loras", lora.name)})
        for lora in request.loras
    )
    fields["controlnets"] = tuple(
        controlnet.model_copy(
            update={"model": references.in_folder("controlnet", controlnet.model)},
        )
        for controlnet in request.controlnets
    )
    return fields


def _resolved_workflow(workflow: Workflow, references: _References) -> Workflow:
    resolved = copy.deepcopy(workflow)
    for node_id, node in workflow.items():
        for name, value in node["inputs"].items():
            if _has_reference(value):
                resolved[node_id]["inputs"][name] = references.in_input(Input(node_id, name), value)
    return resolved


def _has_reference(value: Any) -> bool:
    return isinstance(value, str) and (is_source(value) or EMBEDDING.search(value) is not None)


@dataclass(frozen=True)
class _References:
    """Resolves references, each by where it was written."""

    graph: TypedWorkflow
    file_name: FileName

    def in_folder(self, folder: str, value: str | None) -> str | None:
        """Resolve the name of a file of one model folder."""
        return self.file_name(folder, value) if value and is_source(value) else value

    def in_text(self, text: str | None) -> str | None:
        """Resolve the embeddings in a text."""
        if not text:
            return text
        return EMBEDDING.sub(self._embedding, text)

    def _embedding(self, found: re.Match[str]) -> str:
        return f"embedding:{self.file_name('embeddings', found['reference'])}"

    def in_input(self, node_input: Input, value: str) -> str | None:
        """Resolve the value of a node's input; the URL of an image, for example, stays."""
        spec = self.graph.spec(node_input)
        if spec is None or not _takes_model_file(spec) or not is_source(value):
            return self.in_text(value)
        class_type = self.graph.workflow[node_input.node_id]["class_type"]
        folder = find_model_file(class_type, node_input.name, "", CheckContext()).folder
        if not folder:
            raise InvalidValue(
                f"{node_input.name} of node {node_input.node_id} ({class_type}) takes only an "
                "installed file: "
                "the worker does not know which model folder this node searches",
                [{"node_id": node_input.node_id, "input": node_input.name}],
            )
        return self.file_name(folder, value)


def _takes_model_file(spec: InputSpec) -> bool:
    return spec.choices is not None and not spec.is_upload
