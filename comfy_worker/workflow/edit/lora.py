"""Splices LoRA loaders into a workflow, behind its own loaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from comfy_worker.errors import NoPlace
from comfy_worker.workflow.constraints import InputConstraint
from comfy_worker.workflow.edit.file_fit import check_count, fitting_targets
from comfy_worker.workflow.edit.lora_targets import LoraFile, ModelTargets, assign_experts
from comfy_worker.workflow.graph import Link, Workflow, ancestors, copied
from comfy_worker.workflow.loaders import Fits, Roots
from comfy_worker.workflow.model_names import match
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Check, never_ends
from comfy_worker.workflow.workflow_editor import WorkflowEditor

__all__ = ["LoraSpec", "splice_loras", "with_experts"]

# A limit that no useful request reaches. Each LoRA is a node to load.
MAX_LORAS = 100


@dataclass(frozen=True)
class LoraSpec:
    """A LoRA that a client asks for.

    Attributes:
        name: the file, with or without folder and extension.
        strength: how strongly it changes the diffusion model, -100..100.
        strength_clip: how strongly it changes the text encoder, -100..100; None: as ``strength``.
        target: the models that it is meant for, see :class:`ModelTargets`; None: all that it fits.
    """

    name: str
    strength: float = 1.0
    strength_clip: float | None = None
    target: str | None = field(default=None, kw_only=True)

    @property
    def for_clip(self) -> float:
        """The strength for the text encoder."""
        return self.strength if self.strength_clip is None else self.strength_clip


def splice_loras(
    workflow: Workflow,
    roles: Roles,
    defs: NodeDefs,
    loras: Sequence[LoraSpec],
    *,
    fits: Fits | None = None,
    check: Check = never_ends,
) -> Workflow:
    """Add LoRAs, in their order, between the loaders of a workflow and the nodes that use them.

    Every loader whose model a sampler uses gets them, unless a LoRA has a target, so a merge of
    several models gets each LoRA once in all. A text encoder gets each LoRA once, with a model that
    it belongs to. LoRA loaders that the workflow already has come after the new ones.

    Args:
        workflow: is not changed.
        roles: of that workflow.
        defs: the node classes of this ComfyUI, with the LoRA files that it finds.
        loras: what to add; may be empty.
        fits: whether a model accepts a LoRA file; None if nothing is known.
        check: called repeatedly; may raise to stop the work on a large workflow.

    Returns:
        A new workflow.

    Raises:
        InvalidValue: a strength is out of range, a target is unknown, or there are too many LoRAs.
        ModelNotFound: a LoRA is not installed.
        Ambiguous: several files have the name, or several nodes the title that is the target.
        NoPlace: no sampler of the workflow uses a model, or none is the target.
        ModelMismatch: a LoRA fits none of the models.
    """
    if not loras:
        return copied(workflow)
    check_count("loras", len(loras), MAX_LORAS, ", including those in the prompt")
    graph = TypedWorkflow(workflow, defs, check)
    chain = _Chain(graph, roles)
    if not chain.models:
        raise NoPlace(
            "this workflow cannot use loras: none of its samplers uses a model from a loader node"
        )
    targets = ModelTargets(graph, roles)
    for lora in loras:
        check()
        file = _checked_file(lora, defs)
        wanted = chain.models if lora.target is None else targets.find(lora.target)
        models = {model: [model] for model in wanted}
        chain.add(lora, file, fitting_targets("lora", file, models, fits))
    return chain.close()


def with_experts(
    workflow: Workflow,
    roles: Roles,
    defs: NodeDefs,
    loras: Sequence[LoraSpec],
    *,
    fits: Fits | None = None,
    check: Check = never_ends,
) -> tuple[list[LoraSpec], list[str]]:
    """Set the targets of LoRAs that are pairs for the two experts of a workflow.

    Args:
        workflow: is not changed.
        roles: of that workflow.
        defs: the node classes of this ComfyUI, with the LoRA files that it finds.
        loras: what the client asks for; may be empty.
        fits: whether a model accepts a LoRA file; None if nothing is known.
        check: called repeatedly; may raise to stop the work on a large workflow.

    Returns:
        The LoRAs, in their order, and warnings for the client.

    Raises:
        ModelNotFound: a LoRA is not installed.
        Ambiguous: several files have the name.
    """
    if not loras:
        return [], []
    choices = defs["LoraLoader"].inputs["lora_name"].choices or ()
    files = [LoraFile(match(lora.name, choices, "lora"), lora.target) for lora in loras]
    targets = ModelTargets(TypedWorkflow(workflow, defs, check), roles)
    assigned, warnings = assign_experts(files, targets, fits)
    specs = []
    for lora, file in zip(loras, assigned, strict=True):
        specs.append(replace(lora, target=file.target))
    return specs, warnings


def _checked_file(lora: LoraSpec, defs: NodeDefs) -> str:
    """Check the strengths of a LoRA, and return its file."""
    declared = defs["LoraLoader"].inputs
    strengths = {"strength": lora.strength, "strength_clip": lora.for_clip}
    for name, strength in strengths.items():
        spec = declared["strength_model" if name == "strength" else name]
        InputConstraint.of([spec]).checked(f"{name} of lora {lora.name!r}", strength)
    return match(lora.name, declared["lora_name"].choices or (), "lora")


class _Chain:
    """The LoRA loaders to add behind each loader of a workflow.

    Attributes:
        models: the outputs of the loaders whose models the samplers use, first sampler first.
    """

    def __init__(self, graph: TypedWorkflow, roles: Roles) -> None:
        # By text encoder, the models that it belongs to.
        self._models_of_clip: dict[Link, dict[Link, None]] = {}
        roots = Roots(graph)
        models: dict[Link, None] = {}
        for sampler in roles.samplers:
            used = roots.models(sampler)
            models |= dict.fromkeys(used)
            for clip in roots.clips(sampler):
                self._models_of_clip.setdefault(clip, {}).update(dict.fromkeys(used))
        self.models = list(models)
        # By output of a loader, the output that its users shall get.
        self._ends = {root: root for root in (*self.models, *self._models_of_clip)}
        # The nodes above a loader must not use what is added behind it: that would be a circle.
        loaders = [root.node_id for root in self._ends]
        makers = {*loaders, *ancestors(graph.workflow, *loaders, check=graph.check)}
        self._users = graph.workflow.keys() - makers
        self._editor = WorkflowEditor(graph.workflow)

    def add(self, lora: LoraSpec, file: str, models: Sequence[Link]) -> None:
        """Add one LoRA to some of the models, and to the text encoders that belong to them."""
        clips_of: dict[Link, list[Link]] = {model: [] for model in models}
        if lora.for_clip:
            for clip, served in self._models_of_clip.items():
                partner = _partner(clip, [model for model in served if model in clips_of])
                if partner is not None:
                    clips_of[partner].append(clip)
        for model, clips in clips_of.items():
            self._ends[model] = self._load(file, lora, self._ends[model], lora.strength, *clips[:1])
            for clip in clips[1:]:
                # ComfyUI has no LoRA loader for a text encoder alone. Nothing uses the model of
                # this loader.
                self._load(file, lora, model, 0.0, clip)

    def _load(
        self, file: str, lora: LoraSpec, model: Link, strength: float, clip: Link | None = None
    ) -> Link:
        """Add one loader, and return the output with its model."""
        inputs = {"model": model, "lora_name": file, "strength_model": strength}
        if clip is None:
            return Link(self._editor.add("LoraLoaderModelOnly", f"LoRA {file}", **inputs), 0)
        inputs |= {"clip": self._ends[clip], "strength_clip": lora.for_clip}
        node_id = self._editor.add("LoraLoader", f"LoRA {file}", **inputs)
        self._ends[clip] = Link(node_id, 1)
        return Link(node_id, 0)

    def close(self) -> Workflow:
        """Link everything that used a loader to the last LoRA behind it."""
        self._editor.rewire(self._ends, lambda node_input: node_input.node_id in self._users)
        return self._editor.workflow


def _partner(clip: Link, models: Sequence[Link]) -> Link | None:
    """Return the model to load a text encoder with: that of the same checkpoint, or the first."""
    for model in models:
        if model.node_id == clip.node_id:
            return model
    return models[0] if models else None
