"""Describes what is wrong with a workflow, in words for a client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from comfy_worker.errors import brief
from comfy_worker.workflow.graph import Workflow, title_of

__all__ = [
    "NO_OUTPUT",
    "Finding",
    "Problem",
    "finding_at",
    "finding_of_workflow",
    "outputs_remedy",
    "shown",
]

Finding = dict[str, Any]

TEXT_LENGTH = 200
SHOWN_LENGTH = 120
# The keys of a finding that name the node and the input.
WHERE = ("node_id", "title", "class_type", "input", "given")


@dataclass(frozen=True)
class Problem:
    """A fault of one input.

    Attributes:
        type: ComfyUI's name for the error, if it has one.
        problem: what is wrong, as a clause without a full stop.
        would_do: how to fix it.
        facts: more keys of the finding.
    """

    type: str
    problem: str
    would_do: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def finding(self) -> Finding:
        """The keys of a finding that do not depend on the node."""
        return {"type": self.type, "problem": self.problem, "would_do": self.would_do, **self.facts}


NO_OUTPUT = Problem(
    "no_output", "the workflow has no output node", "end it in a node such as SaveImage"
)


def finding_at(workflow: Workflow, node_id: str, name: str | None, problem: Problem) -> Finding:
    """Return a finding about one input of a node, or about the node."""
    node = workflow[node_id]
    value = None if name is None else node["inputs"].get(name)
    where = {
        "node_id": brief(node_id, TEXT_LENGTH),
        "title": brief(title_of(workflow, node_id), TEXT_LENGTH),
        "class_type": brief(node["class_type"], TEXT_LENGTH),
        "input": None if name is None else brief(name, TEXT_LENGTH),
        "given": _small(value),
    }
    return {**where, **problem.finding}


def finding_of_workflow(problem: Problem) -> Finding:
    """Return a finding about the workflow, which names no node."""
    return {**dict.fromkeys(WHERE), **problem.finding}


def shown(value: Any) -> str:
    """Shorten a client's value for a sentence."""
    return brief(repr(value), SHOWN_LENGTH)


def outputs_remedy(class_type: str, outputs: tuple[str, ...]) -> str:
    """List the outputs of a class, for an error."""
    listed = ", ".join(
        f"{number} ({output_type})" for number, output_type in enumerate(outputs[:20])
    )
    return f"the outputs of {class_type} are {listed or 'none'}"


def _small(value: Any) -> Any:
    """Shorten a client's value for a finding. A short value stays as it is."""
    if isinstance(value, str):
        return brief(value, TEXT_LENGTH)
    if isinstance(value, (dict, list)):
        text = repr(value)
        return value if len(text) <= TEXT_LENGTH else brief(text, TEXT_LENGTH)
    return value
