"""Checks a workflow against what this ComfyUI has, and finds every reason for which it would be refused.

The rules are those of ``validate_prompt`` in ComfyUI's ``execution.py``. No file is looked at: which input files
are there, and where models can be got, is passed in. The check is stricter than ComfyUI where ComfyUI would queue
a workflow only to fail: for a missing model file that stands in a list of the newer form, for an output that
ComfyUI would drop, and for a broken link in an input that its class does not declare.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from comfy_common.placeholder_names import real_files
from comfy_worker.errors import InputError, InvalidMedia, InvalidWorkflow, ModelNotFound, NodeNotInstalled, brief
from comfy_worker.nearest import MAX_HINTS, nearest
from comfy_worker.workflow.check.links import LinkFault, LinkWalk, link_faults, unwrapped
from comfy_worker.workflow.graph import Input, Need, Workflow, title_of
from comfy_worker.workflow.model_files import Sources, find_need
from comfy_worker.workflow.model_names import FOLDERS, is_model, nearest_files
from comfy_worker.workflow.node_defs import Absence, InputSpec, NodeDefs

__all__ = ["Checked", "Finding", "broken_links", "check", "is_stale", "refusal"]

# Looking a class up reads the sources of packs.
MAX_EXPLAINED = 10
# How many of the installed files an error names.
MAX_SHOWN = 8
# A client reads the first few; what is sent has to stay small.
MAX_FINDINGS = 100
MAX_WARNINGS = 50
TEXT_LENGTH = 200
LINK_TYPES = {
    "bad_linked_input",
    "bad_output_slot",
    "cycle",
    "dangling_link",
    "hidden_link",
}
CONVERSIONS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}

Finding = dict[str, Any]
# What each finding says of the node that it is about.
WHERE = ("node_id", "title", "class_type", "input", "given")


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        findings: each with ``node_id``, ``title``, ``class_type``, ``input``, ``given``, ``type`` (ComfyUI's word
            where it has one), ``problem`` and ``would_do``; for a model file ``folder``, ``nearest``, ``url``,
            ``in_models_txt`` and ``looked_in`` too, for an unknown class ``nearest`` and ``pack``. Of many only
            the first are kept, and the last one, of type ``more``, counts the rest.
        warnings: sentences on what is strange and is no reason to refuse.
    """

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]


def check(workflow: Workflow, defs: NodeDefs, sources: Sources) -> Checked:
    """Check a workflow.

    Args:
        workflow: as it would be queued.
        defs: the classes that this ComfyUI has, with the files that they list.
        sources: what else is known.
    """
    checker = _Checker(workflow, defs, sources)
    findings = _first(checker.findings())
    return Checked(findings, tuple(itertools.islice(checker.warnings(), MAX_WARNINGS)))


def _first(findings: Iterator[Finding]) -> tuple[Finding, ...]:
    """The first findings, and one that counts those that are left out."""
    kept = list(itertools.islice(findings, MAX_FINDINGS))
    left_out = sum(1 for _ in findings)
    if left_out:
        rest = _Problem("more", f"{left_out} further problems were found", "mend those that are listed first")
        kept.append({**dict.fromkeys(WHERE), **rest.finding})
    return tuple(kept)


def broken_links(workflow: Workflow, defs: NodeDefs, sources: Sources) -> list[Finding]:
    """The findings about links alone.

    A broken link is the cause of much that goes wrong later, such as a sampler without a prompt, so it has to be
    told before any of that.
    """
    checker = _Checker(workflow, defs, sources)
    return list(_first(finding for finding in checker.findings() if finding["type"] in LINK_TYPES))


def is_stale(findings: Iterable[Finding]) -> bool:
    """Whether one of the findings may be gone once the lists of files are read anew."""
    return any(finding["type"] in ("missing_model", "value_not_in_list") for finding in findings)


def refusal(findings: Iterable[Finding]) -> InputError:
    """The error for findings, at least one: its code is that of the gravest kind, its details are all of them."""
    details = list(findings)
    kinds = {finding["type"] for finding in details} - {"more"}
    gravest: str = details[0]["type"]
    error: type[InputError] = InvalidWorkflow
    if "unknown_class" in kinds:
        gravest, error = "unknown_class", NodeNotInstalled
    elif kinds == {"missing_input_file"}:
        error = InvalidMedia
    elif kinds <= {"missing_model", "missing_input_file"}:
        gravest, error = "missing_model", ModelNotFound
    first = next(finding for finding in details if finding["type"] == gravest)
    where = "" if first["node_id"] is None else f"node {first['node_id']} ({brief(first['title'])}): "
    more = f" ({len(details) - 1} more in the details)" if len(details) > 1 else ""
    if details[-1]["type"] == "more":
        more = f" ({details[-1]['problem']})"
    return error(f"{where}{first['problem']}; {first['would_do']}{more}", details)


