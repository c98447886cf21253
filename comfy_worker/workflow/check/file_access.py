"""Checks that a workflow reads only the files that came with its job.

ComfyUI itself accepts ``../``, absolute paths and the files of other jobs. The declaration of an
input tells whether it names a file. Output paths are checked in
:mod:`~comfy_worker.workflow.isolate`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from comfy_worker.errors import InvalidValue
from comfy_worker.workflow.check.problems import Problem
from comfy_worker.workflow.graph import Input, Workflow, ancestors
from comfy_worker.workflow.literals import resolve_literal
from comfy_worker.workflow.model_names import is_model
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["FileFault", "check_paths", "climbs", "file_faults", "file_inputs", "refuse"]

# The editor's own recorders. Their inputs hold the names of files that the editor uploaded.
RECORDED = {"LOAD_3D", "WEBCAM", "AUDIO_RECORD"}
# An input of such a type that holds where the camera stands; its names of files are not read.
VIEW = ("LOAD_3D", "viewport_state")
_Matches = Callable[[str, InputSpec], bool]
_FindsFaults = Callable[[Input], Iterable["FileFault"]]
# Keys of what the editor records of a 3D model that hold no names of files.
VIEW_KEYS = {"camera_info", "model_3d_info"}
# An input that names a file, although it is declared like any other choice.
LATENT = ("LoadLatent", "latent")
PATH_NAME = re.compile(r"(^|[_.])(file|filename|path|folder|dir|directory)([_.]|$)", re.IGNORECASE)
OUTPUT_NAMES = {"filename_prefix", "folder_name", "output_path"}
# What can be wrong with the name of a file.
NOT_SENT = Problem(
    "missing_input_file", "a file that was not sent", "send it as `image` or in `images`"
)
LEADS_OUT = Problem("forbidden_path", "which leads out of its folder", "name one below it")
NOT_A_CHOICE = Problem("value_not_in_list", "which is none of its choices", "name one of them")
COMPUTED = Problem(
    "computed_path",
    "names a file, but another node computes it",
    "write the file's name into this input",
)
# The name of a job's folder.
JOB_FOLDER = re.compile(r"[0-9a-f]{32}(/|$)")


def climbs(path: str) -> bool:
    """Return whether a path is absolute, or leads out of its folder with ``..``."""
    return path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/")


@dataclass(frozen=True)
class FileFault:
    """An input through which a workflow would read a file that is not the job's.

    Attributes:
        node_input: the input.
        class_type: the class of its node.
        problem: what is wrong, under ComfyUI's name if it has one, and what to do.
        file_name: the name of the file, shortened; None if it is computed.
    """

    node_input: Input
    class_type: str
    problem: Problem
    file_name: str | None = None

    def sentence(self) -> str:
        """Describe the fault for an error."""
        node_id, name = self.node_input
        where = f"input {name} of node {node_id} ({self.class_type})"
        return f"{where} {self.problem.problem}; {self.problem.would_do}"

    def detail(self) -> dict[str, Any]:
        """Return the entry of an error's details."""
        detail = {"node_id": self.node_input.node_id, "input": self.node_input.name}
        return detail if self.file_name is None else {**detail, "given": self.file_name}


def file_inputs(workflow: Workflow, defs: NodeDefs, outputs: Iterable[str]) -> list[Input]:
    """Find the inputs that hold the names of input files. A name that is computed is left out.

    They belong to nodes such as LoadImage, or to a primitive that is linked to them.

    Args:
        workflow: API format.
        defs: the node classes of this ComfyUI.
        outputs: the output nodes. ComfyUI runs only what feeds them, so only that is checked.
    """
    live = _LiveInputs(TypedWorkflow(workflow, defs), outputs)
    found = (resolve_literal(live.graph, at) for at in live.matching(_names_a_file))
    return [literal for literal in found if literal is not None]


def file_faults(
    workflow: Workflow, defs: NodeDefs, outputs: Iterable[str], ours: Set[str]
) -> list[FileFault]:
    """Find the inputs through which a workflow would read other files than the job's.

    Args:
        workflow: API format, filled.
        defs: the node classes of this ComfyUI.
        outputs: the output nodes.
        ours: the job's files, as ``LoadImage`` names them.
    """
    graph = TypedWorkflow(workflow, defs)
    live = _LiveInputs(graph, outputs)
    checks: tuple[tuple[_Matches, _FindsFaults], ...] = (
        (_names_a_file, lambda at: _faults_of_file(graph, at, ours)),
        (_is_a_choice, lambda at: _faults_of_choice(graph, at, ours)),
        (_names_a_path, lambda at: _faults_of_path(graph, at)),
        (_is_a_view, lambda at: _faults_of_view(graph, at)),
    )
    faults: dict[Input, FileFault] = {}
    for matches, find in checks:
        for node_input in live.matching(matches):
            for fault in find(node_input):
                faults.setdefault(fault.node_input, fault)
    return list(faults.values())


