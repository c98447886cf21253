"""Splices ControlNets into a workflow, between its conditioning and its samplers.

ComfyUI applies model patches, Flux's control LoRAs and ControlNet-LLLite in other ways. They are
not handled here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_worker.errors import InvalidValue, NoPlace
from comfy_worker.workflow.constraints import InputConstraint
from comfy_worker.workflow.edit.controlnet_types import (
    ControlNetFile,
    choose_model,
    control_type,
    preprocessor,
)
from comfy_worker.workflow.edit.controlnet_vae import Vaes
from comfy_worker.workflow.edit.file_fit import check_count, fits_any, fitting_targets
from comfy_worker.workflow.graph import Input, Link, Workflow, as_link, copied
from comfy_worker.workflow.loaders import Fits, Roots
from comfy_worker.workflow.model_names import match
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.roles.samplers import Sampler
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Check, never_ends
from comfy_worker.workflow.workflow_editor import WorkflowEditor

__all__ = ["ControlNetRules", "ControlNetSpec", "splice_controlnets"]

# A limit that no useful request reaches: more ControlNets do not fit into any memory.
MAX_CONTROLNETS = 32


@dataclass(frozen=True)
class ControlNetSpec:
    """A ControlNet that a client asks for.

    Attributes:
        image: a file in ComfyUI's input folder.
        model: the ControlNet's file, with or without folder and extension; None: found by ``type``.
        type: what the control map shows (``canny``, ``depth`` ...); optional with ``model``.
        strength: 0..10.
        start: when in the sampling it begins to act, 0..1.
        end: when it ends, 0..1, after ``start``.
        preprocess: whether to make the control map from the image; None: only for type canny.
    """

    image: str
    model: str | None = None
    type: str | None = None
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    preprocess: bool | None = None

    @property
    def wants_preprocessing(self) -> bool:
        """Whether the control map is made from the image."""
        if self.preprocess is not None:
            return self.preprocess
        return self.type is not None and control_type(self.type).words[0] == "canny"


@dataclass(frozen=True)
class ControlNetRules:
    """Facts about the ControlNet files and the workflow's model.

    Attributes:
        fits: whether a sampler's model accepts a ControlNet file; None if nothing is known.
        is_union: whether a ControlNet file serves several types; None: no file does.
        needs_vae: whether the family's ControlNets read the control map as a latent (SD 3, Flux,
            Qwen-Image).
    """

    fits: Fits | None = None
    is_union: Callable[[str], bool] | None = None
    needs_vae: bool = False


def splice_controlnets(
    workflow: Workflow,
    roles: Roles,
    defs: NodeDefs,
    specs: Sequence[ControlNetSpec],
    rules: ControlNetRules | None = None,
    check: Check = never_ends,
) -> Workflow:
    """Add ControlNets, one after the other, between the conditioning and the samplers.

    Each acts on every sampler whose model it fits, so on both stages of a hires fix. Samplers with
    the same conditioning share its nodes. ControlNets that the workflow already has come before the
    new ones.

    Args:
        workflow: is not changed.
        roles: of that workflow.
        defs: the node classes of this ComfyUI, with the ControlNet files that it finds.
        specs: what to add; may be empty.
        rules: what is known about the files; None: nothing.
        check: called repeatedly; may raise to stop the work on a large workflow.

    Returns:
        A new workflow.

    Raises:
        InvalidValue: a value is out of range, ``model`` and ``type`` are both missing, or the type
            cannot be preprocessed.
        ModelNotFound: no such ControlNet is installed.
        Ambiguous: several files have the name or the type.
        ModelMismatch: a ControlNet fits none of the models.
        NodeNotInstalled: the preprocessor's pack is not installed.
        NoPlace: no sampler of the workflow takes a conditioning, or a VAE is needed and missing.
    """
    if not specs:
        return copied(workflow)
    check_count("controlnets", len(specs), MAX_CONTROLNETS)
    splicer = _Splicer(TypedWorkflow(workflow, defs, check), roles, rules or ControlNetRules())
    for spec in specs:
        check()
        _check_values(spec, defs)
        splicer.add(spec)
    return splicer.workflow


def _check_values(spec: ControlNetSpec, defs: NodeDefs) -> None:
    declared = defs["ControlNetApplyAdvanced"].inputs
    InputConstraint.of([declared["strength"]]).checked("controlnets strength", spec.strength)
    InputConstraint.of([declared["start_percent"]]).checked("controlnets start", spec.start)
    InputConstraint.of([declared["end_percent"]]).checked("controlnets end", spec.end)
    if spec.start >= spec.end:
        raise InvalidValue(
            f"controlnets start must be below end, not {spec.start} and {spec.end}",
            [{"key": "start", "value": spec.start}, {"key": "end", "value": spec.end}],
        )


class _Splicer:
    """Adds ControlNets to a copy of one workflow.

    Raises:
        NoPlace: no sampler of the workflow takes a conditioning.
    """

    def __init__(self, graph: TypedWorkflow, roles: Roles, rules: ControlNetRules) -> None:
        self._editor = WorkflowEditor(graph.workflow)
        self._defs = graph.defs
        self._rules = rules
        roots = Roots(graph)
        self._models: dict[Sampler, list[Link]] = {}
        for sampler in roles.samplers:
            if _takes_conditioning(graph, sampler):
                self._models[sampler] = roots.models(sampler)
        if not self._models:
            raise NoPlace(
                "this workflow cannot use controlnets: none of its samplers has a linked "
                "conditioning"
            )
        self._all_models = {model for used in self._models.values() for model in used}
        self._vaes = Vaes(graph)

    @property
    def workflow(self) -> Workflow:
        """The workflow with what was added."""
        return self._editor.workflow

    def add(self, spec: ControlNetSpec) -> None:
        """Add one ControlNet to every sampler whose model it fits."""
        file = self._file(spec)
        samplers = fitting_targets("controlnet", file.name, self._models, self._rules.fits)
        control_map = self._control_map(spec)
        inputs: dict[str, Any] = {
            "control_net": self._control_net(spec, file),
            "image": control_map,
            "strength": spec.strength,
            "start_percent": spec.start,
            "end_percent": spec.end,
        }
        applied: dict[tuple[Link, Link | None], str] = {}
        for sampler in samplers:
            positive, negative = self._conditioning(sampler)
            pair = (positive, negative)
            if pair not in applied:
                if self._rules.needs_vae:
                    inputs["vae"] = self._vaes.of(sampler)
                applied[pair] = self._editor.add(
                    "ControlNetApplyAdvanced",
                    f"ControlNet {file.name}",
                    positive=positive,
                    # A guider without a negative (BasicGuider) uses the first output alone.
                    negative=negative or positive,
                    **inputs,
                )
            if sampler.positive:
                self._editor.set(sampler.positive, Link(applied[pair], 0))
            if sampler.negative and negative:
                self._editor.set(sampler.negative, Link(applied[pair], 1))

    def _file(self, spec: ControlNetSpec) -> ControlNetFile:
        """Return the file that a client means, by its name or its type."""
        choices = self._defs["ControlNetLoader"].inputs["control_net_name"].choices or ()
        names = [str(choice) for choice in choices]
        if spec.model is not None:
            return self._described(match(spec.model, names, "controlnet"))
        return choose_model(spec.type, [self._described(name) for name in names])

    def _described(self, name: str) -> ControlNetFile:
        is_union = self._rules.is_union
        return ControlNetFile(
            name,
            fits=fits_any(self._all_models, name, self._rules.fits),
            union=is_union is not None and is_union(name),
        )

    def _conditioning(self, sampler: Sampler) -> tuple[Link, Link | None]:
        """Return what a sampler's positive and negative inputs are linked to now."""
        positive, negative = self._source(sampler.positive), self._source(sampler.negative)
        assert positive is not None
        if negative is not None and negative.node_id not in self.workflow:
            return positive, None
        return positive, negative

    def _source(self, node_input: Input | None) -> Link | None:
        if node_input is None:
            return None
        return as_link(self.workflow[node_input.node_id]["inputs"].get(node_input.name))

    def _control_map(self, spec: ControlNetSpec) -> Link:
        image = Link(self._editor.add("LoadImage", "ControlNet image", image=spec.image), 0)
        if not spec.wants_preprocessing:
            return image
        class_type = preprocessor(spec.type, self._defs)
        # Some of the pack's nodes fail if an optional input is missing.
        defaults = _defaults(self._defs, class_type)
        return Link(self._editor.add(class_type, "ControlNet map", image=image, **defaults), 0)

    def _control_net(self, spec: ControlNetSpec, file: ControlNetFile) -> Link:
        node_id = self._editor.add(
            "ControlNetLoader", f"ControlNet {file.name}", control_net_name=file.name
        )
        loaded = Link(node_id, 0)
        if not file.union:
            return loaded
        union_type = _union_type(self._defs, spec.type)
        node_id = self._editor.add(
            "SetUnionControlNetType", "ControlNet type", control_net=loaded, type=union_type
        )
        return Link(node_id, 0)


def _takes_conditioning(graph: TypedWorkflow, sampler: Sampler) -> bool:
    """Return whether a sampler's positive input is linked to a conditioning.

    It may also be linked to a bundle that holds one, which a ControlNet cannot be applied to.
    """
    link = graph.link(sampler.positive) if sampler.positive else None
    return link is not None and graph.output_type(link) in ("CONDITIONING", "*")


def _defaults(defs: NodeDefs, class_type: str) -> dict[str, Any]:
    """Return the default of each literal input of a class."""
    defaults = {}
    for name, spec in defs[class_type].inputs.items():
        if spec.is_widget:
            first = spec.choices[0] if spec.choices else None
            defaults[name] = spec.options.get("default", first)
    return defaults


def _union_type(defs: NodeDefs, control_map: str | None) -> str:
    """Return the choice of SetUnionControlNetType for a type of control map."""
    words = control_type(control_map).words if control_map else ()
    for choice in defs["SetUnionControlNetType"].inputs["type"].choices or ():
        if any(part.startswith(words) for part in str(choice).split("/")):
            return str(choice)
    return "auto"
