"""Checks a workflow before it is queued, and finds every reason for which it would be refused.

ComfyUI decides about types, ranges and choices: its validation is called through ``validate``, and its errors
are translated. Added is what ComfyUI cannot say, and what it would queue only to fail: an unknown class, a
missing model in a list that it does not check, a broken link in an input that the class does not declare.
Without a running ComfyUI the declarations alone are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_worker.errors import (
    InputError,
    InvalidMedia,
    InvalidWorkflow,
    ModelNotFound,
    NodeNotInstalled,
    WorkflowRefused,
    brief,
)
from comfy_worker.workflow.check.comfyui_errors import Translator
from comfy_worker.workflow.check.declared_rules import DeclaredRules
from comfy_worker.workflow.check.links import LinkFault, LinkWalk, link_faults, unwrapped
from comfy_worker.workflow.check.problems import (
    Finding,
    Problem,
    finding_at,
    finding_of_workflow,
    shown,
)
from comfy_worker.workflow.check.remedies import Remedies
from comfy_worker.workflow.graph import Workflow, title_of
from comfy_worker.workflow.model_files import CheckContext
from comfy_worker.workflow.model_names import is_model
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs

__all__ = ["Checked", "Finding", "Validate", "broken_links", "check", "is_stale", "refusal"]

# Asks ComfyUI what is wrong with a workflow: ``{"error", "node_errors"}`` in the form of a refused
# ``POST /prompt``, both empty where it accepts the workflow; None where it cannot be asked.
Validate = Callable[[Workflow], "Mapping[str, Any] | None"]

# A client reads the first few; what is sent has to stay small.
MAX_FINDINGS = 100
MAX_WARNINGS = 50
# So many nodes are named in a warning.
MAX_NAMED = 5


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


def check(
    workflow: Workflow, defs: NodeDefs, sources: CheckContext, validate: Validate | None = None
) -> Checked:
    """Check a workflow.

    Args:
        workflow: as it would be queued.
        defs: the classes that this ComfyUI has, with the files that they list.
        sources: what else is known.
        validate: asks ComfyUI; None: the declarations alone are read, which find less.
    """
    checker = _Checker(workflow, defs, sources)
    findings = _first(checker.findings(validate))
    return Checked(findings, tuple(itertools.islice(checker.warnings(), MAX_WARNINGS)))


def _first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The first findings, and one that counts those that are left out."""
    remaining = iter(findings)
    kept = list(itertools.islice(remaining, MAX_FINDINGS))
    left_out = sum(1 for _ in remaining)
    if left_out:
        rest = Problem(
            "more", f"{left_out} further problems were found", "mend those that are listed first"
        )
        kept.append(finding_of_workflow(rest))
    return tuple(kept)


def broken_links(workflow: Workflow, defs: NodeDefs) -> list[Finding]:
    """The findings about links alone.

    A broken link is the cause of much that goes wrong later, such as a sampler without a prompt, so it has to be
    reported before any of that.
    """
    return list(_first(_link_finding(workflow, fault) for fault in link_faults(workflow, defs)))


def _link_finding(workflow: Workflow, fault: LinkFault) -> Finding:
    return finding_at(workflow, fault.input.node_id, fault.input.name, _link_problem(fault))


def _link_problem(fault: LinkFault) -> Problem:
    return Problem(fault.type, fault.problem, fault.would_do)


def is_stale(findings: Iterable[Finding]) -> bool:
    """Whether one of the findings may be gone once the lists of files are read again."""
    return any(finding["type"] in ("missing_model", "value_not_in_list") for finding in findings)


def refusal(findings: Iterable[Finding]) -> InputError | WorkflowRefused:
    """The error for findings, at least one: its code is that of the gravest type, its details are all of them."""
    details = list(findings)
    types = {finding["type"] for finding in details} - {"more"}
    gravest: str = details[0]["type"]
    error: type[InputError | WorkflowRefused] = InvalidWorkflow
    if "unknown_class" in types:
        gravest, error = "unknown_class", NodeNotInstalled
    elif types == {"missing_input_file"}:
        error = InvalidMedia
    elif types <= {"missing_model", "missing_input_file"}:
        gravest, error = "missing_model", ModelNotFound
    elif types == {"custom_validation_failed"}:
        error = WorkflowRefused  # a node's own rule: only that node knows what it takes
    first = next(finding for finding in details if finding["type"] == gravest)
    where = (
        "" if first["node_id"] is None else f"node {first['node_id']} ({brief(first['title'])}): "
    )
    more = f" ({len(details) - 1} more in the details)" if len(details) > 1 else ""
    if details[-1]["type"] == "more":
        more = f" ({details[-1]['problem']})"
    return error(f"{where}{first['problem']}; {first['would_do']}{more}", details)


