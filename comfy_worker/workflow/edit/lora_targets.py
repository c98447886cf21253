"""Finds the models of a workflow that a LoRA is meant for.

A workflow may have several models: the experts of Wan 2.2 for high and for low noise, or a base
model and a refiner. LoRAs for two experts come in pairs of files, whose names say `high` and `low`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from comfy_worker.errors import Ambiguous, InvalidValue, NoPlace, brief
from comfy_worker.nearest import did_you_mean
from comfy_worker.workflow.edit.file_fit import fits_any
from comfy_worker.workflow.graph import Link, ancestors, title_of
from comfy_worker.workflow.loaders import Fits, Roots
from comfy_worker.workflow.model_names import is_model
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["HIGH", "LOW", "LoraFile", "ModelTargets", "assign_experts"]

HIGH, LOW = "high", "low"
# What a client may write for the model of the first stage, and for that of the later stages.
TARGET_WORDS = {
    HIGH: ("high", "high noise", "base", "first"),
    LOW: ("low", "low noise", "refiner", "second", "last"),
}
ALL_WORDS = ("all", "both")
# Words in the names of files that mean an expert.
FILE_MARKS = {
    **dict.fromkeys(("high", "highnoise", "hn", "h", "base"), HIGH),
    **dict.fromkeys(("low", "lownoise", "ln", "l", "refiner"), LOW),
}
# Without its partner, only such a name says enough: "low-poly" is no expert.
CLEAR_MARK = re.compile(r"(?P<expert>high|low)[\W_]*noise", re.IGNORECASE)
# The words of a name: "HighNoise_v2" has High, Noise, v and 2.
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
FILLERS = {"noise", "model", "expert"}
MAX_LISTED = 20
# No workflow has more stages; of a longer chain the first ones decide.
MAX_STAGES = 20


class ModelTargets:
    """The models of a workflow, by what a client may call them.

    Args:
        graph: the workflow, with the definitions of its nodes.
        roles: of the workflow.

    Attributes:
        experts: the models of the first stage and those of the later ones, by :data:`HIGH` and
            :data:`LOW`; empty if the workflow has no stages with models of their own.
    """

    def __init__(self, graph: TypedWorkflow, roles: Roles) -> None:
        self._graph = graph
        self._roots = Roots(graph)
        # By sampler, first to last, the models that it uses.
        self._used: dict[str, list[Link]] = {}
        # By expert, the models at those inputs of samplers that are named for it.
        self._named_inputs: dict[str, dict[Link, None]] = {HIGH: {}, LOW: {}}
        for sampler in roles.samplers:
            self._used[sampler.node_id] = self._roots.models(sampler)
            for node_input in self._roots.model_inputs(sampler):
                if mark := _clear_mark(node_input.name):
                    models = self._roots.models_at(node_input)
                    self._named_inputs[mark] |= dict.fromkeys(models)
        self._models = list(dict.fromkeys(root for used in self._used.values() for root in used))
        self.experts = self._find_experts()

    def find(self, target: str) -> list[Link]:
        """Return the models that a target means.

        Args:
            target: the id or title of a node, or a word of :data:`TARGET_WORDS`.

        Raises:
            Ambiguous: several nodes have the title.
            NoPlace: the node uses none of the models, or shares its model with another sampler, or
                the workflow has only one model.
            InvalidValue: the target is neither a node nor a word.
        """
        node_id = self._node_id(target)
        if node_id is not None:
            return self._models_of(node_id, target)
        word = " ".join(WORDS.findall(target)).lower()
        if word in ALL_WORDS:
            return self._models
        for expert, words in TARGET_WORDS.items():
            if word in words:
                return self._expert(expert, target)
        known = [*TARGET_WORDS[HIGH], *TARGET_WORDS[LOW], *self._graph.workflow, *self._titles]
        hint = did_you_mean(target, known, "write high, low, or the id or title of a node")
        raise InvalidValue(
            f"lora target '{brief(target)}' is not a model of this workflow; {hint}",
            [{"key": "target", "value": brief(target), "known": known[:MAX_LISTED]}],
        )

    def _expert(self, expert: str, target: str) -> list[Link]:
        if not self.experts:
            raise NoPlace(
                f"lora target '{brief(target)}': this workflow does not have two models that "
                "sample one after the other; leave target out, or write the id or title of a node",
                [{"key": "target", "value": brief(target)}],
            )
        return self.experts[expert]

    @cached_property
    def _titles(self) -> dict[str, list[str]]:
        titles: dict[str, list[str]] = {}
        workflow = self._graph.workflow
        for node_id in workflow:
            titles.setdefault(title_of(workflow, node_id), []).append(node_id)
        return titles

    def _node_id(self, target: str) -> str | None:
        if target in self._graph.workflow:
            return target
        titled = self._titles.get(target, [])
        if len(titled) > 1:
            raise Ambiguous(
                f"lora target '{brief(target)}': nodes {', '.join(titled[:MAX_LISTED])} all have "
                "this title; write the id",
                [{"key": "target", "node_id": node_id} for node_id in titled[:MAX_LISTED]],
            )
        return titled[0] if titled else None

    def _models_of(self, node_id: str, target: str) -> list[Link]:
        """Return the models that a node loads, changes or samples with."""
        own = [root for root in self._models if root.node_id == node_id]
        if own:
            return own
        found = self._used.get(node_id) or self._above(node_id)
        if not found:
            raise NoPlace(
                f"lora target '{brief(target)}': node {node_id} uses no model of a sampler; "
                "write the id or title of a node that loads a model, or of a sampler",
                [{"key": "target", "value": brief(target), "node_id": node_id}],
            )
        self._check_alone(node_id, found, target)
        return found

    def _above(self, node_id: str) -> list[Link]:
        """Return the models that arrive at a node's inputs for models."""
        found: dict[Link, None] = {}
        for node_input in self._graph.linked(node_id, "MODEL"):
            found |= dict.fromkeys(self._roots.models_at(node_input))
        return [root for root in self._models if root in found]

    def _check_alone(self, node_id: str, models: Sequence[Link], target: str) -> None:
        """Refuse a sampler whose model another sampler uses too: the LoRA would change both."""
        if node_id not in self._used:
            return
        for other, used in self._used.items():
            if other != node_id and set(used) & set(models):
                raise NoPlace(
                    f"lora target '{brief(target)}': sampler {other} uses the same model; leave "
                    "target out, or load the model once more for this sampler",
                    [{"key": "target", "value": brief(target), "node_id": other}],
                )

    def _find_experts(self) -> dict[str, list[Link]]:
        """Sort the models by stage, by the names of inputs and files, else by sampler order."""
        if len(self._models) < 2:
            return {}
        if self._named_inputs[HIGH] and self._named_inputs[LOW]:
            return {expert: list(models) for expert, models in self._named_inputs.items()}
        found: dict[str, list[Link]] = {HIGH: [], LOW: []}
        for root in self._models:
            if mark := self._mark(root):
                found[mark].append(root)
        # Two models of one sampler are merged, whatever their names say.
        if found[HIGH] and found[LOW] and len(self._used) > 1:
            return found
        return self._experts_by_order()

    def _mark(self, root: Link) -> str:
        """Return the expert that the file or the title of a loader names; empty for none."""
        node = self._graph.workflow[root.node_id]
        files = [value for value in node["inputs"].values() if is_model(value)]
        for name in (*files, title_of(self._graph.workflow, root.node_id)):
            if mark := _clear_mark(name):
                return mark
            marks = {FILE_MARKS[word] for word in _words(name) if word in FILE_MARKS}
            if len(marks) == 1:
                return marks.pop()
        return ""

    def _experts_by_order(self) -> dict[str, list[Link]]:
        samplers = list(self._used)
        first = self._used[samplers[0]]
        later: dict[Link, None] = {}
        for sampler in samplers[1:MAX_STAGES]:
            above = set(ancestors(self._graph.workflow, sampler, check=self._graph.check))
            if samplers[0] in above:
                later |= dict.fromkeys(self._used[sampler])
        low = [root for root in later if root not in first]
        return {HIGH: first, LOW: low} if first and low else {}


