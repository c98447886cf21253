"""ControlNets, put into any graph: between its conditioning and its samplers.

Owns how their nodes are wired. Knows no family and no file's content: both are asked of the caller. What ComfyUI
applies in another way (model patches, Flux's control LoRAs, ControlNet-LLLite) is no ControlNet in this sense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_worker.errors import InvalidValue, ModelMismatch, NoPlace
from comfy_worker.workflow.constraints import Limits
from comfy_worker.workflow.edit.controlnet_types import ControlNetFile, choose_model, control_type, preprocessor
from comfy_worker.workflow.graph import Editor, Link, Workflow, ancestors, links_of
from comfy_worker.workflow.loaders import Fits, model_roots
from comfy_worker.workflow.model_names import match
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import Roles, Sampler
from comfy_worker.workflow.tracing import Graph

__all__ = ["ControlNetSpec", "splice_controlnets"]


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


def splice_controlnets(
    workflow: Workflow,
    roles: Roles,
    defs: NodeDefs,
    specs: Sequence[ControlNetSpec],
    *,
    fits: Fits | None = None,
    is_union: Callable[[str], bool] | None = None,
    needs_vae: bool = False,
) -> Workflow:
    """Put ControlNets between the conditioning and the samplers of a graph, one after the other.

    Each acts on every sampler whose model it fits, so on both stages of a hires fix; samplers with the same
    conditioning share its nodes. ControlNets that the graph has stay, before the new ones.

    Args:
        workflow: an API-format graph; stays as it is.
        roles: of that graph.
        defs: the node classes of this ComfyUI, with the ControlNet files that it finds.
        specs: what to add; none leaves the graph as it is.
        fits: whether a sampler's model takes a ControlNet file; not known if absent.
        is_union: whether a ControlNet file serves several types; none does if absent.
        needs_vae: whether the family's ControlNets take the control map as a latent (SD 3, Flux, Qwen-Image).

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
    editor = Editor(workflow)
    if not specs:
        return editor.workflow
    graph = Graph(editor.workflow, defs)
    roots = {s: model_roots(graph, s) for s in roles.samplers if _conditioning(graph, s) is not None}
    if not roots:
        raise NoPlace("controlnets have no place in this graph: no sampler of it takes a linked conditioning")
    models = [root for found in roots.values() for root in found]
    names = [str(name) for name in defs["ControlNetLoader"].inputs["control_net_name"].choices or ()]
    for spec in specs:
        _check(spec, defs)
        if spec.model is not None:
            file = _known(match(spec.model, names, "controlnet"), models, fits, is_union)
        else:
            file = choose_model(spec.type, [_known(name, models, fits, is_union) for name in names])
        if file.fits is False:
            raise ModelMismatch(
                f"controlnet {file.name!r} fits no model of this graph; name one that is made for the graph's "
                "checkpoint",
                [{"file": file.name, "node_id": sampler.node_id} for sampler in roots],
            )
        samplers = [sampler for sampler, root in roots.items() if _fits(root, file.name, fits) is not False]
        _add(editor, graph, spec, file, samplers, needs_vae)
    return editor.workflow


def _conditioning(graph: Graph, sampler: Sampler) -> tuple[Link, Link | None] | None:
    """What a sampler's positive and negative inputs are linked to; None without a positive one."""
    positive = graph.link(sampler.positive) if sampler.positive else None
    negative = graph.link(sampler.negative) if sampler.negative else None
    return (positive, negative) if positive else None


def _fits(roots: Iterable[Link], file: str, fits: Fits | None) -> bool | None:
    """Whether one of the models takes a file; None where that is not known."""
    found = {fits(root.node_id, file) for root in roots} if fits else {None}
    return True if True in found else False if found == {False} else None


def _known(
    name: str, models: Sequence[Link], fits: Fits | None, is_union: Callable[[str], bool] | None
) -> ControlNetFile:
    return ControlNetFile(name, _fits(models, name, fits), is_union is not None and is_union(name))


