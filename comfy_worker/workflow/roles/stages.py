"""The stages that make a workflow's result: its samplers, in order, each with what lies above it.

Owns what counts as a sampler and the walk along its latent. Knows no parameter but the names under which nodes
hold them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from comfy_worker.workflow.graph import Input, ancestors
from comfy_worker.workflow.roles.texts import TEXTUAL, Reading, Text, polarity, read_texts, text_inputs, written
from comfy_worker.workflow.tracing import Graph, literal_place

__all__ = ["NAMES", "Lineage", "Sampler", "Stage", "chained", "find_stages", "has_size", "named", "trace_lineage"]

# Under which names nodes hold a parameter, most telling first, and of which types it is.
NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "seed": (("seed", "noise_seed"), ("INT",)),
    "steps": (("steps", "num_inference_steps"), ("INT",)),
    "cfg": (("cfg", "cfg_scale", "cfg_conds"), ("FLOAT", "INT")),
    "guidance": (("guidance", "guidance_scale"), ("FLOAT", "INT")),
    "sampler": (("sampler_name", "sampler"), ("COMBO", "STRING")),
    "scheduler": (("scheduler",), ("COMBO", "STRING")),
    "denoise": (("denoise", "denoising_strength"), ("FLOAT",)),
    "width": (("width",), ("INT",)),
    "height": (("height",), ("INT",)),
    "length": (("length", "video_frames", "num_frames"), ("INT",)),
    "fps": (("fps", "frame_rate"), ("FLOAT", "INT")),
    "batch_size": (("batch_size",), ("INT",)),
    "clip_skip": (("stop_at_clip_layer",), ("INT",)),
    "checkpoint": (("ckpt_name", "unet_name", "model_name", "model_path", "model"), ("COMBO", "STRING")),
    "vae": (("vae_name",), ("COMBO", "STRING")),
}


@dataclass(frozen=True)
class Sampler:
    """One sampling stage, in whichever nodes it lies.

    Attributes:
        node_id: the node that turns a latent into a denoised one.
        model: the input that takes the diffusion model, on the sampler or on its guider.
        positive: the input that takes the positive conditioning, on the sampler or on its guider.
        negative: likewise the negative one; None where the guider has none.
        latent: the input that takes the latent to start from.
    """

    node_id: str
    model: Input | None
    positive: Input | None
    negative: Input | None
    latent: Input | None


@dataclass
class Lineage:
    """What the latent of a stage is made of, up to the stages before it.

    Attributes:
        nodes: every node on the way.
        before: the samplers that it continues.
        begins: the nodes that make a latent out of none: empty latents of all kinds, encoders.
        sizes: those of them that give it a width and height.
    """

    nodes: list[str] = field(default_factory=list)
    before: set[str] = field(default_factory=set)
    begins: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stage:
    """One stage of a workflow: a sampler, or a node that makes a result by itself (a paid service).

    Attributes:
        node_id: the sampler, or that node.
        sampler: None for a node that makes a result by itself.
        carriers: the nodes that hold the stage's numbers: sampler, guider, noise, sigmas.
        lineage: what its latent is made of.
        positive: its positive texts.
        negative: its negative texts.
    """

    node_id: str
    sampler: Sampler | None
    carriers: tuple[str, ...]
    lineage: Lineage
    positive: Reading
    negative: Reading


def named(graph: Graph, node_id: str, parameter: str) -> list[Input]:
    """Where the value of a parameter that a node holds by name is written; empty if it holds none."""
    places = (literal_place(graph, place) for place in _by_name(graph, node_id, parameter))
    return [place for place in places if place]


def _by_name(graph: Graph, node_id: str, parameter: str) -> list[Input]:
    names, types = NAMES[parameter]
    widgets = {place.name.lower(): place for place in graph.widgets(node_id) if graph.type_of(place) in types}
    found = [widgets[name] for name in names if name in widgets][:1]
    if parameter == "seed" and not found:
        return [place for name, place in widgets.items() if name.endswith("seed")]
    return found


def find_stages(graph: Graph, live: Iterable[str]) -> list[Stage]:
    """Find the stages among the nodes that feed an output, first to last.

    A sampler with neither text nor noise (a depth estimator) is a tool of another stage; it counts only where
    there is nothing else. Where there is no sampler at all, every node may hold a parameter.
    """
    live = list(live)
    samplers = {node_id: _sampler(graph, node_id) for node_id in live if _is_sampler(graph, node_id)}
    stages = [_stage(graph, sampler, samplers.keys()) for sampler in samplers.values()]
    makers = [node_id for node_id in live if _is_api(graph, node_id)]
    if not stages and not makers:
        return [_alone(graph, node_id) for node_id in live]
    stages += [_alone(graph, node_id) for node_id in makers]
    stages = [stage for stage in stages if not _is_tool(graph, stage)] or stages
    above = {stage.node_id: set(ancestors(graph.workflow, stage.node_id)) for stage in stages}
    return sorted(stages, key=lambda stage: sum(other.node_id in above[stage.node_id] for other in stages))


def chained(stages: Iterable[Stage], one: str, other: str) -> bool:
    """Whether of two stages one continues the other's latent, directly or over stages between."""
    before = {stage.node_id: stage.lineage.before for stage in stages}

    def continues(later: str, earlier: str) -> bool:
        row, seen = [later], set()
        while row:
            node_id = row.pop()
            if node_id not in seen:
                seen.add(node_id)
                row += before.get(node_id, ())
        return earlier in seen

    return continues(one, other) or continues(other, one)