@dataclass(frozen=True)
class LoraFile:
    """A LoRA of a request.

    Args:
        file: the file that was found for it.
        target: what the client wrote; None if nothing.
    """

    file: str
    target: str | None = None


def assign_experts(
    loras: Sequence[LoraFile], targets: ModelTargets, fits: Fits | None
) -> tuple[list[LoraFile], list[str]]:
    """Give each LoRA without a target the expert that its name means.

    Two files whose names differ only in their mark are a pair. A single file goes to all models,
    unless its name says `high_noise` or `low_noise`.

    Args:
        loras: in their order.
        targets: the workflow's models.
        fits: whether a model accepts a LoRA file; None if nothing is known.

    Returns:
        The LoRAs with their targets, in the same order, and warnings for the client.
    """
    if not targets.experts:
        return list(loras), []
    marked = _pairs([lora.file for lora in loras if lora.target is None])
    assigned: list[LoraFile] = []
    warnings: list[str] = []
    for lora in loras:
        if lora.target is not None:
            assigned.append(lora)
        elif lora.file in marked:
            assigned.append(replace(lora, target=marked[lora.file]))
        elif mark := _clear_mark(lora.file):
            assigned.append(replace(lora, target=mark))
            other = LOW if mark == HIGH else HIGH
            warnings.append(
                f"lora {lora.file} went only to the model for {mark} noise, as its name says; "
                f"the request has no such lora for {other} noise"
            )
        else:
            assigned.append(lora)
            if _fits_both(lora.file, targets.experts, fits):
                warnings.append(
                    f"lora {lora.file} went to both models of this workflow, which sample one "
                    "after the other; if it is made for one of them, add its target, high or low"
                )
    return assigned, warnings


def _fits_both(file: str, experts: Mapping[str, Collection[Link]], fits: Fits | None) -> bool:
    return all(fits_any(models, file, fits) is not False for models in experts.values())


def _pairs(files: Sequence[str]) -> dict[str, str]:
    """Return the expert of each file that is one of a pair."""
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for file in files:
        words = _words(file)
        # The last mark counts: in "high-detail-low" it is the one that the pair differs in.
        for position in range(len(words) - 1, -1, -1):
            mark = FILE_MARKS.get(words[position])
            if mark is None:
                continue
            rest = (*words[:position], "", *words[position + 1 :])
            groups.setdefault(rest, {}).setdefault(mark, []).append(file)
    marked: dict[str, str] = {}
    for group in groups.values():
        if len(group) == 2:
            for mark, members in group.items():
                marked |= dict.fromkeys(members, mark)
    return marked


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a file's name, in lower case, with numbers alike: they are versions."""
    stem, dot, _suffix = name.replace("\\", "/").rpartition(".")
    words = [word.lower() for word in WORDS.findall(stem if dot else name)]
    return tuple("#" if word.isdigit() else word for word in words if word not in FILLERS)


def _clear_mark(name: str) -> str:
    found = CLEAR_MARK.search(name)
    return found["expert"].lower() if found else ""
