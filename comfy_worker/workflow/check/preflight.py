"""Checks a workflow before it is queued, and finds every reason why it would fail.

ComfyUI decides about types, ranges and choices: its validation is called through ``validate``, and
its errors are translated. This module adds what ComfyUI does not report, or would queue and then
fail: an unknown class, a missing model in a list that ComfyUI does not check, a broken link in an
input that the class does not declare. Without a running ComfyUI, only the declarations are read.
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
    NO_OUTPUT,
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

# Asks ComfyUI what is wrong with a workflow. Returns ``{"error", "node_errors"}`` as a refused
# ``POST /prompt`` does, both empty if ComfyUI accepts the workflow; None if ComfyUI cannot answer.
Validate = Callable[[Workflow], "Mapping[str, Any] | None"]

# A client reads the first few, and the response must stay small.
MAX_FINDINGS = 100
MAX_WARNINGS = 50
# How many nodes a warning names.
MAX_NAMED = 5


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
        findings: the reasons to refuse the workflow. Each has ``node_id``, ``title``,
            ``class_type``, ``input``, ``given``, ``type`` (ComfyUI's name if it has one),
            ``problem`` and ``would_do``. One for a model file also has ``folder``, ``nearest``,
            ``url``, ``in_models_txt`` and ``looked_in``; one for an unknown class ``nearest`` and
            ``pack``. If there are many, only the first are kept, and a last one of type ``more``
            counts the others.
        warnings: sentences about what looks wrong but is no reason to refuse.
    """

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]


def check(
    workflow: Workflow, defs: NodeDefs, context: CheckContext, validate: Validate | None = None
) -> Checked:
    """Check a workflow.

    Args:
        workflow: as it would be queued.
        defs: the node classes of this ComfyUI, with the files that they list.
        context: what else is known.
        validate: asks ComfyUI; None: only the declarations are read, which finds less.
    """
    checker = _Checker(workflow, defs, context)
    findings = _first(checker.findings(validate))
    return Checked(findings, tuple(itertools.islice(checker.warnings(), MAX_WARNINGS)))


