"""Finds the stages that make a workflow's result: its samplers, in order, and what feeds them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from comfy_worker.workflow.graph import Fold, Input, Link, walk
from comfy_worker.workflow.roles.texts import TEXTUAL, Text, TextReader, polarity, text_inputs
from comfy_worker.workflow.tracing import CARRIERS, TypedWorkflow, settable, types_in

__all__ = ["NAMES", "Sampler", "Stage", "Stages", "has_size", "held_as", "named", "slots_read"]

# By parameter: the input names that nodes use for it, the clearest first, and its types.
NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "seed": (("seed", "noise_seed"), ("INT",)),
    "steps": (("steps", "num_inference_steps"), ("INT",)),
    "cfg": (("cfg", "cfg_scale", "cfg_conds"), ("FLOAT", "INT")),
    "guidance": (("guidance", "guidance_scale"), ("FLOAT", "INT")),
    "sampler": (("sampler_name", "sampler"), ("COMBO", "STRING")),
    "scheduler": (("scheduler",), ("COMBO", "STRING")),
    "denoise": (("denoise", "denoising_strength"), ("FLOAT",)),
    "width": (("width", "empty_latent_width"), ("INT",)),
    "height": (("height", "empty_latent_height"), ("INT",)),
    "length": (("length", "video_frames", "num_frames"), ("INT",)),
    "fps": (("fps", "frame_rate"), ("FLOAT", "INT")),
    "batch_size": (("batch_size",), ("INT",)),
    "clip_skip": (("stop_at_clip_layer",), ("INT",)),
    "checkpoint": (
        ("ckpt_name", "unet_name", "model_name", "model_path", "model"),
        ("COMBO", "STRING"),
    ),
    "vae": (("vae_name",), ("COMBO", "STRING")),
}

# A sampler can get its settings from other nodes. These are the types of the links to them.
DRIVERS = ("GUIDER", "NOISE", "SAMPLER", "SIGMAS")
SIDES = ("positive", "negative")
# Outputs of a sampler that are not its picture. If only these are used, the sampler is a tool.
SIDE_RESULTS = frozenset({"MASK", "SEGS", "INT", "FLOAT", "STRING", "BOOLEAN"})
BUNDLE = re.compile(r"PIPE|CONTEXT")
# So many nodes at most lie between a sampler and the node that sets its size.
MAX_WAY = 64


@dataclass(frozen=True)
class Sampler:
    """One sampling stage, in one node or in several.

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


