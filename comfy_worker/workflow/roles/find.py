"""Which node is the sampler, the prompt, the latent size, the image: found by walking up from the outputs.

Leans on no node id: what a node is follows from its declared inputs and outputs and from where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.workflow.graph import (
    Check,
    Fold,
    Input,
    Workflow,
    as_link,
    never_ends,
    title_of,
    walk,
)
from comfy_worker.workflow.node_defs import ANY_TYPE, WIDGET_TYPES, NodeDefs
from comfy_worker.workflow.roles.stages import (
    NAMES,
    Sampler,
    Stage,
    Stages,
    has_size,
    held_as,
    named,
    slots_read,
)
from comfy_worker.workflow.roles.texts import MAX_TEXTS, Text, conflicting
from comfy_worker.workflow.roles.titles import titled_inputs
from comfy_worker.workflow.roles.ways import Way, set_again, way_to_sampler
from comfy_worker.workflow.tracing import TypedWorkflow, resolve_live_literal, settable, types_in
from comfy_worker.workflow.values import UNKNOWN

__all__ = [
    "PLACEHOLDER",
    "PLACEHOLDER_WORDS",
    "Candidate",
    "Preset",
    "Roles",
    "Sampler",
    "ScaledSize",
    "StepRange",
    "find_roles",
]

# Parameters with one meaning in a workflow. If its nodes have different values, the client must
# choose.
ONE_MEANING = (
    "checkpoint",
    "vae",
    "image",
    "mask",
    "width",
    "height",
    "length",
    "batch_size",
    "fps",
)


# What an expression may stand in front of.
COMPUTED_NUMBERS = (
    "width",
    "height",
    "length",
    "fps",
    "batch_size",
    "steps",
    "cfg",
    "guidance",
    "denoise",
)

# Numbers that a detailer or a tiled upscaler keeps for itself where another stage makes the picture.
OWN_NUMBERS = ("seed", "steps", "cfg", "sampler", "scheduler", "denoise")

# A text that stands for a parameter's value, as programs that fill graphs write it, and their words.
PLACEHOLDER = re.compile(r"%([a-z_]{2,30})%")
PLACEHOLDER_WORDS = {
    "model": "checkpoint",
    "scale": "cfg",
    "cfg_scale": "cfg",
    "sampler_name": "sampler",
    "positive": "prompt",
    "positive_prompt": "prompt",
    "negative": "negative_prompt",
}
TEXT_NAMES = frozenset({"prompt", "negative_prompt"})
PLACEHOLDER_NAMES = TEXT_NAMES | {*NAMES} - {"clip_skip"}


@dataclass(frozen=True)
class Candidate:
    """One of several inputs that a parameter could set."""

    node_input: Input
    title: str
    class_type: str


@dataclass(frozen=True)
class StepRange:
    """An input that divides the steps at a number, and the input with the number of all steps."""

    node_input: Input
    steps: Input


@dataclass(frozen=True)
class ScaledSize:
    """The literal width and height of a node that resizes a sampler's result."""

    width: Input
    height: Input


@dataclass(frozen=True)
class Preset:
    """A choice of a node that overrides the width and height of the same node.

    Attributes:
        choice: the input with the choice.
        free: the choice that leaves the size to its own inputs; None if there is none.
    """

    choice: Input
    free: Any = None


