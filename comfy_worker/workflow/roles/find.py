"""Which node is the sampler, the prompt, the latent size, the image: found by walking up from the outputs.

Owns how a graph is read. Changes nothing, and leans on no node id: what a node is follows from its declared
inputs and outputs and from where it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.workflow.graph import Input, Link, Workflow, ancestors, consumers, title_of
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.stages import Sampler, Stage, chained, find_stages, has_size, named, trace_lineage
from comfy_worker.workflow.roles.texts import Text, conflicting
from comfy_worker.workflow.roles.titles import titled_places
from comfy_worker.workflow.tracing import Graph, literal_place

__all__ = ["Candidate", "Roles", "Sampler", "Size", "Split", "find_roles"]

# Parameters that mean one thing in a graph: where the nodes that hold them differ, the graph does not decide.
ONE_MEANING = ("checkpoint", "vae", "image", "mask", "width", "height", "length", "batch_size", "fps")


@dataclass(frozen=True)
class Candidate:
    """One of several places that a parameter might mean."""

    place: Input
    title: str
    class_type: str


@dataclass(frozen=True)
class Split:
    """A place that cuts the steps in two: a step number, and the place of the steps that it counts."""

    place: Input
    steps: Input


@dataclass(frozen=True)
class Size:
    """The literal width and height of a node that resizes what a sampler made."""

    width: Input
    height: Input


@dataclass(frozen=True)
class Roles:
    """What the nodes of one workflow are for.

    Attributes:
        samplers: the sampling stages, first to last; a sampler with neither text nor noise (a depth estimator)
            is none where there are others.
        places: by parameter name, the inputs that hold its literal.
        ambiguous: by parameter name, the candidates where the graph alone does not decide.
        outputs: the ids of the output nodes.
        splits: where the steps are divided among stages.
        resized: what must grow with width and height.
        alpha_masks: those of the ``image`` places whose node also gives its alpha channel as a mask.
        left: by parameter name, what is of the same kind and stays as it is: a refiner's checkpoint where the base
            model's is ``checkpoint``, further pictures where the first is ``image``.
    """

    samplers: tuple[Sampler, ...]
    places: Mapping[str, tuple[Input, ...]]
    ambiguous: Mapping[str, tuple[Candidate, ...]]
    outputs: tuple[str, ...]
    splits: tuple[Split, ...] = ()
    resized: tuple[Size, ...] = ()
    alpha_masks: tuple[Input, ...] = ()
    left: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)

    def outline(self) -> dict[str, Any]:
        """The roles as JSON: ids of nodes, and inputs written ``node_id.name`` by parameter."""
        return {
            "samplers": [sampler.node_id for sampler in self.samplers],
            "outputs": list(self.outputs),
            "places": {name: [str(place) for place in places] for name, places in self.places.items()},
            "ambiguous": {name: [str(one.place) for one in found] for name, found in self.ambiguous.items()},
            "left": {name: [str(one.place) for one in found] for name, found in self.left.items()},
        }


def find_roles(workflow: Workflow, defs: NodeDefs) -> Roles:
    """Find the roles of a workflow's nodes.

    Args:
        workflow: API format, as :func:`~comfy_worker.workflow.graph.parse` gives it.
        defs: the classes that this ComfyUI has; those that it lacks are read by the names of their inputs.
    """
    graph = Graph(workflow, defs)
    outputs = _outputs(graph)
    live = _live(workflow, outputs)
    stages = find_stages(graph, live)
    found = _found(graph, live, stages)
    unclear = {
        name for name in ONE_MEANING if len({repr(graph.value(place)) for place in found.get(name, ())}) > 1
    }
    for name, texts in _texts(stages).items():
        found[name] = list(dict.fromkeys(text.place for _, text in texts))
        if conflicting(texts, lambda one, other: chained(stages, one, other)):
            unclear.add(name)
    titled = titled_places(graph, live)
    for name, places in titled.items():
        # A title decides where the graph does not; where it does, it names one of the places that it found anyway.
        if name in unclear or not set(places) <= set(found.get(name, ())):
            found[name] = places
            unclear.discard(name)
    leading = {
        "checkpoint": _first_model(graph, stages),
        "image": _first_image(graph, found["image"], outputs, stages),
    }
    left = {}
    for name in unclear & leading.keys():
        if first := leading[name]:
            left[name] = tuple(_candidate(workflow, place) for place in found[name] if place not in first)
            found[name] = first
    unclear -= left.keys()
    return Roles(
        samplers=tuple(stage.sampler for stage in stages if stage.sampler),
        places={name: tuple(places) for name, places in found.items() if places and name not in unclear},
        ambiguous={name: tuple(_candidate(workflow, place) for place in found[name]) for name in sorted(unclear)},
        outputs=outputs,
        splits=tuple(_splits(graph, stages)),
        resized=tuple(_resized(graph, live, stages)),
        alpha_masks=tuple(_loaded(graph, live)["alpha"]),
        left=left,
    )


def _candidate(workflow: Workflow, place: Input) -> Candidate:
    return Candidate(place, title_of(workflow, place.node_id), workflow[place.node_id]["class_type"])


def _outputs(graph: Graph) -> tuple[str, ...]:
    """Output nodes as declared; a node that is not installed and that nobody reads may be one."""
    read = {link.node_id for node_id in graph.workflow for p in graph.inputs(node_id) if (link := graph.link(p))}
    found = []
    for node_id, node in graph.workflow.items():
        declared = graph.defs.get(node["class_type"])
        if declared.is_output if declared else node_id not in read:
            found.append(node_id)
    return tuple(found)


def _live(workflow: Workflow, outputs: Iterable[str]) -> list[str]:
    """The nodes that ComfyUI would run, in the order of the workflow; all of them where there is no output."""
    ids = set(outputs)
    for node_id in outputs:
        ids.update(ancestors(workflow, node_id))
    return [node_id for node_id in workflow if node_id in ids or not ids]


def _found(graph: Graph, live: list[str], stages: list[Stage]) -> dict[str, list[Input]]:
    """The places of every parameter but the texts, each place once."""
    loaded = _loaded(graph, live)
    carriers = [node_id for stage in stages for node_id in stage.carriers]
    guides = [node_id for stage in stages for node_id in (*stage.positive.nodes, *stage.negative.nodes)]
    found = {
        "seed": _held(graph, [one for one in carriers if _adds_noise(graph, one)], "seed"),
        "steps": _held(graph, [one for one in carriers if not _changes_sigmas(graph, one)], "steps"),
        "guidance": _held(graph, [*carriers, *guides], "guidance"),
        "denoise": _denoise(graph, stages),
        "checkpoint": _checkpoints(graph, stages),
        "vae": _vaes(graph, live, stages),
        "clip_skip": _held(graph, live, "clip_skip"),
        "fps": _fps(graph, live),
        "image": loaded["image"],
        "mask": loaded["mask"],
    }
    for name in ("cfg", "sampler", "scheduler"):
        found[name] = _held(graph, carriers, name)
    begins = [node_id for stage in stages for node_id in stage.lineage.begins]
    for name in ("length", "batch_size"):
        found[name] = _held(graph, begins, name)
    sizes = [node_id for stage in stages for node_id in stage.lineage.sizes]
    for name in ("width", "height"):
        found[name] = _with_agreeing(graph, live, name, _held(graph, sizes, name))
    return found


def _held(graph: Graph, node_ids: Iterable[str], parameter: str) -> list[Input]:
    return list(dict.fromkeys(place for node_id in node_ids for place in named(graph, node_id, parameter)))


def _adds_noise(graph: Graph, node_id: str) -> bool:
    return graph.value(Input(node_id, "add_noise")) not in ("disable", False)


def _changes_sigmas(graph: Graph, node_id: str) -> bool:
    """Whether a node takes sigmas and gives them on; its steps are then no number of sampling steps."""
    declared = graph.defs.get(graph.workflow[node_id]["class_type"])
    return declared is not None and "SIGMAS" in declared.outputs and bool(graph.linked(node_id, "SIGMAS"))


def _denoise(graph: Graph, stages: list[Stage]) -> list[Input]:
    """A stage that begins with an empty latent must denoise it all, unless there is no other stage."""
    begun = [stage for stage in stages if not stage.lineage.sizes]
    return _held(graph, [node_id for stage in begun for node_id in stage.carriers], "denoise") or _held(
        graph, [node_id for stage in stages for node_id in stage.carriers], "denoise"
    )


def _checkpoints(graph: Graph, stages: list[Stage]) -> list[Input]:
    models = [stage.sampler.model for stage in stages if stage.sampler and stage.sampler.model]
    return _held(graph, graph.sources(models, "MODEL"), "checkpoint")


def _first_model(graph: Graph, stages: list[Stage]) -> list[Input]:
    """The first stage's model file, where the others are of stages with text encoders of their own (a refiner).

    Two models behind the same texts are halves of one (Wan 2.2's two experts): neither comes first.
    """
    first, *others = [_checkpoints(graph, [stage]) for stage in stages] or [[]]
    encoders = {text.encoder for text in stages[0].positive.texts} if stages else set()
    for stage, places in zip(stages[1:], others, strict=True):
        if set(places) != set(first) and encoders & {text.encoder for text in stage.positive.texts}:
            return []
    return first if len({repr(graph.value(place)) for place in first}) == 1 else []


def _first_image(
    graph: Graph, images: list[Input], outputs: Iterable[str], stages: Iterable[Stage]
) -> list[Input]:
    """The picture that a stage starts from, else the first in the order in which the graph is read.

    So a start image goes before a control map, and of a first and a last frame the first.
    """
    order = {node_id: position for position, node_id in enumerate(graph.reading_order(outputs))}
    started = {node_id for stage in stages for node_id in stage.lineage.nodes}

    def rank(place: Input) -> tuple[bool, int]:
        return place.node_id not in started, order.get(place.node_id, len(order))

    first = min(images, key=rank, default=None)
    return [place for place in images if first and graph.value(place) == graph.value(first)]


def _vaes(graph: Graph, live: list[str], stages: list[Stage]) -> list[Input]:
    """The VAE loaders of what encodes for the stages and of what decodes their latents."""
    ids = {stage.node_id for stage in stages}
    users = [
        one for stage in stages for one in (*stage.lineage.begins, *stage.positive.nodes, *stage.negative.nodes)
    ]
    for node_id in live:
        latents = graph.linked(node_id, "LATENT")
        if graph.linked(node_id, "VAE") and latents and trace_lineage(graph, latents[0], ids).before:
            users.append(node_id)
    vaes = [place for node_id in users for place in graph.linked(node_id, "VAE")]
    return _held(graph, graph.sources(vaes, "VAE"), "vae")


def _fps(graph: Graph, live: list[str]) -> list[Input]:
    """The rate at which pictures become a clip, and that of a conditioning that is set to the same."""
    clips = [node_id for node_id in live if graph.linked(node_id, "IMAGE") and not graph.linked(node_id, "VAE")]
    found = _held(graph, clips, "fps")
    rates = {repr(graph.value(place)) for place in found}
    return list(dict.fromkeys([*found, *(p for p in _held(graph, live, "fps") if repr(graph.value(p)) in rates)]))


def _loaded(graph: Graph, live: list[str]) -> dict[str, list[Input]]:
    """The inputs that name an uploaded picture, by what of it is used: its pixels, its mask, or both."""
    found: dict[str, list[Input]] = {"image": [], "mask": [], "alpha": []}
    for node_id in live:
        declared = graph.defs.get(graph.workflow[node_id]["class_type"])
        places = [p for p in graph.inputs(node_id) if (spec := graph.spec(p)) and spec.options.get("image_upload")]
        literals = [place for place in (literal_place(graph, p) for p in places) if place]
        if not declared or not literals:
            continue
        used = {
            kind
            for slot, kind in enumerate(declared.outputs)
            if any(reader.node_id in live for reader in consumers(graph.workflow, Link(node_id, slot)))
        }
        found["mask" if used == {"MASK"} or "IMAGE" not in declared.outputs else "image"] += literals
        if {"IMAGE", "MASK"} <= used:
            found["alpha"] += literals
    return found


def _with_agreeing(graph: Graph, live: list[str], name: str, found: list[Input]) -> list[Input]:
    """Add the nodes that must be told the size (a model's or a scheduler's), where they say the same now."""
    places = list(found)
    sizes = {repr(graph.value(place)) for place in found}
    for node_id in live:
        declared = graph.defs.get(graph.workflow[node_id]["class_type"])
        if declared and {"MODEL", "SIGMAS", "CONDITIONING"} & set(declared.outputs) and has_size(graph, node_id):
            places += [p for p in named(graph, node_id, name) if sizes == {repr(graph.value(p))}]
    return list(dict.fromkeys(places))


def _texts(stages: list[Stage]) -> dict[str, list[tuple[str, Text]]]:
    """The texts of every stage; a negative one that is also a positive one is the positive one."""
    positive = [(stage.node_id, text) for stage in stages for text in stage.positive.texts]
    taken = {text.place for _, text in positive}
    negative = [(stage.node_id, text) for stage in stages for text in stage.negative.texts]
    return {"prompt": positive, "negative_prompt": [pair for pair in negative if pair[1].place not in taken]}


def _splits(graph: Graph, stages: list[Stage]) -> list[Split]:
    """``start_at_step`` and ``end_at_step`` of a sampler, ``step`` of a node that cuts sigmas."""
    found = []
    for node_id in dict.fromkeys(one for stage in stages for one in stage.carriers):
        cuts_sigmas = _changes_sigmas(graph, node_id)
        above = list(graph.upstream(graph.linked(node_id, "SIGMAS"), "SIGMAS")) if cuts_sigmas else [node_id]
        steps = [p for one in above if not _changes_sigmas(graph, one) for p in named(graph, one, "steps")]
        names = {"step"} if cuts_sigmas else {"start_at_step", "end_at_step"}
        places = [literal_place(graph, place) for place in graph.inputs(node_id) if place.name in names]
        found += [Split(place, steps[0]) for place in places if place and steps]
    return list(dict.fromkeys(found))


def _resized(graph: Graph, live: list[str], stages: list[Stage]) -> list[Size]:
    """What brings a sampler's latent or picture to a literal size."""
    below = graph.downstream(stage.node_id for stage in stages)
    found = []
    for node_id in live:
        if node_id not in below or not has_size(graph, node_id):
            continue
        declared = graph.defs.get(graph.workflow[node_id]["class_type"])
        for kind in ("LATENT", "IMAGE"):
            if declared and declared.outputs[:1] == (kind,) and graph.linked(node_id, kind):
                width, height = named(graph, node_id, "width"), named(graph, node_id, "height")
                found += [Size(width[0], height[0])] if width and height else []
    return found