class _Checker:
    def __init__(self, workflow: Workflow, defs: NodeDefs, sources: CheckContext) -> None:
        self._workflow = workflow
        self._defs = defs
        self._sources = sources
        self._remedies = Remedies(defs, sources)
        self._walk = LinkWalk(workflow, defs)
        self._live = self._walk.live
        self._specs: dict[str, list[InputSpec]] = {
            node_id: self._specs_of(node_id) for node_id in self._live
        }
        # By node, what is wrong with each input; the first that is found counts.
        self._problems: dict[str, dict[str | None, Problem]] = {}

    def findings(self, validate: Validate | None) -> Iterator[Finding]:
        """All that is a reason to refuse."""
        unknown = [
            node_id
            for node_id, node in self._workflow.items()
            if node["class_type"] not in self._defs
        ]
        for node_id in unknown:
            problem = self._remedies.unknown_class(self._workflow[node_id]["class_type"])
            yield finding_at(self._workflow, node_id, None, problem)
        if not unknown and not self._live:
            would_do = "end it in a node such as SaveImage"
            yield finding_of_workflow(
                Problem("no_output", "the workflow has no output node", would_do)
            )
            return
        self._find_broken_links()
        self._find_missing_choices()
        answer = validate(self._workflow) if validate is not None and self._live else None
        if answer is None:
            self._find_by_declarations()
        else:
            whole = self._find_by_comfyui(answer)
            if whole is not None and not unknown and not self._problems:
                yield finding_of_workflow(whole)
        for node_id, problems in self._in_order():
            for name, problem in problems:
                yield finding_at(self._workflow, node_id, name, problem)

    def _in_order(self) -> Iterator[tuple[str, list[tuple[str | None, Problem]]]]:
        """The problems in the order of the nodes, and of the inputs that their classes declare."""
        for node_id in self._workflow:
            problems = self._problems.get(node_id, {})
            declared = [spec.name for spec in self._specs.get(node_id, ())]
            order: dict[str | None, None] = dict.fromkeys([*declared, *problems])
            yield node_id, [(name, problems[name]) for name in order if name in problems]

    def _note(self, node_id: str, name: str | None, problem: Problem) -> None:
        self._problems.setdefault(node_id, {}).setdefault(name, problem)

    def _find_broken_links(self) -> None:
        for fault in link_faults(self._workflow, self._defs, self._walk):
            self._note(fault.input.node_id, fault.input.name, _link_problem(fault))

    def _find_missing_choices(self) -> None:
        """Find model files that are not installed, and dynamic choices that do not exist.

        ComfyUI 0.3.75 does not check lists of the newer form, and 0.33 no dynamic choice: a node would fail.
        """
        for node_id, specs in self._specs.items():
            node = self._workflow[node_id]
            for spec in specs:
                value = unwrapped(node["inputs"].get(spec.name))
                if not _is_missing_choice(spec, value):
                    continue
                if is_model(value):
                    problem = self._remedies.missing_model(node["class_type"], spec, value)
                    self._note(node_id, spec.name, problem)
                elif spec.branches and spec.required:
                    self._note(node_id, spec.name, self._remedies.missing_choice(spec, value))

    def _find_by_declarations(self) -> None:
        rules = DeclaredRules(self._workflow, self._defs, self._sources, self._remedies)
        for node_id in self._live:
            for name, problem in rules.problems(node_id):
                self._note(node_id, name, problem)

    def _find_by_comfyui(self, answer: Mapping[str, Any]) -> Problem | None:
        """Note what ComfyUI finds; the problem that it has with the workflow itself, if it has one."""
        translator = Translator(self._workflow, self._defs, self._remedies)
        for node_id, entry in (answer.get("node_errors") or {}).items():
            if node_id in self._workflow:
                for name, problem in translator.problems(
                    node_id, entry.get("errors") or []
                ).items():
                    self._note(node_id, name, problem)
        error = answer.get("error")
        return translator.of_workflow(error) if error else None

    def warnings(self) -> Iterator[str]:
        """What is strange."""
        known = [
            node_id for node_id, node in self._workflow.items() if node["class_type"] in self._defs
        ]
        idle = [node_id for node_id in known if node_id not in self._live] if self._live else []
        if idle:
            named = ", ".join(
                f"{node_id} ({title_of(self._workflow, node_id)})" for node_id in idle[:MAX_NAMED]
            )
            more = f" and {len(idle) - MAX_NAMED} more" if len(idle) > MAX_NAMED else ""
            yield f"no output needs node {named}{more}: ComfyUI will not run what no output needs"
        for node_id, specs in self._specs.items():
            refused = self._problems.get(node_id, {})
            for spec in specs:
                value = self._workflow[node_id]["inputs"].get(spec.name)
                is_text = isinstance(value, str)
                if is_text and spec.name not in refused and _is_missing_choice(spec, value):
                    title = title_of(self._workflow, node_id)
                    yield f"{spec.name} of node {node_id} ({title}) is {shown(value)}, none of its choices"

    def _specs_of(self, node_id: str) -> list[InputSpec]:
        node = self._workflow[node_id]
        declared = self._defs.get(node["class_type"])
        return list(declared.live_inputs(node["inputs"]).values()) if declared else []


def _is_missing_choice(spec: InputSpec, value: Any) -> bool:
    """Whether a literal is none of the choices that an input has."""
    is_open = spec.choices is None or spec.has_custom_validation or spec.is_remote
    is_literal = value is not None and not isinstance(value, list)
    return not is_open and is_literal and value not in (spec.choices or ())
