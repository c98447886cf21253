"""Finds the stages that make a workflow's result: its samplers, in order, and what feeds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.roles.bit_sets import union
from comfy_worker.workflow.roles.latents import (
    DRIVERS,
    Ancestor,
    LatentReader,
    LatentTrace,
    Origins,
    noise_nodes,
)
from comfy_worker.workflow.roles.parameter_inputs import has_size
from comfy_worker.workflow.roles.samplers import (
    Sampler,
    SamplerReader,
    is_api_node,
    is_sampler,
    slots_read,
)
from comfy_worker.workflow.roles.text_inputs import PROMPT_NAME, polarity, text_inputs
from comfy_worker.workflow.roles.texts import Text, TextReader
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Fold, walk

__all__ = ["Stage", "Stages"]

# Outputs of a sampler that are not its picture. If only these are used, the sampler is a tool.
SIDE_RESULTS = frozenset({"MASK", "SEGS", "INT", "FLOAT", "STRING", "BOOLEAN"})


@dataclass(frozen=True)
class Stage:
    """One stage of a workflow: a sampler, or a node that makes a result by itself (a paid service).

    Attributes:
        node_id: the sampler, or that node.
        sampler: None for a node that makes a result by itself.
        start: the input with the latent or picture that a sampler begins with.
        latent_trace: how that latent or picture is made.
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
        main_settings: the nodes with the settings of the main stages.
        latents: follows latents back to the nodes that make them.
        reader: reads the texts.
        numbers: by node id, the number of its stage: the position of its bit in sets of stages.
    """

    def __init__(self, graph: TypedWorkflow, live: Sequence[str]) -> None:
        self.graph = graph
        self.live = live
        self.reader = TextReader(graph)
        samplers = [node_id for node_id in live if is_sampler(graph, node_id)]
        makers = [node_id for node_id in live if is_api_node(graph, node_id)]
        alone = makers if samplers or makers else list(live)
        self.numbers = {node_id: number for number, node_id in enumerate([*samplers, *alone])}
        self._samplers = set(samplers)
        self.slots_read = slots_read(graph, set(live))
        self.latents = LatentReader(graph, self._samplers, self.numbers)
        sampler_reader = SamplerReader(graph)
        found = [self._sampling_stage(sampler_reader.read(node_id)) for node_id in samplers]
        found += [self._lone_stage(node_id) for node_id in alone]
        found = [stage for stage in found if not self._is_tool(stage)] or found
        self.all = self._in_order(found)
        self._starts = {stage.node_id: stage.start for stage in self.all}
        self._continued = Fold(self._made_of_stages, self._stages_above, graph.check)
        makes_picture = [stage for stage in self.all if not stage.is_retouch]
        first = [stage for stage in self.all if not stage.latent_trace.before]
        self.main = makes_picture or first or self.all
        main_ids = {stage.node_id for stage in self.main}
        self.retouches = [stage for stage in self.all if stage.node_id not in main_ids]
        self.main_settings = self.settings_nodes(self.main)

    def comparable(self) -> dict[int, int]:
        """Return, by stage number, bits of the stages that work on its picture before or after."""
        size = len(self.numbers)
        before = [0] * size
        for stage in self.all:
            start = self.latents.ancestor(stage.start)
            before[self.numbers[stage.node_id]] = self._continued(start) if start else 0
        # Mirrored along its diagonal, a table of the stages before each stage is a table of the
        # stages after each stage.
        rows = (format(bits, f"0{size}b")[::-1] for bits in reversed(before))
        after = [int("".join(column), 2) for column in zip(*rows, strict=True)]
        return {number: before[number] | after[number] | 1 << number for number in range(size)}

    def settings_nodes(self, stages: Sequence[Stage]) -> list[str]:
        """Return the nodes with the settings of these stages: samplers, guiders, noise, sigmas."""
        graph = self.graph
        starts = [stage.node_id for stage in stages]
        for node_id in self.origins(stages).nodes:
            starts += noise_nodes(graph, node_id)
        return list(walk(starts, lambda node_id: graph.above(node_id, *DRIVERS), graph.check))

    def origins(self, stages: Iterable[Stage]) -> Origins:
        """Return the nodes that make the latents of these stages, back to earlier stages."""
        origins = Origins()
        seen: set[Ancestor] = set()
        for stage in stages:
            if stage.sampler is not None:
                self.latents.add_origins(stage.start, origins, seen)
                continue
            origins.latent_sources.append(stage.node_id)
            if has_size(self.graph, stage.node_id):
                origins.sizes.append(stage.node_id)
        return origins

    def path_to_size(self, stage: Stage) -> list[str]:
        """Return the nodes from a stage back to the node that sets its size, nearest first.

        Empty if it is not known which of several latents gives the size, or if no node sets one.
        """
        return self.latents.path_to_size(stage.start) if stage.sampler else []

    def leading_sizes(self) -> set[str]:
        """Return the nodes that give the last main stages their size, perhaps through earlier ones.

        A latent that is laid on another one, or resized to it, does not count.
        """
        used = union(stage.latent_trace.before for stage in self.main)
        last = [stage for stage in self.main if not used >> self.numbers[stage.node_id] & 1]
        starts = [self.latents.ancestor(stage.start) for stage in last or self.main]
        path = walk(filter(None, starts), self._leading, self.graph.check)
        return {ancestor.node_id for ancestor in path if self.latents.sets_size(ancestor)}

    def _leading(self, ancestor: Ancestor) -> list[Ancestor]:
        if ancestor.node_id in self._samplers:
            return self._made_of_stages(ancestor)
        above = self.latents.leading(ancestor)
        return [above] if above else self.latents.made_of(ancestor)

    def _made_of_stages(self, ancestor: Ancestor) -> list[Ancestor]:
        """Return what a latent is made of; for a sampler, the latent that it starts from."""
        if ancestor.node_id not in self._samplers:
            return self.latents.made_of(ancestor)
        above = self.latents.ancestor(self._starts.get(ancestor.node_id))
        return [above] if above else []

    def _stages_above(self, ancestor: Ancestor, above: list[int]) -> int:
        node_id = ancestor.node_id
        bits = 1 << self.numbers[node_id] if node_id in self._samplers else 0
        return bits | union(above)

    def _sampling_stage(self, sampler: Sampler) -> Stage:
        graph, node_id = self.graph, sampler.node_id
        pictures = graph.typed(node_id, "IMAGE")
        declared = graph.declared(node_id)
        gives_picture = declared is None or declared.outputs[:1] == ("IMAGE",)
        start = sampler.latent or next(iter(graph.linked(node_id, "IMAGE")), None)
        return Stage(
            node_id,
            sampler,
            start,
            self.latents.trace(start),
            positive=self._texts(sampler.positive, "positive"),
            negative=self._texts(sampler.negative, "negative"),
            is_retouch=bool(pictures) and gives_picture and not graph.typed(node_id, "LATENT"),
        )

    def _texts(self, conditioning: Input | None, side: str) -> tuple[Text, ...]:
        return tuple(self.reader.read(conditioning, side)) if conditioning else ()

    def _lone_stage(self, node_id: str) -> Stage:
        """Make a stage of a node that is not a sampler and holds its texts and numbers itself."""
        latent_trace = LatentTrace(is_sized=has_size(self.graph, node_id))
        positive = self._own_texts(node_id, "positive")
        negative = self._own_texts(node_id, "negative")
        return Stage(node_id, None, None, latent_trace, positive, negative)

    def _own_texts(self, node_id: str, side: str) -> tuple[Text, ...]:
        texts = []
        for encoder in text_inputs(self.graph, node_id, side):
            is_of_side = side == "positive" or polarity(encoder.name) == "negative"
            if not is_of_side or not PROMPT_NAME.search(encoder.name):
                continue
            for node_input in self.reader.written(encoder, side):
                literal = str(self.graph.value(node_input)).strip()
                texts.append(Text(node_input, literal, encoder))
        return tuple(texts)

    def _is_tool(self, stage: Stage) -> bool:
        if stage.sampler is None:
            return False
        slots = self.slots_read.get(stage.node_id, set())
        declared = self.graph.declared(stage.node_id)
        is_output = declared is not None and declared.is_output
        if slots and not is_output and {*map(self.graph.output_type, slots)} <= SIDE_RESULTS:
            return True
        if stage.positive or stage.negative:
            return False
        return not self.latents.has_seed(stage.node_id) and not stage.latent_trace.is_noisy

    def _in_order(self, stages: list[Stage]) -> list[Stage]:
        """Sort the stages: each one comes after the stages that feed it through any links."""
        own = {stage.node_id: 1 << self.numbers[stage.node_id] for stage in stages}

        def joined(node_id: str, bits_above: list[int]) -> int:
            return own.get(node_id, 0) | union(bits_above)

        before = Fold(self.graph.nodes_above, joined, self.graph.check)

        def count_before(stage: Stage) -> int:
            return (before(stage.node_id) & ~own[stage.node_id]).bit_count()

        return sorted(stages, key=count_before)
