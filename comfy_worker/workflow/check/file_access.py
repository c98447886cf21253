"""Checks that a workflow reads only the files that came with its job.

ComfyUI itself accepts ``../``, absolute paths and the files of other jobs. The declaration of an
input tells whether it names a file. Output paths are checked in
:mod:`~comfy_worker.workflow.isolate`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from typing import Any

from comfy_worker.errors import InvalidValue
from comfy_worker.workflow.graph import Input, Workflow, ancestors
from comfy_worker.workflow.literals import resolve_literal
from comfy_worker.workflow.model_names import is_model
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["check_paths", "climbs", "file_inputs"]

# The editor's own recorders. Their inputs hold the names of files that the editor uploaded.
RECORDED = {"LOAD_3D", "WEBCAM", "AUDIO_RECORD"}
# An input of such a type that holds where the camera stands; its names of files are not read.
VIEW = ("LOAD_3D", "viewport_state")
_Matches = Callable[[str, InputSpec], bool]
# Keys of what the editor records of a 3D model that hold no names of files.
VIEW_KEYS = {"camera_info", "model_3d_info"}
# An input that names a file, although it is declared like any other choice.
LATENT = ("LoadLatent", "latent")
PATH_NAME = re.compile(r"(^|[_.])(file|filename|path|folder|dir|directory)([_.]|$)", re.IGNORECASE)
OUTPUT_NAMES = {"filename_prefix", "folder_name", "output_path"}
# The name of a job's folder.
JOB_FOLDER = re.compile(r"[0-9a-f]{32}(/|$)")


def climbs(path: str) -> bool:
    """Return whether a path is absolute, or leads out of its folder with ``..``."""
    return path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/")


def file_inputs(workflow: Workflow, defs: NodeDefs, outputs: Iterable[str]) -> list[Input]:
    """Find the inputs that hold the names of input files.

    They belong to nodes such as LoadImage, or to a primitive that is linked to them.

    Args:
        workflow: API format.
        defs: the node classes of this ComfyUI.
        outputs: the output nodes. ComfyUI runs only what feeds them, so only that is checked.

    Raises:
        InvalidValue: a name is computed, so it cannot be checked.
    """
    return _file_inputs(_LiveInputs(TypedWorkflow(workflow, defs), outputs))


def _file_inputs(live: _LiveInputs) -> list[Input]:
    found: list[Input] = []
    for node_input in live.matching(_names_a_file):
        literal = resolve_literal(live.graph, node_input)
        if literal is None:
            raise _computed(node_input)
        found.append(literal)
    return found


def check_paths(workflow: Workflow, defs: NodeDefs, outputs: Iterable[str], ours: Set[str]) -> None:
    """Check that a workflow reads only files that came with the job.

    Args:
        workflow: API format, filled.
        defs: the node classes of this ComfyUI.
        outputs: the output nodes.
        ours: the job's files, as ``LoadImage`` names them.

    Raises:
        InvalidValue: a file was not sent, or a path is absolute or contains ``..``.
    """
    graph = TypedWorkflow(workflow, defs)
    live = _LiveInputs(graph, outputs)
    for node_input in _file_inputs(live):
        for name in _file_names(graph.value(node_input)):
            if name not in ours and not _is_blank_drawing(graph, node_input, name):
                why = "a file that was not sent; send it as `image` or in `images`"
                raise _refused(graph, node_input, name, why)
    for node_input in live.matching(_is_a_choice):
        _check_choice(graph, node_input, ours)
    for node_input in live.matching(_names_a_path):
        _check_path(graph, node_input)
    for node_input in live.matching(_is_a_view):
        _check_view(graph, node_input)


def _check_path(graph: TypedWorkflow, node_input: Input) -> None:
    """Refuse a path that leads out of its folder.

    The path of an output node may be computed: it is only written to.
    """
    literal = resolve_literal(graph, node_input)
    declared = graph.declared(node_input.node_id)
    is_output = declared is not None and declared.is_output
    if literal is None and not is_output:
        raise _computed(node_input)
    for path in _texts(graph.value(literal or node_input)):
        # `.` is the folder with the files of all jobs.
        is_shared = path != "" and not path.strip("./\\")
        if climbs(path) or is_shared:
            why = "which leads out of its folder; name one below it"
            raise _refused(graph, node_input, path, why)


def _check_view(graph: TypedWorkflow, node_input: Input) -> None:
    """Refuse a path that leads elsewhere, although nothing reads it."""
    for text in _texts(graph.value(node_input)):
        if climbs(text):
            raise _refused(graph, node_input, text, "which leads out of its folder")


def _is_blank_drawing(graph: TypedWorkflow, node_input: Input, name: str) -> bool:
    """Return whether an input is a canvas of the editor in which nothing was drawn."""
    spec = graph.spec(node_input)
    return name == "" and spec is not None and spec.is_upload and spec.type == "STRING"


def _check_choice(graph: TypedWorkflow, node_input: Input, ours: Set[str]) -> None:
    """Check a choice of a list, which may contain the folders of other jobs.

    ComfyUI 0.3.75 accepts any text if the list has the newer form.
    """
    spec, literal = graph.spec(node_input), resolve_literal(graph, node_input)
    is_path = bool(PATH_NAME.search(node_input.name))
    if literal is None and is_path:
        raise _computed(node_input)
    choices = spec.choices if spec is not None and spec.choices else ()
    for name in _texts(graph.value(literal or node_input)):
        if name not in ours and _is_foreign(name, choices, is_path=is_path):
            raise _refused(graph, node_input, name, "which is none of its choices")


def _is_foreign(name: str, choices: Collection[Any], *, is_path: bool) -> bool:
    if JOB_FOLDER.match(name):
        return True
    if name in choices:
        return False
    # The check of the workflow reports a missing model, and knows where to get it.
    return climbs(name) or (is_path and not is_model(name))


class _LiveInputs:
    """The declared inputs of the output nodes and of all nodes that feed them.

    Args:
        graph: the workflow.
        outputs: the output nodes.
    """

    def __init__(self, graph: TypedWorkflow, outputs: Iterable[str]) -> None:
        self.graph = graph
        ends = list(outputs)
        self._nodes = list(dict.fromkeys([*ends, *ancestors(graph.workflow, *ends)]))

    def matching(self, matches: _Matches) -> Iterator[Input]:
        """Yield the inputs whose declaration matches."""
        graph = self.graph
        by_class: dict[str, set[str]] = {}
        for node_id in self._nodes:
            declared = graph.declared(node_id)
            if declared is None:
                continue
            names = by_class.get(declared.name)
            if names is None:
                names = _matching_names(declared.name, graph.specs(node_id), matches)
                # The values of a node with dynamic inputs decide which inputs it has.
                if not declared.is_dynamic:
                    by_class[declared.name] = names
            for node_input in graph.inputs(node_id) if names else ():
                if node_input.name in names:
                    yield node_input


def _matching_names(class_type: str, specs: Mapping[str, InputSpec], matches: _Matches) -> set[str]:
    return {name for name, spec in specs.items() if matches(class_type, spec)}


def _names_a_file(class_type: str, spec: InputSpec) -> bool:
    is_recorded = spec.type in RECORDED and not _is_a_view(class_type, spec)
    return spec.is_upload or is_recorded or (class_type, spec.name) == LATENT


def _is_a_view(_class_type: str, spec: InputSpec) -> bool:
    return (spec.type, spec.name.rpartition(".")[2]) == VIEW


def _is_a_choice(class_type: str, spec: InputSpec) -> bool:
    return spec.choices is not None and not _names_a_file(class_type, spec)


def _names_a_path(_class_type: str, spec: InputSpec) -> bool:
    takes_text = "STRING" in spec.types and not spec.is_upload and not spec.options.get("multiline")
    is_path = bool(PATH_NAME.search(spec.name)) or any("path" in word for word in spec.options)
    return takes_text and is_path and spec.name.rpartition(".")[2] not in OUTPUT_NAMES


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value.

    ComfyUI unwraps ``{"__value__": ...}``, and a recorder holds an object of names.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _file_names(value: Any) -> Iterator[str]:
    """Yield every text that names a file; of where a camera stands, only those that climb."""
    if not isinstance(value, dict):
        yield from _texts(value)
        return
    for key, part in value.items():
        if key in VIEW_KEYS:
            yield from filter(climbs, _texts(part))
        elif key != "recording" or part != "":
            yield from _file_names(part)


def _computed(node_input: Input) -> InvalidValue:
    return InvalidValue(
        f"input {node_input.name} of node {node_input.node_id} names a file, but another node "
        "computes it; write the file's name into this input",
        [{"node_id": node_input.node_id, "input": node_input.name}],
    )


def _refused(graph: TypedWorkflow, node_input: Input, name: str, why: str) -> InvalidValue:
    shown = name if len(name) <= 60 else name[:57] + "..."
    class_type = graph.workflow[node_input.node_id]["class_type"]
    return InvalidValue(
        f"input {node_input.name} of node {node_input.node_id} ({class_type}) "
        f"names '{shown}', {why}",
        [{"node_id": node_input.node_id, "input": node_input.name, "given": shown}],
    )