def check_paths(workflow: Workflow, defs: NodeDefs, outputs: Iterable[str], ours: Set[str]) -> None:
    """Check that a workflow reads only files that came with the job.

    Args:
        workflow: API format, filled.
        defs: the node classes of this ComfyUI.
        outputs: the output nodes.
        ours: the job's files, as ``LoadImage`` names them.

    Raises:
        InvalidValue: files were not sent, or a path is absolute or contains ``..``, or a name is
            computed. The details list all of them.
    """
    refuse(file_faults(workflow, defs, outputs, ours))


def refuse(faults: Sequence[FileFault]) -> None:
    """Raise the error of :func:`check_paths` if there are faults."""
    if faults:
        more = f" ({len(faults) - 1} more in the details)" if len(faults) > 1 else ""
        raise InvalidValue(faults[0].sentence() + more, [fault.detail() for fault in faults])


def _faults_of_file(graph: TypedWorkflow, node_input: Input, ours: Set[str]) -> Iterator[FileFault]:
    literal = resolve_literal(graph, node_input)
    if literal is None:
        yield _computed_fault(graph, node_input)
        return
    for name in _file_names(graph.value(literal)):
        if name not in ours and not _is_blank_drawing(graph, literal, name):
            yield _named_fault(graph, literal, name, NOT_SENT)


def _faults_of_path(graph: TypedWorkflow, node_input: Input) -> Iterator[FileFault]:
    """Find a path that leads out of its folder.

    The path of an output node may be computed: it is only written to.
    """
    literal = resolve_literal(graph, node_input)
    declared = graph.declared(node_input.node_id)
    is_output = declared is not None and declared.is_output
    if literal is None and not is_output:
        yield _computed_fault(graph, node_input)
        return
    for path in _texts(graph.value(literal or node_input)):
        # `.` is the folder with the files of all jobs.
        is_shared = path != "" and not path.strip("./\\")
        if climbs(path) or is_shared:
            yield _named_fault(graph, node_input, path, LEADS_OUT)


def _faults_of_view(graph: TypedWorkflow, node_input: Input) -> Iterator[FileFault]:
    """Find a path that leads out of its folder, although nothing reads it."""
    for text in _texts(graph.value(node_input)):
        if climbs(text):
            yield _named_fault(graph, node_input, text, LEADS_OUT)


def _is_blank_drawing(graph: TypedWorkflow, node_input: Input, name: str) -> bool:
    """Return whether an input is a canvas of the editor in which nothing was drawn."""
    spec = graph.spec(node_input)
    return name == "" and spec is not None and spec.is_upload and spec.type == "STRING"


def _faults_of_choice(
    graph: TypedWorkflow, node_input: Input, ours: Set[str]
) -> Iterator[FileFault]:
    """Check a choice of a list, which may contain the folders of other jobs.

    ComfyUI 0.3.75 accepts any text if the list has the newer form.
    """
    spec, literal = graph.spec(node_input), resolve_literal(graph, node_input)
    is_path = bool(PATH_NAME.search(node_input.name))
    if literal is None and is_path:
        yield _computed_fault(graph, node_input)
        return
    choices = spec.choices if spec is not None and spec.choices else ()
    for name in _texts(graph.value(literal or node_input)):
        if name not in ours and _is_foreign(name, choices, is_path=is_path):
            yield _named_fault(graph, node_input, name, NOT_A_CHOICE)


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


def _computed_fault(graph: TypedWorkflow, node_input: Input) -> FileFault:
    return FileFault(node_input, graph.class_type(node_input.node_id), COMPUTED)


def _named_fault(graph: TypedWorkflow, node_input: Input, name: str, reason: Problem) -> FileFault:
    shown = name if len(name) <= 60 else name[:57] + "..."
    problem = replace(reason, problem=f"names '{shown}', {reason.problem}")
    return FileFault(node_input, graph.class_type(node_input.node_id), problem, shown)