def _first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the first findings, and one that counts the others."""
    remaining = iter(findings)
    kept = list(itertools.islice(remaining, MAX_FINDINGS))
    left_out = sum(1 for _ in remaining)
    if left_out:
        problem = f"{left_out} further problems were found"
        rest = Problem("more", problem, "fix those that are listed first")
        kept.append(finding_of_workflow(rest))
    return tuple(kept)


def broken_links(workflow: Workflow, defs: NodeDefs) -> list[Finding]:
    """Return the findings about links only.

    A broken link causes many other errors, such as a sampler without a prompt, so it must be
    reported before them.
    """
    return list(_first(_link_finding(workflow, fault) for fault in link_faults(workflow, defs)))


def _link_finding(workflow: Workflow, fault: LinkFault) -> Finding:
    return finding_at(workflow, fault.input.node_id, fault.input.name, _link_problem(fault))


def _link_problem(fault: LinkFault) -> Problem:
    return Problem(fault.type, fault.problem, fault.would_do)


def is_stale(findings: Iterable[Finding]) -> bool:
    """Return whether a finding may disappear when the lists of files are read again."""
    return any(finding["type"] in ("missing_model", "value_not_in_list") for finding in findings)


def refusal(findings: Iterable[Finding]) -> InputError | WorkflowRefused:
    """Return the error for one or more findings.

    The most serious type decides the code and the sentence. The details list all findings.
    """
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
        error = WorkflowRefused  # a node's own rule, which only that node knows
    first = next(finding for finding in details if finding["type"] == gravest)
    sentence = f"{first['problem']}; {first['would_do']}"
    if first["node_id"] is not None:
        sentence = f"node {first['node_id']} ({brief(first['title'])}): {sentence}"
    if details[-1]["type"] == "more":
        sentence += f" ({details[-1]['problem']})"
    elif len(details) > 1:
        sentence += f" ({len(details) - 1} more in the details)"
    return error(sentence, details)


class _Checker:
    """Checks one workflow."""

    def __init__(self, workflow: Workflow, defs: NodeDefs, context: CheckContext) -> None:
        self._workflow = workflow
        self._defs = defs
        self._context = context
        self._remedies = Remedies(defs, context)
        self._walk = LinkWalk(workflow, defs)
        self._live = self._walk.live
        self._specs: dict[str, list[InputSpec]] = {
            node_id: self._specs_of(node_id) for node_id in self._live
        }
        # By node and input, what is wrong. The first problem of an input is kept.
        self._problems: dict[str, dict[str | None, Problem]] = {}

    def findings(self, validate: Validate | None) -> Iterator[Finding]:
        """Yield all reasons to refuse the workflow."""
        unknown = self._unknown_nodes()
        for node_id in unknown:
            problem = self._remedies.unknown_class(self._workflow[node_id]["class_type"])
            yield finding_at(self._workflow, node_id, None, problem)
        if not unknown and not self._live:
            yield finding_of_workflow(NO_OUTPUT)
            return
        self._find_broken_links()
        self._find_missing_choices()
        answer = validate(self._workflow) if validate is not None and self._live else None
        if answer is None:
            self._find_by_declarations()
        else:
            of_workflow = self._find_by_comfyui(answer)
            if of_workflow is not None and not unknown and not self._problems:
                yield finding_of_workflow(of_workflow)
        for node_id, problems in self._in_order():
            for name, problem in problems:
                yield finding_at(self._workflow, node_id, name, problem)

    def _unknown_nodes(self) -> list[str]:
        """Return the nodes whose class this ComfyUI does not have."""
        return [
            node_id
            for node_id, node in self._workflow.items()
            if node["class_type"] not in self._defs
        ]

    def _in_order(self) -> Iterator[tuple[str, list[tuple[str | None, Problem]]]]:
        """Yield the problems in the order of the nodes, and of their declared inputs."""
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

        ComfyUI 0.3.75 does not check lists of the newer form, and 0.33 does not check dynamic
        choices, so the node would fail.
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
        rules = DeclaredRules(self._workflow, self._defs, self._context, self._remedies)
        for node_id in self._live:
            for name, problem in rules.problems(node_id):
                self._note(node_id, name, problem)

    def _find_by_comfyui(self, answer: Mapping[str, Any]) -> Problem | None:
        """Note ComfyUI's errors about nodes, and return its error about the workflow, if any."""
        translator = Translator(self._workflow, self._defs, self._remedies)
        for node_id, entry in (answer.get("node_errors") or {}).items():
            if node_id not in self._workflow:
                continue
            problems = translator.problems(node_id, entry.get("errors") or [])
            for name, problem in problems.items():
                self._note(node_id, name, problem)
        error = answer.get("error")
        return translator.of_workflow(error) if error else None

    def warnings(self) -> Iterator[str]:
        """Yield what looks wrong but is no reason to refuse."""
        idle = self._idle_nodes()
        if idle:
            first = idle[:MAX_NAMED]
            named = [f"{node_id} ({title_of(self._workflow, node_id)})" for node_id in first]
            more = f" and {len(idle) - MAX_NAMED} more" if len(idle) > MAX_NAMED else ""
            nodes = ", ".join(named) + more
            yield f"no output needs node {nodes}: ComfyUI will not run what no output needs"
        for node_id, specs in self._specs.items():
            refused = self._problems.get(node_id, {})
            for spec in specs:
                value = self._workflow[node_id]["inputs"].get(spec.name)
                is_text = isinstance(value, str)
                if is_text and spec.name not in refused and _is_missing_choice(spec, value):
                    node = f"node {node_id} ({title_of(self._workflow, node_id)})"
                    yield f"{spec.name} of {node} is {shown(value)}, none of its choices"

    def _idle_nodes(self) -> list[str]:
        """Return the nodes of known classes that no output needs."""
        if not self._live:
            return []
        return [
            node_id
            for node_id, node in self._workflow.items()
            if node["class_type"] in self._defs and node_id not in self._live
        ]

    def _specs_of(self, node_id: str) -> list[InputSpec]:
        node = self._workflow[node_id]
        declared = self._defs.get(node["class_type"])
        return list(declared.live_inputs(node["inputs"]).values()) if declared else []


def _is_missing_choice(spec: InputSpec, value: Any) -> bool:
    """Return whether a literal is not among the choices of an input."""
    is_open = spec.choices is None or spec.has_custom_validation or spec.is_remote
    is_literal = value is not None and not isinstance(value, list)
    return not is_open and is_literal and value not in (spec.choices or ())