class _Problem(Exception):
    """What is wrong with one input."""

    def __init__(self, kind: str, problem: str, would_do: str, **facts: Any) -> None:
        super().__init__(problem)
        self.finding = {"type": kind, "problem": problem, "would_do": would_do, **facts}


class _Checker:
    def __init__(self, workflow: Workflow, defs: NodeDefs, sources: Sources) -> None:
        self._workflow = workflow
        self._defs = defs
        self._sources = sources
        self._walk = LinkWalk(workflow, defs)
        self._live = self._walk.live
        self._faults: dict[str, dict[str, LinkFault]] = {}
        for fault in link_faults(workflow, defs, self._walk):
            self._faults.setdefault(fault.input.node_id, {})[fault.input.name] = fault
        self._explained: dict[str, Absence | None] = {}
        self._near: dict[tuple[str, str], list[str]] = {}

    def findings(self) -> Iterator[Finding]:
        """All that is a reason to refuse."""
        unknown = [node_id for node_id, node in self._workflow.items() if node["class_type"] not in self._defs]
        for node_id in unknown:
            yield self._finding(node_id, None, None, self._unknown_class(self._workflow[node_id]["class_type"]))
        if not unknown and not self._live:
            would_do = "end it in a node such as SaveImage"
            nothing = dict.fromkeys(WHERE)
            yield {**nothing, **_Problem("no_output", "the workflow has no output node", would_do).finding}
        for node_id in self._workflow:
            specs = self._specs(node_id) if node_id in self._live else []
            for spec in specs:
                yield from self._findings_at(node_id, spec)
            # Inputs that the class does not declare, and those of a node that no output needs.
            looked_at = {spec.name for spec in specs}
            for name, fault in self._faults.get(node_id, {}).items():
                if name not in looked_at:
                    problem = _Problem(fault.type, fault.problem, fault.would_do)
                    yield self._finding(node_id, name, self._workflow[node_id]["inputs"][name], problem)

    def warnings(self) -> Iterator[str]:
        """What is strange."""
        known = [node_id for node_id, node in self._workflow.items() if node["class_type"] in self._defs]
        idle = [node_id for node_id in known if node_id not in self._live] if self._live else []
        if idle:
            shown = ", ".join(f"{node_id} ({title_of(self._workflow, node_id)})" for node_id in idle[:5])
            more = f" and {len(idle) - 5} more" if len(idle) > 5 else ""
            yield f"no output needs node {shown}{more}: ComfyUI will not run what no output needs"
        for node_id in self._live:
            for spec in self._specs(node_id):
                value = self._workflow[node_id]["inputs"].get(spec.name)
                is_free = spec.choices is None or spec.is_listed or spec.is_validated or not isinstance(value, str)
                if not is_free and value not in (spec.choices or ()) and not is_model(value):
                    title = title_of(self._workflow, node_id)
                    yield f"{spec.name} of node {node_id} ({title}) is {_shown(value)}, none of its choices"

    def _findings_at(self, node_id: str, spec: InputSpec) -> Iterator[Finding]:
        try:
            self._look_at(node_id, spec)
        except _Problem as problem:
            yield self._finding(node_id, spec.name, self._workflow[node_id]["inputs"].get(spec.name), problem)

    def _finding(self, node_id: str, name: str | None, given: Any, problem: _Problem) -> Finding:
        title, class_type = title_of(self._workflow, node_id), self._workflow[node_id]["class_type"]
        where = {
            "node_id": brief(node_id, TEXT_LENGTH),
            "title": brief(title, TEXT_LENGTH),
            "class_type": brief(class_type, TEXT_LENGTH),
            "input": name if name is None else brief(name, TEXT_LENGTH),
            "given": _small(given),
        }
        return {**where, **problem.finding}

    def _specs(self, node_id: str) -> list[InputSpec]:
        declared = self._defs.get(self._workflow[node_id]["class_type"])
        return list(declared.inputs.values()) if declared else []

    def _is_there(self, node_id: Any) -> bool:
        return isinstance(node_id, str) and node_id in self._workflow

    def _look_at(self, node_id: str, spec: InputSpec) -> None:
        node = self._workflow[node_id]
        if spec.name in node["inputs"]:
            value = node["inputs"][spec.name]
            fault = self._faults.get(node_id, {}).get(spec.name)
            if fault is not None and fault.type == "hidden_link":
                raise _Problem(fault.type, fault.problem, fault.would_do)
            if isinstance(value, list):
                self._look_at_link(node_id, spec, value)
            else:
                self._look_at_value(node["class_type"], spec, value)
        elif spec.required:
            would_do = f"give it a {spec.type}" if spec.is_widget else f"link a {spec.type} to it"
            raise _Problem("required_input_missing", f"{spec.name} is missing", would_do)

    def _look_at_link(self, node_id: str, spec: InputSpec, value: list[Any]) -> None:
        would_do = f"link it to an output of type {spec.type}"
        if len(value) != 2:
            problem = f"{spec.name} is a list that is no link"
            raise _Problem("bad_linked_input", problem, "write a link as [node_id, slot]")
        above, slot = value
        if not self._is_there(above):
            raise _Problem(
                "dangling_link",
                f"{spec.name} is linked to node {_shown(above)}, which is not there",
                would_do,
            )
        if Input(node_id, spec.name) in self._walk.circles:
            raise _Problem("cycle", f"{spec.name} closes a circle of links", "cut one of them")
        source = self._defs.get(self._workflow[above]["class_type"])
        if source is None:
            return  # a finding of its own
        if not isinstance(slot, int) or not -len(source.outputs) <= slot < len(source.outputs):
            has = ", ".join(f"{number} ({kind})" for number, kind in enumerate(source.outputs)) or "none"
            problem = f"{spec.name} is linked to output {_shown(slot)} of node {above}, which it lacks"
            raise _Problem("bad_output_slot", problem, f"the outputs of {source.name} are {has}")
        given, wanted = source.outputs[slot], str(list(spec.choices or ())) if spec.is_listed else spec.type
        if not self._defs[self._workflow[node_id]["class_type"]].takes_any_link and not _fits(given, wanted):
            problem = (
                f"{spec.name} is linked to output {slot} of node {above} ({source.name}), which gives {given}"
            )
            raise _Problem("return_type_mismatch", problem, would_do)

    def _look_at_value(self, class_type: str, spec: InputSpec, value: Any) -> None:
        value = unwrapped(value)
        try:
            value = CONVERSIONS[spec.type](value) if spec.type in CONVERSIONS else value
            outside = None if spec.is_validated else _outside(spec, value)
        except (TypeError, ValueError, OverflowError):
            problem = f"{spec.name} must be of type {spec.type}, not {_shown(value)}"
            raise _Problem("invalid_input_type", problem, f"give it a {spec.type}") from None
        if outside is not None:
            raise outside
        if spec.is_validated:
            # What the class says of other inputs only ComfyUI can ask it.
            if spec.is_upload or class_type == "LoadLatent":
                self._look_at_input_file(spec, value)
        elif spec.choices is not None and value not in spec.choices:
            if is_model(value):
                raise self._missing_model(class_type, spec, value)
            if spec.is_listed:
                near = self._near_to(str(value), spec.name, spec.choices)
                use = " or ".join(near or [str(choice) for choice in spec.choices[:8]])
                problem = f"{spec.name} {_shown(value)} is none of its choices"
                raise _Problem("value_not_in_list", problem, f"use {use or 'another node'}")

    def _look_at_input_file(self, spec: InputSpec, value: Any) -> None:
        if not isinstance(value, str) or not (value in (spec.choices or ()) or self._sources.has_input(value)):
            problem = f"{spec.name} names the input file {_shown(value)}, which is not there"
            raise _Problem("missing_input_file", problem, "send it with the job")

    def _missing_model(self, class_type: str, spec: InputSpec, value: str) -> _Problem:
        file = value.replace("\\", "/")
        need = find_need(class_type, spec.name, file, self._sources)
        near = self._near.get((spec.name, value), [])
        if not near and len(self._near) < MAX_HINTS:
            near = nearest_files(value, [str(choice) for choice in spec.choices or ()])
            self._near[spec.name, value] = near
        listed = f"{need.folder}/{file}" in self._sources.listed
        ways = [*self._ways_of_client(need, near, spec), self._way_of_operator(need)]
        searched = list(self._sources.searched(need.folder))
        problem = f"{spec.name} {_shown(value)} is not installed"
        problem += f" (looked in {', '.join(searched)})" if searched else ""
        facts = {"folder": need.folder, "nearest": near, "url": need.url, "in_models_txt": listed}
        facts["looked_in"] = searched
        return _Problem("missing_model", problem, ", or ".join(ways), **facts)

    def _ways_of_client(self, need: Need, near: list[str], spec: InputSpec) -> Iterator[str]:
        """What a client can do about a missing model file."""
        is_checkpoint = need.folder == FOLDERS["checkpoint"]
        installed = real_files(str(choice) for choice in spec.choices or ())
        if near:
            yield f"name one that is there, such as {', '.join(near)}"
        elif installed:
            more = f" and {len(installed) - MAX_SHOWN} more" if len(installed) > MAX_SHOWN else ""
            by_key = " as `checkpoint`" if is_checkpoint else ""
            yield f"name an installed one{by_key}: {', '.join(installed[:MAX_SHOWN])}{more}"
        if self._sources.accepts_urls:
            yield "give its URL"

    def _way_of_operator(self, need: Need) -> str:
        """What the operator can do about it."""
        where = f"models/{need.folder}" if need.folder else "its folder under models"
        name = self._sources.commands.get(f"{need.folder}/{need.file}")
        source = f", from {need.url}" if need.url else ""
        way = f"put it into {where}{source}"
        if name:
            way = f"run `python3 -m comfy_setup models --only {name}`"
        if self._sources.has_default and need.folder == FOLDERS["checkpoint"]:
            way += " or to set SD_MODEL to an installed one"
        return f"ask the operator to {way}"

    def _near_to(self, name: str, where: str, known: Iterable[Any]) -> list[str]:
        """The known names that are near one; none after many searches."""
        key = (where, name)
        if key not in self._near and len(self._near) < MAX_HINTS:
            self._near[key] = nearest(name, map(str, known))
        return self._near.get(key, [])

    def _unknown_class(self, class_type: str) -> _Problem:
        near = self._near_to(class_type, "", self._defs)
        pack = self._sources.packs.get(class_type)
        if class_type not in self._explained and len(self._explained) < MAX_EXPLAINED:
            self._explained[class_type] = self._sources.explain(class_type)
        if absence := self._explained.get(class_type):
            problem = f"this ComfyUI has no {brief(class_type, TEXT_LENGTH)}: {absence.why}"
            return _Problem("unknown_class", problem, absence.would_do, nearest=near, pack=absence.pack or pack)
        would_do = f"install the node pack {pack}" if pack else "install the node pack that brings it"
        would_do += f", or use {' or '.join(near)}" if near else ""
        problem = f"this ComfyUI has no {brief(class_type, TEXT_LENGTH)}"
        return _Problem("unknown_class", problem, would_do, nearest=near, pack=pack)