@dataclass(frozen=True)
class Roles:
    """What the nodes of one workflow are for.

    Attributes:
        samplers: the sampling stages, first to last; a sampler with neither text nor noise (a depth estimator)
            is none where there are others.
        inputs: by parameter name, the inputs that hold its literal.
        ambiguous: by parameter name, the candidates where the graph alone does not decide.
        outputs: the ids of the output nodes.
        step_ranges: where the steps are divided among stages.
        scaled_sizes: what must grow with width and height.
        alpha_masks: those of the ``image`` inputs whose node also gives its alpha channel as a mask.
        unassigned: by parameter name, similar inputs that keep their value: a refiner's checkpoint where the base
            model's is ``checkpoint``, further pictures where the first is ``image``, a detailer's numbers.
        received: by parameter, the input of the sampler or latent that gets it, where the graph may compute it
            from what is written in the first of ``inputs``.
        presets: by an input for ``width`` or ``height``, the choice that overrides it now.
        ways: by ``width``, ``height`` or ``batch_size``, what changes it before the first sampler.
    """

    samplers: tuple[Sampler, ...]
    inputs: Mapping[str, tuple[Input, ...]]
    ambiguous: Mapping[str, tuple[Candidate, ...]]
    outputs: tuple[str, ...]
    step_ranges: tuple[StepRange, ...] = ()
    scaled_sizes: tuple[ScaledSize, ...] = ()
    alpha_masks: tuple[Input, ...] = ()
    unassigned: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    presets: Mapping[Input, Preset] = field(default_factory=dict)
    received: Mapping[str, Input] = field(default_factory=dict)
    ways: Mapping[str, Way] = field(default_factory=dict)

    def outline(self) -> dict[str, Any]:
        """The roles as JSON: ids of nodes, and inputs written ``node_id.name`` by parameter."""
        return {
            "samplers": [sampler.node_id for sampler in self.samplers],
            "outputs": list(self.outputs),
            "places": {
                name: [str(node_input) for node_input in node_inputs]
                for name, node_inputs in self.inputs.items()
            },
            "ambiguous": {
                name: [str(candidate.node_input) for candidate in found]
                for name, found in self.ambiguous.items()
            },
            "left": {
                name: [str(candidate.node_input) for candidate in found]
                for name, found in self.unassigned.items()
            },
        }


def find_roles(workflow: Workflow, defs: NodeDefs, check: Check = never_ends) -> Roles:
    """Find the roles of a workflow's nodes.

    Args:
        workflow: API format, as :func:`~comfy_worker.workflow.graph.parse` gives it.
        defs: the classes that this ComfyUI has; those that it lacks are read by the names of their inputs.
        check: asked again and again, so that the reading of a large graph can be ended.
    """
    return _Finder(TypedWorkflow(workflow, defs, check)).roles()