def trace_lineage(graph: Graph, start: Input | None, samplers: Iterable[str]) -> Lineage:
    """Walk from a latent (or picture) up to the samplers or to the nodes that it begins with."""
    lineage = Lineage()
    samplers = set(samplers)
    row = [start] if start else []
    while row:
        place = row.pop(0)
        link = graph.link(place)
        if link is None or link.node_id in lineage.nodes or link.node_id in lineage.before:
            continue
        node_id = link.node_id
        if node_id in samplers:
            lineage.before.add(node_id)
            continue
        lineage.nodes.append(node_id)
        latents, images = graph.linked(node_id, "LATENT"), graph.linked(node_id, "IMAGE")
        if not latents and (graph.type_of(place) == "LATENT" or not images):
            lineage.begins.append(node_id)
            if has_size(graph, node_id):
                lineage.sizes.append(node_id)
                continue
        row += latents or images
    return lineage


def has_size(graph: Graph, node_id: str) -> bool:
    """Whether a node has a width and a height, and is no rectangle within something larger."""
    names = {place.name for place in graph.inputs(node_id)}
    return {"width", "height"} <= names and "x" not in names


def _is_sampler(graph: Graph, node_id: str) -> bool:
    """By socket types: it is driven by a model and its conditioning, runs over steps, and gives a result."""
    takes = {kind for place in graph.inputs(node_id) for kind in graph.type_of(place).split(",")}
    driven = "GUIDER" in takes or {"MODEL", "CONDITIONING"} <= takes
    if not driven or not (_gives(graph, node_id, "LATENT") or _gives(graph, node_id, "IMAGE")):
        return False
    return "SIGMAS" in takes or any(_by_name(graph, node_id, word) for word in ("steps", "seed"))


def _gives(graph: Graph, node_id: str, kind: str) -> bool:
    """Whether a node gives a type; one that is not installed might."""
    declared = graph.defs.get(graph.workflow[node_id]["class_type"])
    return declared is None or kind in declared.outputs


def _is_api(graph: Graph, node_id: str) -> bool:
    declared = graph.defs.get(graph.workflow[node_id]["class_type"])
    return declared is not None and declared.is_api


def _is_tool(graph: Graph, stage: Stage) -> bool:
    reads = stage.positive.texts or stage.negative.texts
    return stage.sampler is not None and not reads and not any(named(graph, one, "seed") for one in stage.carriers)


def _sampler(graph: Graph, node_id: str) -> Sampler:
    holder = next(
        (one for one in [node_id, *_drivers(graph, node_id, "GUIDER")] if graph.linked(one, "MODEL")), node_id
    )
    conditioning = graph.linked(holder, "CONDITIONING")
    positive = [place for place in conditioning if polarity(place.name) == "positive"] or [
        place for place in conditioning if polarity(place.name) is None
    ]
    negative = [place for place in conditioning if polarity(place.name) == "negative"]
    return Sampler(
        node_id,
        model=next(iter(graph.linked(holder, "MODEL")), None),
        positive=next(iter(positive), None),
        negative=next(iter(negative), None),
        latent=next(iter(graph.linked(node_id, "LATENT")), None),
    )


def _drivers(graph: Graph, node_id: str, *types: str) -> list[str]:
    """The nodes above a sampler along links of the given types."""
    return list(graph.upstream(graph.linked(node_id, *types), *types))


def _stage(graph: Graph, sampler: Sampler, samplers: Iterable[str]) -> Stage:
    node_id = sampler.node_id
    start = sampler.latent or next(iter(graph.linked(node_id, "IMAGE")), None)
    lineage = trace_lineage(graph, start, samplers)
    noisy = [one for above in lineage.nodes for one in _drivers(graph, above, "NOISE")]
    return Stage(
        node_id,
        sampler,
        carriers=(node_id, *_drivers(graph, node_id, "GUIDER", "NOISE", "SAMPLER", "SIGMAS"), *noisy),
        lineage=lineage,
        positive=read_texts(graph, sampler.positive, "positive") if sampler.positive else Reading(),
        negative=read_texts(graph, sampler.negative, "negative") if sampler.negative else Reading(),
    )


def _alone(graph: Graph, node_id: str) -> Stage:
    """A node that holds its text and its numbers itself."""
    texts: dict[str, list[Text]] = {"positive": [], "negative": []}
    for side, found in texts.items():
        for encoder in text_inputs(graph, node_id, side):
            is_mine = side == "positive" or polarity(encoder.name) == "negative"
            if is_mine and TEXTUAL.search(encoder.name):
                places = written(graph, encoder, side)
                found += [Text(place, str(graph.value(place)).strip(), encoder) for place in places]
    return Stage(
        node_id,
        None,
        carriers=(node_id,),
        lineage=Lineage(begins=[node_id], sizes=[node_id] if has_size(graph, node_id) else []),
        positive=Reading(texts["positive"]),
        negative=Reading(texts["negative"]),
    )