class LatentTrace(NamedTuple):
    """Facts about how a latent or picture is made, back to the nearest samplers.

    Attributes:
        before: a bit for each sampler whose result is used.
        is_sized: whether a node gives it a width and a height.
        is_noisy: whether a node adds noise with a seed.
    """

    before: int = 0
    is_sized: bool = False
    is_noisy: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage of a workflow: a sampler, or a node that makes a result by itself (a paid service).

    Attributes:
        node_id: the sampler, or that node.
        sampler: None for a node that makes a result by itself.
        start: the input with the latent or picture that a sampler begins with.
        latent_trace: what that is made of.
        positive: its positive texts.
        negative: its negative texts.
        is_retouch: whether it takes a picture and gives a picture: a detailer, a tiled upscaler.
    """

    node_id: str
    sampler: Sampler | None
    start: Input | None
    latent_trace: LatentTrace
    positive: tuple[Text, ...] = ()
    negative: tuple[Text, ...] = ()
    is_retouch: bool = False


# A node that a latent is made of, and whether it was reached by a latent.
Ancestor = tuple[str, bool]


@dataclass(frozen=True)
class Origins:
    """The nodes that make latents.

    Attributes:
        nodes: every node on the way.
        latent_sources: those that make a latent without another latent as input.
        sizes: the latent sources that set a width and height.
    """

    nodes: list[str]
    latent_sources: list[str]
    sizes: list[str]


class Stages:
    """The stages of a workflow, first to last. Only nodes that feed an output count.

    A sampler is a tool of another stage if it has neither text nor noise (a depth estimator), or if
    only a mask of its result is used. Tools count only if there are no other stages. If the
    workflow has no sampler, every node may hold a parameter.

    Args:
        graph: the workflow.
        live: the nodes that feed an output.

    Attributes:
        all: the stages in their order.
        main: the stages that get the client's parameters. A retouch keeps its own numbers if
            another stage makes the picture.
        retouches: the others.
        reader: reads the texts.
        numbers: by node id, the number of its stage: the position of its bit in sets of stages.
    """

    def __init__(self, graph: TypedWorkflow, live: Collection[str]) -> None:
        self.graph = graph
        self.reader = TextReader(graph)
        samplers = [node_id for node_id in live if _is_sampler(graph, node_id)]
        makers = [node_id for node_id in live if _is_api(graph, node_id)]
        alone = makers if samplers or makers else list(live)
        self.numbers = {node_id: number for number, node_id in enumerate([*samplers, *alone])}
        self._samplers = set(samplers)
        self._slots = slots_read(graph, set(live))
        self._latent_traces = Fold(self._made_of, self._latent_trace, graph.check)
        self._seeded = Fold(
            lambda node_id: graph.above(node_id, *DRIVERS), self._has_seed, graph.check
        )
        self._holders = Fold(
            lambda node_id: graph.above(node_id, "GUIDER"), self._holder, graph.check
        )
        found = [self._sampling(node_id) for node_id in samplers]
        found += [self._alone(node_id) for node_id in alone]
        found = [stage for stage in found if not self._is_tool(stage)] or found
        self.all = self._in_order(found)
        self._starts = {stage.node_id: stage.start for stage in self.all}
        self._continued = Fold(self._made_of_stages, self._stages_above, graph.check)
        makes_picture = [stage for stage in self.all if not stage.is_retouch]
        first = [stage for stage in self.all if not stage.latent_trace.before]
        self.main = makes_picture or first or self.all
        main_ids = {stage.node_id for stage in self.main}
        self.retouches = [stage for stage in self.all if stage.node_id not in main_ids]

    def comparable(self) -> dict[int, int]:
        """Return, by stage number, bits of the stages that work on its picture before or after."""
        size = len(self.numbers)
        before = [0] * size
        for stage in self.all:
            state = self._ancestor(stage.start)
            before[self.numbers[stage.node_id]] = self._continued(state) if state else 0
        # Turned by its diagonal, a table of what is before each stage says what is after each.
        rows = (format(bits, f"0{size}b")[::-1] for bits in reversed(before))
        after = [int("".join(column), 2) for column in zip(*rows, strict=True)]
        return {number: before[number] | after[number] | 1 << number for number in range(size)}

    def settings_nodes(self, stages: Sequence[Stage]) -> list[str]:
        """Return the nodes with the settings of these stages: samplers, guiders, noise, sigmas."""
        graph = self.graph
        noises = (
            node_id for origin in self.origins(stages).nodes for node_id in _noises(graph, origin)
        )
        starts = [*(stage.node_id for stage in stages), *noises]
        return list(walk(starts, lambda node_id: graph.above(node_id, *DRIVERS), graph.check))

    def origins(self, stages: Iterable[Stage]) -> Origins:
        """Return the nodes that make the latents of these stages, back to earlier stages."""
        origins = Origins([], [], [])
        seen: set[Ancestor] = set()
        for stage in stages:
            if stage.sampler is None:
                origins.latent_sources.append(stage.node_id)
                if has_size(self.graph, stage.node_id):
                    origins.sizes.append(stage.node_id)
                continue
            start = self._ancestor(stage.start)
            for state in walk([start] if start else [], self._made_of, self.graph.check, seen):
                self._note(state, origins)
        return origins

    def way(self, stage: Stage) -> list[str]:
        """Return the nodes from a stage back to the node that sets its size, nearest first.

        Empty if several latents are joined on the way, or if no node sets a size.
        """
        way: dict[str, None] = {}
        state = self._ancestor(stage.start) if stage.sampler else None
        while state and state[0] not in way and len(way) < MAX_WAY:
            node_id, _ = state
            way[node_id] = None
            if node_id in self._samplers:
                return []
            above = self._made_of(state)
            if not above and self._is_latent_source(state) and has_size(self.graph, node_id):
                return list(way)
            state = above[0] if len(above) == 1 else None
        return []

    def latent_trace(self, node_input: Input | None) -> LatentTrace:
        """Return facts about how the latent or picture of an input is made."""
        state = self._ancestor(node_input)
        return self._latent_traces(state) if state else LatentTrace()

    def _note(self, state: Ancestor, origins: Origins) -> None:
        node_id, _ = state
        if node_id in self._samplers:
            return
        origins.nodes.append(node_id)
        if self._is_latent_source(state):
            origins.latent_sources.append(node_id)
            if has_size(self.graph, node_id):
                origins.sizes.append(node_id)

    def _ancestor(self, node_input: Input | None) -> Ancestor | None:
        link = self.graph.link(node_input) if node_input else None
        return (
            (link.node_id, self.graph.type_of(node_input) == "LATENT")
            if node_input and link
            else None
        )

    def _is_latent_source(self, state: Ancestor) -> bool:
        """Whether a node makes a latent without a latent as input: an empty latent, an encoder."""
        node_id, is_latent = state
        images = self.graph.linked(node_id, "IMAGE")
        return not self.graph.linked(node_id, "LATENT") and (is_latent or not images)

    def _made_of(self, state: Ancestor) -> list[Ancestor]:
        node_id, _ = state
        if node_id in self._samplers or (
            self._is_latent_source(state) and has_size(self.graph, node_id)
        ):
            return []
        node_inputs = self.graph.linked(node_id, "LATENT") or self.graph.linked(node_id, "IMAGE")
        return [above for node_input in node_inputs if (above := self._ancestor(node_input))]

    def _latent_trace(self, state: Ancestor, above: list[LatentTrace]) -> LatentTrace:
        node_id, _ = state
        if node_id in self._samplers:
            return LatentTrace(before=1 << self.numbers[node_id])
        before = 0
        for other in above:
            before |= other.before
        return LatentTrace(
            before,
            is_sized=any(other.is_sized for other in above)
            or (self._is_latent_source(state) and has_size(self.graph, node_id)),
            is_noisy=any(other.is_noisy for other in above)
            or any(self._seeded(noise) for noise in _noises(self.graph, node_id)),
        )

    def _made_of_stages(self, state: Ancestor) -> list[Ancestor]:
        """Like ``_made_of``, but continue through samplers, to the latents that they start from."""
        node_id, _ = state
        if node_id not in self._samplers:
            return self._made_of(state)
        above = self._ancestor(self._starts.get(node_id))
        return [above] if above else []

    def _stages_above(self, state: Ancestor, above: list[int]) -> int:
        node_id, _ = state
        bits = 1 << self.numbers[node_id] if node_id in self._samplers else 0
        for other in above:
            bits |= other
        return bits

    def _has_seed(self, node_id: str, above: list[bool]) -> bool:
        return any(above) or bool(named(self.graph, node_id, "seed"))

    def _holder(self, node_id: str, above: list[str | None]) -> str | None:
        """Return the node that the model is linked to: the sampler, or its guider."""
        if self.graph.linked(node_id, "MODEL"):
            return node_id
        return next((holder for holder in above if holder), None)

    def _sampling(self, node_id: str) -> Stage:
        graph = self.graph
        sampler = _sampler(graph, node_id, self._holders(node_id) or node_id)
        pictures = graph.typed(node_id, "IMAGE")
        declared = graph.declared(node_id)
        gives_picture = declared is None or declared.outputs[:1] == ("IMAGE",)
        start = sampler.latent or next(iter(graph.linked(node_id, "IMAGE")), None)
        return Stage(
            node_id,
            sampler,
            start,
            self.latent_trace(start),
            positive=tuple(self.reader.read(sampler.positive, "positive"))
            if sampler.positive
            else (),
            negative=tuple(self.reader.read(sampler.negative, "negative"))
            if sampler.negative
            else (),
            is_retouch=bool(pictures) and gives_picture and not graph.typed(node_id, "LATENT"),
        )

    def _alone(self, node_id: str) -> Stage:
        """Make a stage of a node that is not a sampler and holds its texts and numbers itself."""
        graph = self.graph
        texts: dict[str, list[Text]] = {"positive": [], "negative": []}
        for side, found in texts.items():
            for encoder in text_inputs(graph, node_id, side):
                is_mine = side == "positive" or polarity(encoder.name) == "negative"
                if is_mine and TEXTUAL.search(encoder.name):
                    node_inputs = self.reader.written(encoder, side)
                    found += [
                        Text(node_input, str(graph.value(node_input)).strip(), encoder)
                        for node_input in node_inputs
                    ]
        latent_trace = LatentTrace(is_sized=has_size(graph, node_id))
        return Stage(
            node_id, None, None, latent_trace, tuple(texts["positive"]), tuple(texts["negative"])
        )

    def _is_tool(self, stage: Stage) -> bool:
        if stage.sampler is None:
            return False
        slots = self._slots.get(stage.node_id, set())
        declared = self.graph.declared(stage.node_id)
        is_read = bool(slots) and not (declared is not None and declared.is_output)
        if is_read and all(self.graph.output_type(link) in SIDE_RESULTS for link in slots):
            return True
        has_text = stage.positive or stage.negative
        return not has_text and not self._seeded(stage.node_id) and not stage.latent_trace.is_noisy

    def _in_order(self, stages: list[Stage]) -> list[Stage]:
        """Sort the stages: each one comes after the stages that feed it through any links."""
        own = {stage.node_id: 1 << self.numbers[stage.node_id] for stage in stages}

        def above(node_id: str) -> list[str]:
            return [link.node_id for link in self.graph.links(node_id).values()]

        def joined(node_id: str, bits_above: list[int]) -> int:
            bits = own.get(node_id, 0)
            for other in bits_above:
                bits |= other
            return bits

        before = Fold(above, joined, self.graph.check)
        return sorted(
            stages, key=lambda stage: (before(stage.node_id) & ~own[stage.node_id]).bit_count()
        )


def slots_read(graph: TypedWorkflow, live: Collection[str]) -> dict[str, set[Link]]:
    """Return, by node, the outputs that live nodes read."""
    found: dict[str, set[Link]] = {}
    for link, node_inputs in graph.readers().items():
        if any(node_input.node_id in live for node_input in node_inputs):
            found.setdefault(link.node_id, set()).add(link)
    return found


def _noises(graph: TypedWorkflow, node_id: str) -> list[str]:
    """Return the noise nodes whose noise this node adds to a latent."""
    return [link.node_id for link in map(graph.link, graph.typed(node_id, "NOISE")) if link]


def named(graph: TypedWorkflow, node_id: str, parameter: str) -> list[Input]:
    """Return the inputs in which a node's value for this parameter is written.

    Returns an empty list if the node has none.
    """
    is_size = parameter in ("width", "height")
    return [
        written
        for node_input in held_as(graph, node_id, parameter)
        for written in settable(graph, node_input, is_size)
    ]


def held_as(graph: TypedWorkflow, node_id: str, parameter: str) -> list[Input]:
    """Return the inputs of a node whose name belongs to this parameter."""
    names, types = NAMES[parameter]
    widgets = {
        node_input.name.lower(): node_input
        for node_input in graph.widgets(node_id)
        if graph.type_of(node_input) in types
    }
    found = [widgets[name] for name in names if name in widgets][:1]
    if parameter in ("seed", "cfg") and not found:
        # `video_cfg` and `audio_cfg`, `noise_seed` and `variation_seed`.
        return [node_input for name, node_input in widgets.items() if name.endswith(parameter)]
    return found


def has_size(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node has a width and a height that are not those of a part of a larger picture."""
    names = {node_input.name for node_input in graph.inputs(node_id)}
    return "x" not in names and all(
        not names.isdisjoint(NAMES[side][0]) for side in ("width", "height")
    )


