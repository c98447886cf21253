"""ControlNets, put into any graph: between its conditioning and its samplers.

What ComfyUI applies in another way (model patches, Flux's control LoRAs, ControlNet-LLLite) is none in this sense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_worker.errors import InvalidValue, ModelMismatch, NoPlace
from comfy_worker.workflow.constraints import InputConstraint
from comfy_worker.workflow.edit.controlnet_types import (
    ControlNetFile,
    choose_model,
    control_type,
    preprocessor,
)
from comfy_worker.workflow.graph import (
    Check,
    Fold,
    Link,
    Workflow,
    WorkflowEditor,
    ancestors,
    as_link,
    never_ends,
)
from comfy_worker.workflow.loaders import Fits, Roots
from comfy_worker.workflow.model_names import match
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.roles.samplers import Sampler
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["ControlNetRules", "ControlNetSpec", "splice_controlnets"]


# More fit into no memory.
MAX_CONTROLNETS = 32


@dataclass(frozen=True)
class ControlNetSpec:
    """One ControlNet that a client asks for.

    Attributes:
        image: a file in ComfyUI's input folder.
        model: the ControlNet's file, with or without folder and extension; None: found by ``type``.
        type: what the control map shows (``canny``, ``depth`` ...); None where ``model`` says it all.
        strength: 0..10.
        start: when in the sampling it begins to act, 0..1.
        end: when it ends, 0..1, after ``start``.
        preprocess: whether the control map is made from the image; None: for type canny yes, else no.
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
    """What is known about the ControlNet files and the graph's model.

    Attributes:
        fits: whether a sampler's model takes a ControlNet file; not known if absent.
        is_union: whether a ControlNet file serves several types; none does if absent.
        needs_vae: whether the family's ControlNets take the control map as a latent (SD 3, Flux, Qwen-Image).
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
    """Put ControlNets between the conditioning and the samplers of a graph, one after the other.

    Each acts on every sampler whose model it fits, so on both stages of a hires fix; samplers with the same
    conditioning share its nodes. ControlNets that the graph has stay, before the new ones.

    Args:
        workflow: an API-format graph; stays as it is.
        roles: of that graph.
        defs: the node classes of this ComfyUI, with the ControlNet files that it finds.
        specs: what to add; none leaves the graph as it is.
        rules: what is known about the files; nothing if absent.
        check: asked again and again, so that the edit of a large graph can be ended.

    Returns:
        A new graph.

    Raises:
        InvalidValue: a value out of range, neither ``model`` nor ``type``, or no way to preprocess the type.
        ModelNotFound: no such ControlNet is installed.
        Ambiguous: a name or type that several files have.
        ModelMismatch: a ControlNet that fits none of the models.
        NodeNotInstalled: the preprocessor's pack is not installed.
        NoPlace: no sampler of the graph takes a conditioning, or no VAE is to be had where one is needed.
    """
    editor = WorkflowEditor(workflow)
    if not specs:
        return editor.workflow
    if len(specs) > MAX_CONTROLNETS:
        raise InvalidValue(
            f"send at most {MAX_CONTROLNETS} controlnets, not {len(specs)}",
            [{"key": "controlnets", "value": len(specs), "maximum": MAX_CONTROLNETS}],
        )
    rules = rules or ControlNetRules()
    fits = rules.fits
    graph = TypedWorkflow(workflow, defs, check)
    found = Roots(graph)
    roots = {s: found.models(s) for s in roles.samplers if _takes_conditioning(graph, s)}
    if not roots:
        raise NoPlace(
            "this workflow cannot use controlnets: none of its samplers has a linked conditioning"
        )
    models = list(dict.fromkeys(root for of_one in roots.values() for root in of_one))
    vaes = _Vaes(graph)
    names = [
        str(name) for name in defs["ControlNetLoader"].inputs["control_net_name"].choices or ()
    ]
    for spec in specs:
        check()
        _check(spec, defs)
        if spec.model is not None:
            file = _known(match(spec.model, names, "controlnet"), models, fits, rules.is_union)
        else:
            file = choose_model(
                spec.type, [_known(name, models, fits, rules.is_union) for name in names]
            )
        if file.fits is False:
            raise ModelMismatch(
                f"controlnet {file.name!r} does not fit any model of this workflow; use one that is made for the "
                "workflow's checkpoint",
                [{"file": file.name, "node_id": sampler.node_id} for sampler in roots],
            )
        samplers = [
            sampler for sampler, root in roots.items() if _fits(root, file.name, fits) is not False
        ]
        _add(editor, defs, spec, file, samplers, vaes if rules.needs_vae else None)
    return editor.workflow


def _takes_conditioning(graph: TypedWorkflow, sampler: Sampler) -> bool:
    """Whether a sampler's positive input is linked to a conditioning, and not to a bundle that holds one."""
    link = graph.link(sampler.positive) if sampler.positive else None
    return link is not None and graph.output_type(link) in ("CONDITIONING", "*")


def _conditioning(workflow: Workflow, sampler: Sampler) -> tuple[Link, Link | None]:
    """What a sampler's positive and negative inputs are linked to now."""
    links = [
        as_link(workflow[place.node_id]["inputs"].get(place.name)) if place else None
        for place in (sampler.positive, sampler.negative)
    ]
    positive, negative = links
    assert positive is not None
    return positive, negative if negative is not None and negative.node_id in workflow else None


def _fits(roots: Iterable[Link], file: str, fits: Fits | None) -> bool | None:
    """Whether one of the models takes a file; None where that is not known."""
    found = {fits(root.node_id, file) for root in roots} if fits else {None}
    if True in found:
        return True
    return False if found == {False} else None