class _Finder:
    """Finds the places of each parameter in one workflow."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._outputs = _outputs(graph)
        self._live = _live(graph, self._outputs)
        self._stages = Stages(graph, self._live)
        self._settings_nodes = self._stages.settings_nodes(self._stages.main)
        self._loaded = _loaded(graph, self._live)
        self._roots = Fold(
            lambda node_id: graph.above(node_id, "MODEL"), self._model_roots, graph.check
        )
        self._steps_above = Fold(
            lambda node_id: graph.above(node_id, "SIGMAS"), self._first_steps, graph.check
        )

    def roles(self) -> Roles:
        """All of them."""
        found = self._found()
        left = self._own_numbers(found)
        unclear = {
            name
            for name in ONE_MEANING
            if len({self._shown(node_input) for node_input in found.get(name, ())}) > 1
        }
        comparable = None
        for name, texts in self._texts(left).items():
            found[name] = list(dict.fromkeys(text.node_input for _, text in texts))
            if len({text.literal for _, text in texts}) > 1:
                comparable = comparable or self._stages.comparable()
                unclear |= {name} if conflicting(texts, comparable) else set()
        before = {name: set(node_inputs) for name, node_inputs in found.items()}
        useful = _UsefulNodes(self._graph, self._stages)
        claimed = titled_inputs(self._graph, filter(useful, self._live), self._stages.reader)
        self._claim(found, unclear, claimed)
        self._separate(found, before)
        placeholders = self._placeholders()
        found |= placeholders
        unclear -= placeholders.keys()
        left |= self._leading(found, unclear)
        unclear -= left.keys()
        presets = self._presets(found)
        return Roles(
            samplers=tuple(stage.sampler for stage in self._stages.all if stage.sampler),
            inputs={
                name: tuple(node_inputs)
                for name, node_inputs in found.items()
                if node_inputs and name not in unclear
            },
            ambiguous={
                name: tuple(
                    self._candidate(node_input) for node_input in found[name][: MAX_TEXTS + 1]
                )
                for name in sorted(unclear)
            },
            outputs=self._outputs,
            step_ranges=tuple(self._splits()),
            scaled_sizes=tuple(self._resized()),
            alpha_masks=tuple(self._loaded["alpha"]),
            unassigned=left,
            presets=presets,
            received=self._received(found),
            ways=self._ways(),
        )

    def _received(self, found: Mapping[str, Sequence[Input]]) -> dict[str, Input]:
        """By parameter, the input that gets a number which is written elsewhere, perhaps behind an expression."""
        graph = self._graph
        holders = [
            *self._settings_nodes,
            *self._stages.origins(self._stages.main).latent_sources,
            *self._live,
        ]
        received = {}
        for name in COMPUTED_NUMBERS:
            first = next(iter(found.get(name, ())), None)
            if first is None or first.name in NAMES[name][0]:
                continue
            getting = (
                node_input for node_id in holders for node_input in held_as(graph, node_id, name)
            )
            is_size = name in ("width", "height")
            node_input = next(
                (
                    candidate
                    for candidate in getting
                    if first in settable(graph, candidate, is_size)[:1]
                ),
                None,
            )
            if node_input is not None and node_input != first:
                received[name] = node_input
        return received

    def _claim(
        self, found: dict[str, list[Input]], unclear: set[str], claimed: Mapping[str, list[Input]]
    ) -> None:
        """Let a title decide where the graph does not; where it does, it names a place that it found anyway."""
        for name, node_inputs in claimed.items():
            if name in unclear or not set(node_inputs) <= set(found.get(name, ())):
                found[name] = node_inputs
                unclear.discard(name)

    def _separate(
        self, found: dict[str, list[Input]], before: Mapping[str, Collection[Input]]
    ) -> None:
        """By-pass a literal that several parameters share, so that each is set alone."""
        for name in [name for name in found if name in NAMES]:
            others = [
                {*node_inputs, *before.get(other, ())}
                for other, node_inputs in found.items()
                if other != name and other in NAMES
            ]
            shared = set(found[name]).intersection(set().union(*others))
            found[name] = self._direct(found[name], shared, set(NAMES[name][0]))
        for name in TEXT_NAMES & found.keys():
            found[name] = [
                separate for place in found[name] for separate in self._text_readers(place)
            ]

    def _ways(self) -> dict[str, Way]:
        """Find what changes the size or number of the first stage's latent before its sampler."""
        stages = self._stages
        ways = {
            name: way_to_sampler(self._graph, stages, stage, name)
            for stage in stages.main[:1]
            for name in ("width", "height", "batch_size")
        }
        return {name: way for name, way in ways.items() if way is not None}

    def _set_again(self, sizes: Sequence[str], name: str, is_direct: bool = False) -> list[Input]:
        """Find the inputs that set a side: of nodes behind the source where these set it again.

        Direct ones are those of the nodes themselves, even if a link stands in them.
        """
        graph, stages = self._graph, self._stages
        places: list[Input] = []
        replaced: set[str] = set()
        kept: set[str] = set()
        for stage in stages.main:
            nodes = stages.way(stage)
            setting = (
                set_again(graph, way_to_sampler(graph, stages, stage, name)) if nodes else None
            )
            again = [setting] if setting else []
            places += again if is_direct or setting is None else settable(graph, setting, True)
            (replaced if again else kept).update(nodes[-1:])
        rest = [node_id for node_id in sizes if node_id in kept or node_id not in replaced]
        held = [node_input for node_id in rest for node_input in held_as(graph, node_id, name)]
        return list(dict.fromkeys([*places, *(held if is_direct else self._held(rest, name))]))

    def _direct(
        self, node_inputs: list[Input], shared: Collection[Input], names: Collection[str]
    ) -> list[Input]:
        """Replace each shared literal by the inputs of these names that it reaches."""
        if not shared:
            return node_inputs
        graph = self._graph
        readers: dict[Input, list[Input]] = {}
        for node_id in dict.fromkeys([*self._settings_nodes, *self._live]):
            for node_input in graph.links(node_id):
                literal = (
                    resolve_live_literal(graph, node_input) if node_input.name in names else None
                )
                if literal is not None and literal in shared:
                    readers.setdefault(literal, []).append(node_input)
        direct = [
            separate
            for node_input in node_inputs
            for separate in readers.get(node_input, [node_input])
        ]
        return list(dict.fromkeys(direct))

    def _text_readers(self, place: Input) -> list[Input]:
        """Return the inputs to write a text to, so that it becomes no file name."""
        graph = self._graph
        readers: list[Input] = []
        way = [place.node_id] if graph.links(place.node_id) == {} else []
        for node_id in way:
            fed = [
                node_input
                for reader in graph.fed_by(node_id)
                for node_input, link in graph.links(reader).items()
                if link.node_id == node_id
            ]
            for node_input in fed:
                passes = len(graph.inputs(node_input.node_id)) == 1
                if passes and node_input.node_id not in way and graph.is_read(node_input.node_id):
                    way.append(node_input.node_id)
                elif not passes:
                    readers.append(node_input)
        texts = [node_input for node_input in readers if node_input.name != "filename_prefix"]
        is_prefix = len(texts) < len(readers)
        return list(dict.fromkeys(texts)) if texts and is_prefix else [place]

    def _candidate(self, node_input: Input) -> Candidate:
        workflow = self._graph.workflow
        return Candidate(
            node_input,
            title_of(workflow, node_input.node_id),
            workflow[node_input.node_id]["class_type"],
        )

    def _shown(self, node_input: Input) -> str:
        """Return a text to compare inputs by: the value, or the link if the value is unknown."""
        value = self._graph.values(node_input)
        return repr(self._graph.value(node_input) if value is UNKNOWN else value)

    def _held(self, node_ids: Iterable[str], parameter: str) -> list[Input]:
        return list(
            dict.fromkeys(
                node_input
                for node_id in node_ids
                for node_input in named(self._graph, node_id, parameter)
            )
        )

    def _found(self) -> dict[str, list[Input]]:
        """Find the inputs of every parameter except the texts, each input once."""
        graph, stages, live = self._graph, self._stages, self._live
        origins = stages.origins(stages.main)
        found = {
            name: self._numbers(self._settings_nodes, name)
            for name in OWN_NUMBERS
            if name != "denoise"
        }
        found |= {
            "guidance": self._held([*self._settings_nodes, *self._guides(stages.main)], "guidance"),
            "denoise": self._denoise(),
            "checkpoint": self._checkpoints(stages.all),
            "vae": self._vaes(),
            "clip_skip": self._held(live, "clip_skip"),
            "fps": self._fps(),
            "image": self._loaded["image"],
            "mask": self._loaded["mask"],
        }
        for name in ("length", "batch_size"):
            found[name] = self._held(origins.latent_sources, name)
        for name in ("width", "height"):
            found[name] = _with_agreeing(graph, live, name, self._set_again(origins.sizes, name))
        if not set(found["width"]).isdisjoint(found["height"]):
            # One number makes a square. Two sides that a client sets need an input each.
            for name in ("width", "height"):
                found[name] = self._set_again(origins.sizes, name, is_direct=True)
        return found

    def _numbers(self, settings_nodes: Iterable[str], name: str) -> list[Input]:
        if name == "seed":
            settings_nodes = [
                node_id for node_id in settings_nodes if _adds_noise(self._graph, node_id)
            ]
        elif name == "steps":
            settings_nodes = [
                node_id for node_id in settings_nodes if not _changes_sigmas(self._graph, node_id)
            ]
        return self._held(settings_nodes, name)

    def _own_numbers(
        self, found: Mapping[str, Sequence[Input]]
    ) -> dict[str, tuple[Candidate, ...]]:
        """Find the numbers that detailers and upscalers keep; parameters do not change them."""
        settings_nodes = self._stages.settings_nodes(self._stages.retouches)
        left = {}
        for name in OWN_NUMBERS:
            taken = set(found[name])
            own = self._numbers(settings_nodes, name)
            kept = [node_input for node_input in own if node_input not in taken]
            if taken and kept:
                left[name] = tuple(self._candidate(node_input) for node_input in kept[:MAX_TEXTS])
        return left

    def _guides(self, stages: Iterable[Stage]) -> list[str]:
        """Return the nodes between samplers and their texts."""
        starts = []
        for stage in stages:
            if stage.sampler and stage.sampler.positive:
                starts.append((stage.sampler.positive, "positive"))
            if stage.sampler and stage.sampler.negative:
                starts.append((stage.sampler.negative, "negative"))
        return self._stages.reader.nodes(starts)

    def _denoise(self) -> list[Input]:
        """Find the denoise inputs.

        Skip stages that begin with an empty latent, unless there are only such stages.

        An empty latent must be denoised completely.
        """
        stages = self._stages
        begun = [stage for stage in stages.main if not stage.latent_trace.is_sized]
        return self._held(stages.settings_nodes(begun), "denoise") or self._held(
            self._settings_nodes, "denoise"
        )

    def _model_roots(self, node_id: str, above: list[tuple[str, ...]]) -> tuple[str, ...]:
        if not self._graph.linked(node_id, "MODEL"):
            return (node_id,)
        if len(above) == 1:
            return above[0]
        return tuple(dict.fromkeys(root for roots in above for root in roots))[:MAX_TEXTS]

    def _checkpoints(self, stages: Iterable[Stage]) -> list[Input]:
        roots: dict[str, None] = {}
        for stage in stages:
            link = (
                self._graph.link(stage.sampler.model)
                if stage.sampler and stage.sampler.model
                else None
            )
            if link:
                roots |= dict.fromkeys(self._roots(link.node_id))
            elif stage.sampler is None and _loads(self._graph, stage):
                roots[stage.node_id] = None
        return self._held(roots, "checkpoint")

    def _leading(
        self, found: dict[str, list[Input]], unclear: set[str]
    ) -> dict[str, tuple[Candidate, ...]]:
        """If a parameter fits several models or pictures, choose the first and leave the others."""
        left = {}
        for name in unclear & {"checkpoint", "image"}:
            first = (
                self._first_model() if name == "checkpoint" else self._first_image(found["image"])
            )
            if first:
                taken = set(first)
                left[name] = tuple(
                    self._candidate(node_input)
                    for node_input in found[name]
                    if node_input not in taken
                )
                found[name] = first
        return left

    def _first_model(self) -> list[Input]:
        """Return the first stage's model if stages with other models have own text encoders.

        Two models that share their texts are parts of one model (Wan 2.2's two experts): neither is
        the first.
        """
        stages = self._stages.all
        if not stages:
            return []
        first = self._checkpoints([stages[0]])
        encoders = {text.encoder for text in stages[0].positive}
        for stage in stages[1:]:
            shares_text = not encoders.isdisjoint(text.encoder for text in stage.positive)
            if shares_text and set(self._checkpoints([stage])) != set(first):
                return []
        return (
            first if len({repr(self._graph.value(node_input)) for node_input in first}) == 1 else []
        )

    def _first_image(self, images: list[Input]) -> list[Input]:
        """Choose the picture that a stage starts from; otherwise the first one in reading order.

        So it prefers a start image to a control map, and a first frame to a last frame.
        """
        order = {
            node_id: number
            for number, node_id in enumerate(self._graph.reading_order(self._outputs))
        }
        started = set(self._stages.origins(self._stages.all).nodes)

        def rank(node_input: Input) -> tuple[bool, int]:
            return node_input.node_id not in started, order.get(node_input.node_id, len(order))

        first = min(images, key=rank, default=None)
        return [
            node_input
            for node_input in images
            if first and self._graph.value(node_input) == self._graph.value(first)
        ]

    def _vaes(self) -> list[Input]:
        """Find the loaders of the VAEs that encode for the stages or decode their latents."""
        graph, stages = self._graph, self._stages
        users = [*stages.origins(stages.all).latent_sources, *self._guides(stages.all)]
        made_here = 0
        for stage in stages.all:
            made_here |= 1 << stages.numbers[stage.node_id]
        for node_id in self._live:
            latents = graph.linked(node_id, "LATENT")
            if (
                graph.linked(node_id, "VAE")
                and latents
                and stages.latent_trace(latents[0]).before & made_here
            ):
                users.append(node_id)
        vaes = [
            node_input
            for node_id in dict.fromkeys(users)
            for node_input in graph.linked(node_id, "VAE")
        ]
        return self._held(graph.sources(vaes, "VAE"), "vae")

    def _fps(self) -> list[Input]:
        """Find the frame rates of nodes that make videos, and equal frame rates of other nodes."""
        graph, live = self._graph, self._live
        clips = [
            node_id
            for node_id in live
            if graph.linked(node_id, "IMAGE") and not graph.linked(node_id, "VAE")
        ]
        found = self._held(clips, "fps")
        rates = {repr(graph.value(node_input)) for node_input in found}
        agreeing = [
            node_input
            for node_input in self._held(live, "fps")
            if repr(graph.value(node_input)) in rates
        ]
        return list(dict.fromkeys([*found, *agreeing]))

    def _texts(self, left: dict[str, tuple[Candidate, ...]]) -> dict[str, list[tuple[int, Text]]]:
        """Collect the texts of every stage.

        A text that is positive and negative counts as positive.

        A detailer's own text does not change; it is added to ``left``.
        """
        numbers = self._stages.numbers
        texts: dict[str, list[tuple[int, Text]]] = {"prompt": [], "negative_prompt": []}
        for stage in self._stages.main:
            texts["prompt"] += [(numbers[stage.node_id], text) for text in stage.positive]
            texts["negative_prompt"] += [(numbers[stage.node_id], text) for text in stage.negative]
        for name, found in texts.items():
            known = {text.literal for _, text in found}
            own: dict[Input, None] = {}
            for stage in self._stages.retouches:
                for text in stage.positive if name == "prompt" else stage.negative:
                    if text.literal in known or not known:
                        found.append((numbers[stage.node_id], text))
                    else:
                        own[text.node_input] = None
            if own:
                left[name] = tuple(
                    self._candidate(node_input) for node_input in list(own)[:MAX_TEXTS]
                )
        taken = {text.node_input for _, text in texts["prompt"]}
        texts["negative_prompt"] = [
            pair for pair in texts["negative_prompt"] if pair[1].node_input not in taken
        ]
        return texts

    def _placeholders(self) -> dict[str, list[Input]]:
        """Find, by parameter, the inputs with a placeholder such as ``%steps%`` as their value."""
        found: dict[str, list[Input]] = {}
        for node_id in self._live:
            for input_name, value in self._graph.workflow[node_id]["inputs"].items():
                if not isinstance(value, str) or input_name == "filename_prefix":
                    continue
                for word in dict.fromkeys(PLACEHOLDER.findall(value)):
                    name = PLACEHOLDER_WORDS.get(word, word)
                    if name in PLACEHOLDER_NAMES and (
                        name in TEXT_NAMES or value.strip() == f"%{word}%"
                    ):
                        found.setdefault(name, []).append(Input(node_id, input_name))
        return found

    def _first_steps(self, node_id: str, above: list[Input | None]) -> Input | None:
        """Return the ``steps`` input of the nearest node that counts sampling steps."""
        if not _changes_sigmas(self._graph, node_id):
            return next(iter(named(self._graph, node_id, "steps")), None)
        return next((steps for steps in above if steps), None)

    def _splits(self) -> list[StepRange]:
        """Find the inputs that divide the steps, such as ``start_at_step`` of a sampler."""
        graph = self._graph
        found = []
        for node_id in self._stages.settings_nodes(self._stages.all):
            steps = self._steps_above(node_id)
            names = (
                {"step"} if _changes_sigmas(graph, node_id) else {"start_at_step", "end_at_step"}
            )
            cuts = [node_input for node_input in graph.inputs(node_id) if node_input.name in names]
            node_inputs = [written for cut in cuts for written in settable(graph, cut)[:1]]
            found += [StepRange(node_input, steps) for node_input in node_inputs if steps]
        return list(dict.fromkeys(found))

    def _resized(self) -> list[ScaledSize]:
        """Find the nodes that resize a sampler's latent or picture to a literal size."""
        graph = self._graph
        below = graph.downstream(stage.node_id for stage in self._stages.all)
        found = []
        for node_id in self._live:
            declared = graph.declared(node_id)
            if node_id not in below or not declared or not has_size(graph, node_id):
                continue
            if declared.outputs[:1] in {("LATENT",), ("IMAGE",)} and graph.linked(
                node_id, declared.outputs[0]
            ):
                width, height = named(graph, node_id, "width"), named(graph, node_id, "height")
                if any(as_link(graph.value(node_input)) for node_input in (*width, *height)):
                    continue  # what is computed follows by itself
                found += [ScaledSize(width[0], height[0])] if width and height else []
        return found

    def _presets(self, found: Mapping[str, Sequence[Input]]) -> dict[Input, Preset]:
        """Find the choices that now override a width or height."""
        graph = self._graph
        presets = {}
        for node_input in [*found["width"], *found["height"]]:
            choice = graph.preset(node_input.node_id)
            free = graph.free_choice(choice) if choice else None
            if choice and (free is None or graph.values(choice) != free):
                presets[node_input] = Preset(choice, None if as_link(graph.value(choice)) else free)
        return presets