def _fits(given: str, wanted: str) -> bool:
    """Whether ComfyUI lets an output of one type into an input of another (``validate_node_input``)."""
    if given == wanted or "*" in (given, wanted):
        return True
    if given.startswith("[") or wanted.startswith("["):
        return False  # a list of choices fits none but the same
    return not {word.strip() for word in given.split(",")}.isdisjoint(word.strip() for word in wanted.split(","))


def _outside(spec: InputSpec, value: Any) -> _Problem | None:
    low, high = spec.options.get("min"), spec.options.get("max")
    if low is not None and value < low:
        return _Problem(
            "value_smaller_than_min", f"{spec.name} {_shown(value)} is too small", f"use {low} or more"
        )
    if high is not None and value > high:
        return _Problem(
            "value_bigger_than_max", f"{spec.name} {_shown(value)} is too large", f"use {high} or less"
        )
    return None


def _shown(value: Any) -> str:
    return brief(repr(value), 120)


def _small(value: Any) -> Any:
    """A client's value as a finding repeats it: itself where it is short."""
    if isinstance(value, str):
        return brief(value, TEXT_LENGTH)
    if isinstance(value, (dict, list)):
        text = repr(value)
        return value if len(text) <= TEXT_LENGTH else brief(text, TEXT_LENGTH)
    return value