def _known(
    name: str, models: Sequence[Link], fits: Fits | None, is_union: Callable[[str], bool] | None
) -> ControlNetFile:
    return ControlNetFile(name, _fits(models, name, fits), is_union is not None and is_union(name))


def _check(spec: ControlNetSpec, defs: NodeDefs) -> None:
    declared = defs["ControlNetApplyAdvanced"].inputs
    InputConstraint.of([declared["strength"]]).checked("controlnets strength", spec.strength)
    InputConstraint.of([declared["start_percent"]]).checked("controlnets start", spec.start)
    InputConstraint.of([declared["end_percent"]]).checked("controlnets end", spec.end)
    if spec.start >= spec.end:
        raise InvalidValue(
            f"controlnets start must be below end, not {spec.start} and {spec.end}",
            [{"key": "start", "value": spec.start}, {"key": "end", "value": spec.end}],
        )


def _add(
    editor: WorkflowEditor,
    defs: NodeDefs,
    spec: ControlNetSpec,
    file: ControlNetFile,
    samplers: Sequence[Sampler],
    vaes: _Vaes | None,
) -> None:
    """Add one ControlNet: its loaders once, and one apply node for each conditioning that the samplers take."""
    image = _control_map(editor, defs, spec)
    control_net = _control_net(editor, defs, spec, file)
    applied: dict[tuple[Link, Link | None], str] = {}
    for sampler in samplers:
        pair = positive, negative = _conditioning(editor.workflow, sampler)
        if pair not in applied:
            vae = {"vae": vaes.of(sampler)} if vaes else {}
            applied[pair] = editor.add(
                "ControlNetApplyAdvanced",
                f"ControlNet {file.name}",
                positive=positive,
                # A guider without a negative (BasicGuider) uses the first output alone.
                negative=negative or positive,
                control_net=control_net,
                image=image,
                strength=spec.strength,
                start_percent=spec.start,
                end_percent=spec.end,
                **vae,
            )
        if sampler.positive:
            editor.set(sampler.positive, Link(applied[pair], 0))
        if sampler.negative and negative:
            editor.set(sampler.negative, Link(applied[pair], 1))


def _control_map(editor: WorkflowEditor, defs: NodeDefs, spec: ControlNetSpec) -> Link:
    image = Link(editor.add("LoadImage", "ControlNet image", image=spec.image), 0)
    if not spec.wants_preprocessing:
        return image
    class_type = preprocessor(spec.type, defs)
    return Link(
        editor.add(class_type, "ControlNet map", image=image, **_defaults(defs, class_type)), 0
    )


def _defaults(defs: NodeDefs, class_type: str) -> dict[str, Any]:
    """Each literal of a node at its default; some of the pack's nodes fail without their optional ones."""
    return {
        name: spec.options.get("default", spec.choices[0] if spec.choices else None)
        for name, spec in defs[class_type].inputs.items()
        if spec.is_widget
    }


def _control_net(
    editor: WorkflowEditor, defs: NodeDefs, spec: ControlNetSpec, file: ControlNetFile
) -> Link:
    loaded = Link(
        editor.add("ControlNetLoader", f"ControlNet {file.name}", control_net_name=file.name), 0
    )
    if not file.union:
        return loaded
    words = control_type(spec.type).words if spec.type else ()
    choices = [
        str(choice) for choice in defs["SetUnionControlNetType"].inputs["type"].choices or ()
    ]
    chosen = next(
        (c for c in choices if any(part.startswith(words) for part in c.split("/"))), "auto"
    )
    return Link(
        editor.add("SetUnionControlNetType", "ControlNet type", control_net=loaded, type=chosen), 0
    )


class _Vaes:
    """The VAEs of a graph by the samplers that they belong to."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._below = Fold(graph.fed_by, self._first, graph.check)
        self._above = Fold(self._feeding, self._first, graph.check)
        self._makers: dict[str, set[str]] = {}

    def of(self, sampler: Sampler) -> Link:
        """The VAE that decodes what a sampler makes, or encodes what it starts from; else any of the graph."""
        graph, node_id = self._graph, sampler.node_id
        for vae in self._nearest(node_id):
            if vae is not None and not self._is_made_by(node_id, vae):
                return vae
        for loader, node in graph.workflow.items():
            outputs = (
                graph.defs[node["class_type"]].outputs if node["class_type"] in graph.defs else ()
            )
            if "VAE" in outputs:
                return Link(loader, outputs.index("VAE"))
        raise NoPlace(
            "controlnets of this family need a VAE, but this workflow has none; add a VAELoader to it"
        )

    def _nearest(self, node_id: str) -> Iterator[Link | None]:
        yield self._below(node_id)
        yield self._above(node_id)
        for other in self._graph.workflow:
            yield from map(self._graph.link, self._graph.typed(other, "VAE"))

    def _feeding(self, node_id: str) -> list[str]:
        return [link.node_id for link in self._graph.links(node_id).values()]

    def _first(self, node_id: str, near: list[Link | None]) -> Link | None:
        own = map(self._graph.link, self._graph.typed(node_id, "VAE"))
        return next(filter(None, (*own, *near)), None)

    def _is_made_by(self, node_id: str, vae: Link) -> bool:
        """Whether a sampler feeds a VAE, which would close a circle."""
        if vae.node_id not in self._makers:
            makers = ancestors(self._graph.workflow, vae.node_id, check=self._graph.check)
            self._makers[vae.node_id] = {vae.node_id, *makers}
        return node_id in self._makers[vae.node_id]