def _check(spec: ControlNetSpec, defs: NodeDefs) -> None:
    declared = defs["ControlNetApplyAdvanced"].inputs
    Limits.of([declared["strength"]]).checked("controlnets strength", spec.strength)
    Limits.of([declared["start_percent"]]).checked("controlnets start", spec.start)
    Limits.of([declared["end_percent"]]).checked("controlnets end", spec.end)
    if spec.start >= spec.end:
        raise InvalidValue(
            f"controlnets start must be below end, not {spec.start} and {spec.end}",
            [{"key": "start", "value": spec.start}, {"key": "end", "value": spec.end}],
        )


def _add(
    editor: Editor,
    graph: Graph,
    spec: ControlNetSpec,
    file: ControlNetFile,
    samplers: Sequence[Sampler],
    needs_vae: bool,
) -> None:
    """Add one ControlNet: its loaders once, and one apply node for each conditioning that the samplers take."""
    image = _control_map(editor, graph.defs, spec)
    control_net = _control_net(editor, graph.defs, spec, file)
    applied: dict[tuple[Link, Link | None], str] = {}
    for sampler in samplers:
        pair = _conditioning(graph, sampler)
        assert pair is not None
        positive, negative = pair
        if pair not in applied:
            vae = {"vae": _vae(graph, sampler)} if needs_vae else {}
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


def _control_map(editor: Editor, defs: NodeDefs, spec: ControlNetSpec) -> Link:
    image = Link(editor.add("LoadImage", "ControlNet image", image=spec.image), 0)
    if not spec.wants_preprocessing:
        return image
    class_type = preprocessor(spec.type, defs)
    return Link(editor.add(class_type, "ControlNet map", image=image, **_defaults(defs, class_type)), 0)


def _defaults(defs: NodeDefs, class_type: str) -> dict[str, Any]:
    """Each literal of a node at its default; some of the pack's nodes fail without their optional ones."""
    return {
        name: spec.options.get("default", spec.choices[0] if spec.choices else None)
        for name, spec in defs[class_type].inputs.items()
        if spec.is_widget
    }


def _control_net(editor: Editor, defs: NodeDefs, spec: ControlNetSpec, file: ControlNetFile) -> Link:
    loaded = Link(editor.add("ControlNetLoader", f"ControlNet {file.name}", control_net_name=file.name), 0)
    if not file.union:
        return loaded
    words = control_type(spec.type).words if spec.type else ()
    choices = [str(choice) for choice in defs["SetUnionControlNetType"].inputs["type"].choices or ()]
    chosen = next((c for c in choices if any(part.startswith(words) for part in c.split("/"))), "auto")
    return Link(editor.add("SetUnionControlNetType", "ControlNet type", control_net=loaded, type=chosen), 0)


def _vae(graph: Graph, sampler: Sampler) -> Link:
    """The VAE that decodes what a sampler makes, or encodes what it starts from; else any VAE of the graph."""
    node_id = sampler.node_id
    below = _below(graph.workflow, node_id)
    fed = {node_id, *below}  # a VAE from there would close a circle
    for near in (*below, *ancestors(graph.workflow, node_id), *graph.workflow):
        for vae in filter(None, (graph.link(place) for place in graph.typed(near, "VAE"))):
            if vae.node_id not in fed:
                return vae
    for loader, node in graph.workflow.items():
        outputs = graph.defs[node["class_type"]].outputs if node["class_type"] in graph.defs else ()
        if "VAE" in outputs:
            return Link(loader, outputs.index("VAE"))
    raise NoPlace("controlnets of this family need a VAE, and this graph has none; add a VAELoader to it")


def _below(workflow: Workflow, node_id: str) -> list[str]:
    """Every node downstream of a node, nearest first."""
    row = [node_id]
    for above in row:
        row += [
            below
            for below, node in workflow.items()
            if below not in row and any(link.node_id == above for link in links_of(node).values())
        ]
    return row[1:]