class _UsefulNodes:
    """Whether a title may claim a parameter for a node: what the node gives is more than shown.

    A node counts if it is a stage or reads a model, a picture or the like, or if it feeds such a
    node.
    """

    def __init__(self, graph: TypedWorkflow, stages: Stages) -> None:
        self._graph = graph
        self._stages = {stage.node_id for stage in stages.all if stage.sampler}
        self._feeds = Fold(graph.fed_by, self._is_useful, graph.check)

    def __call__(self, node_id: str) -> bool:
        return self._feeds(node_id)

    def _is_useful(self, node_id: str, below: list[bool]) -> bool:
        graph = self._graph
        declared = graph.declared(node_id)
        if any(below) or node_id in self._stages or declared is None or declared.is_api:
            return True
        if not declared.is_output and not graph.is_read(node_id):
            return True
        return any(
            types_in(graph.type_of(node_input)).isdisjoint({*WIDGET_TYPES, ANY_TYPE})
            for node_input in graph.links(node_id)
        )


def _outputs(graph: TypedWorkflow) -> tuple[str, ...]:
    """Return the output nodes. A node that is not installed counts as one if no node reads it."""
    found = []
    for node_id in graph.workflow:
        declared = graph.declared(node_id)
        if declared.is_output if declared else not graph.is_read(node_id):
            found.append(node_id)
    return tuple(found)