def _is_sampler(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node samples, by its links: it takes a model and conditioning, and has steps."""
    takes = frozenset().union(
        *(types_in(graph.type_of(node_input)) for node_input in graph.inputs(node_id))
    )
    if not (_gives(graph, node_id, "LATENT") or _gives(graph, node_id, "IMAGE")):
        return False
    has_numbers = any(held_as(graph, node_id, word) for word in ("steps", "seed"))
    if "GUIDER" in takes or {"MODEL", "CONDITIONING"} <= takes:
        return "SIGMAS" in takes or has_numbers
    # What is in a bundle no socket says; then the node's own steps or its name must.
    is_bundled = any(BUNDLE.search(type_name) for type_name in takes)
    is_called_so = "sampler" in graph.workflow[node_id]["class_type"].lower()
    return is_bundled and (is_called_so or bool(held_as(graph, node_id, "steps")))


def _gives(graph: TypedWorkflow, node_id: str, type_name: str) -> bool:
    """Whether a node may output this type; a node that is not installed may output any."""
    declared = graph.defs.get(graph.workflow[node_id]["class_type"])
    return declared is None or type_name in declared.outputs


def _is_api(graph: TypedWorkflow, node_id: str) -> bool:
    declared = graph.defs.get(graph.workflow[node_id]["class_type"])
    return declared is not None and declared.is_api


def _sampler(graph: TypedWorkflow, node_id: str, holder: str) -> Sampler:
    conditioning = graph.linked(holder, "CONDITIONING")
    by_side = {
        side: [node_input for node_input in conditioning if polarity(node_input.name) == side]
        for side in SIDES
    }
    plain = [node_input for node_input in conditioning if polarity(node_input.name) is None]
    positive = by_side["positive"] or plain
    # A bundle holds both sides.
    negative = by_side["negative"] or [
        node_input for node_input in plain if CARRIERS.search(graph.type_of(node_input))
    ]
    return Sampler(
        node_id,
        model=next(iter(graph.linked(holder, "MODEL")), None),
        positive=next(iter(positive), None),
        negative=next(iter(negative), None),
        latent=next(iter(graph.linked(node_id, "LATENT")), None),
    )
