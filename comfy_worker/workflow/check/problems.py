"""What is wrong with one input, in words for a client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from comfy_worker.errors import brief
from comfy_worker.workflow.graph import Workflow, title_of

__all__ = ["Finding", "Problem", "finding_at", "finding_of_workflow", "outputs_remedy", "shown"]

Finding = dict[str, Any]

TEXT_LENGTH = 200
SHOWN_LENGTH = 120
# What each finding says of the node that it is about.
WHERE = ("node_id", "title", "class_type", "input", "given")


@dataclass(frozen=True)
class Problem:
    """What is wrong with one input.

    Attributes:
        type: ComfyUI's word where it has one.
        problem: what is wrong, without its end.
        would_do: what to do about it.
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


def finding_at(workflow: Workflow, node_id: str, name: str | None, problem: Problem) -> Finding:
    """A problem as a finding about one input of a node, or about the node."""
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
    """A problem that is no single node's."""
    return {**dict.fromkeys(WHERE), **problem.finding}


def shown(value: Any) -> str:
    """A client's value as a sentence repeats it."""
    return brief(repr(value), SHOWN_LENGTH)


def outputs_remedy(class_type: str, outputs: tuple[str, ...]) -> str:
    """Which outputs a class has."""
    listed = ", ".join(
        f"{number} ({output_type})" for number, output_type in enumerate(outputs[:20])
    )
    return f"the outputs of {class_type} are {listed or 'none'}"


def _small(value: Any) -> Any:
    """A client's value as a finding repeats it: itself where it is short."""
    if isinstance(value, str):
        return brief(value, TEXT_LENGTH)
    if isinstance(value, (dict, list)):
        text = repr(value)
        return value if len(text) <= TEXT_LENGTH else brief(text, TEXT_LENGTH)
    return value