def _live(graph: TypedWorkflow, outputs: Sequence[str]) -> list[str]:
    """Return the nodes that ComfyUI would run, in the workflow's order.

    Returns all nodes if there is no output node.
    """

    def above(node_id: str) -> list[str]:
        return [link.node_id for link in graph.links(node_id).values()]

    ids = set(walk(outputs, above, graph.check))
    return [node_id for node_id in graph.workflow if node_id in ids or not ids]


def _loads(graph: TypedWorkflow, stage: Stage) -> bool:
    """Whether a stage without a sampler has an input with the usual name of a model file."""
    return any(
        node_input.name in ("ckpt_name", "unet_name") for node_input in graph.widgets(stage.node_id)
    )


def _adds_noise(graph: TypedWorkflow, node_id: str) -> bool:
    return graph.value(Input(node_id, "add_noise")) not in ("disable", False)


def _changes_sigmas(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node takes sigmas and outputs changed ones.

    Then its ``steps`` does not count sampling steps.
    """
    declared = graph.defs.get(graph.workflow[node_id]["class_type"])
    return (
        declared is not None
        and "SIGMAS" in declared.outputs
        and bool(graph.linked(node_id, "SIGMAS"))
    )


def _loaded(graph: TypedWorkflow, live: Collection[str]) -> dict[str, list[Input]]:
    """Find the inputs that name an uploaded picture, by the used part: pixels, mask or both."""
    found: dict[str, list[Input]] = {"image": [], "mask": [], "alpha": []}
    slots = slots_read(graph, set(live))
    for node_id in live:
        declared = graph.defs.get(graph.workflow[node_id]["class_type"])
        node_inputs = [
            p
            for p in graph.inputs(node_id)
            if (spec := graph.spec(p)) and spec.options.get("image_upload")
        ]
        literals = [
            node_input
            for node_input in (resolve_live_literal(graph, p) for p in node_inputs)
            if node_input
        ]
        if not declared or not literals:
            continue
        used = {graph.output_type(link) for link in slots.get(node_id, ())}
        found["mask" if used == {"MASK"} or "IMAGE" not in declared.outputs else "image"] += (
            literals
        )
        if {"IMAGE", "MASK"} <= used:
            found["alpha"] += literals
    return found


def _with_agreeing(
    graph: TypedWorkflow, live: Collection[str], name: str, found: list[Input]
) -> list[Input]:
    """Add the size inputs of model and scheduler nodes if they have the same value."""
    node_inputs = list(found)
    sizes = {repr(graph.value(node_input)) for node_input in found}
    for node_id in live:
        declared = graph.defs.get(graph.workflow[node_id]["class_type"])
        if (
            declared
            and {"MODEL", "SIGMAS", "CONDITIONING"} & set(declared.outputs)
            and has_size(graph, node_id)
        ):
            node_inputs += [
                p for p in named(graph, node_id, name) if sizes == {repr(graph.value(p))}
            ]
    return list(dict.fromkeys(node_inputs))
