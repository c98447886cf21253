"""Finds which node is the sampler, the prompt, the latent size, the image: the order of the search.

The search walks up from the outputs. It uses no node id: the role of a node follows from its
declared inputs and outputs and from its links.
"""

from __future__ import annotations

from collections.abc import Mapping

from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.images import LoadedImages, first_image, loaded_images
from comfy_worker.workflow.roles.latent_path import find_latent_paths
from comfy_worker.workflow.roles.models import ModelReader, find_vaes, with_same_file
from comfy_worker.workflow.roles.outputs import UsefulNodes, find_live_nodes, find_outputs
from comfy_worker.workflow.roles.parameter_inputs import written_inputs_of
from comfy_worker.workflow.roles.placeholders import find_placeholders
from comfy_worker.workflow.roles.prompts import find_prompts
from comfy_worker.workflow.roles.received import find_receiving_inputs
from comfy_worker.workflow.roles.roles import Candidate, Roles, candidates
from comfy_worker.workflow.roles.sampler_settings import (
    find_sampler_settings,
    find_step_ranges,
    find_unassigned_settings,
)
from comfy_worker.workflow.roles.shared_literals import separate
from comfy_worker.workflow.roles.sizes import (
    find_fps,
    find_presets,
    find_scaled_sizes,
    find_sizes,
    find_unassigned_sizes,
)
from comfy_worker.workflow.roles.stages import Stages
from comfy_worker.workflow.roles.text_conflicts import conflicting
from comfy_worker.workflow.roles.texts import MAX_TEXTS
from comfy_worker.workflow.roles.titles import titled_inputs
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.values import UNKNOWN
from comfy_worker.workflow.walks import Check, never_ends

__all__ = ["find_roles"]

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


def find_roles(workflow: Workflow, defs: NodeDefs, check: Check = never_ends) -> Roles:
    """Find the roles of a workflow's nodes.

    Args:
        workflow: API format, as :func:`~comfy_worker.workflow.graph.parse` returns it.
        defs: the classes that this ComfyUI has. Other classes are read by the names of their
            inputs.
        check: called repeatedly; it may raise an error to end the search in a large workflow.
    """
    graph = TypedWorkflow(workflow, defs, check)
    outputs = find_outputs(graph)
    stages = Stages(graph, find_live_nodes(graph, outputs))
    return _Search(stages, outputs).roles()


class _Search:
    """The parameters of one workflow, while they are searched for.

    Attributes:
        found: by parameter, its inputs.
        unclear: the parameters for which the client must choose among their inputs.
        unassigned: by parameter, similar inputs that keep their value.
    """

    def __init__(self, stages: Stages, outputs: tuple[str, ...]) -> None:
        self._stages = stages
        self._graph = stages.graph
        self._outputs = outputs
        self._models = ModelReader(stages)
        self._loaded = loaded_images(self._graph, stages.live, stages.slots_read)
        self.found = self._find_numbers_and_files(self._loaded)
        self.unassigned = find_unassigned_settings(stages, self.found)
        self.unassigned |= find_unassigned_sizes(stages, self.found)
        self.unclear = set(filter(self._has_several_values, ONE_MEANING))

    def roles(self) -> Roles:
        """Find all roles."""
        self._add_prompts()
        before_titles = {name: set(node_inputs) for name, node_inputs in self.found.items()}
        self._let_titles_decide()
        separate(self._stages, self.found, before_titles)
        self._let_placeholders_decide()
        self._choose_leading()
        return self._result()

    def _find_numbers_and_files(self, loaded: LoadedImages) -> dict[str, list[Input]]:
        """Find the inputs of every parameter except the prompts, each input once."""
        stages = self._stages
        return {
            **find_sampler_settings(stages),
            "checkpoint": with_same_file(stages, self._models.checkpoints(stages.all)),
            "vae": find_vaes(stages),
            "clip_skip": written_inputs_of(self._graph, stages.live, "clip_skip"),
            "fps": find_fps(stages),
            "image": loaded.image,
            "mask": loaded.mask,
            **find_sizes(stages),
        }

    def _has_several_values(self, name: str) -> bool:
        return len({self._compared_value(node_input) for node_input in self.found[name]}) > 1

    def _compared_value(self, node_input: Input) -> str:
        """Return a text to compare inputs by: the value, or the link if the value is unknown."""
        value = self._graph.values(node_input)
        return repr(self._graph.value(node_input) if value is UNKNOWN else value)

    def _add_prompts(self) -> None:
        comparable: Mapping[int, int] | None = None
        for name, prompts in find_prompts(self._stages).items():
            self.found[name] = prompts.node_inputs
            if prompts.unassigned:
                kept = prompts.unassigned[:MAX_TEXTS]
                self.unassigned[name] = candidates(self._graph, kept)
            if len(prompts.literals) > 1:
                comparable = comparable or self._stages.comparable()
                if conflicting(prompts.texts, comparable):
                    self.unclear.add(name)

    def _let_titles_decide(self) -> None:
        """Use a title if the graph does not decide, or if the title names another input."""
        stages = self._stages
        samplers = {stage.node_id for stage in stages.all if stage.sampler}
        useful = filter(UsefulNodes(self._graph, samplers), stages.live)
        for name, node_inputs in titled_inputs(self._graph, useful, stages.reader).items():
            if name in self.unclear or not set(node_inputs) <= set(self.found.get(name, ())):
                self.found[name] = node_inputs
                self.unclear.discard(name)

    def _let_placeholders_decide(self) -> None:
        placeholders = find_placeholders(self._graph, self._stages.live)
        self.found |= placeholders
        self.unclear -= placeholders.keys()

    def _choose_leading(self) -> None:
        """If several models or pictures fit, choose the first; leave the others unassigned."""
        for name in ("checkpoint", "image"):
            first = self._first_input(name) if name in self.unclear else []
            if first:
                others = [node_input for node_input in self.found[name] if node_input not in first]
                self.unassigned[name] = candidates(self._graph, others)
                self.found[name] = first
        self.unclear -= self.unassigned.keys()

    def _first_input(self, name: str) -> list[Input]:
        if name == "checkpoint":
            return with_same_file(self._stages, self._models.first_checkpoint())
        starts = set(self._stages.origins(self._stages.all).nodes)
        return first_image(self._graph, self.found[name], self._outputs, starts)

    def _result(self) -> Roles:
        stages, found = self._stages, self.found
        inputs = {
            name: tuple(node_inputs)
            for name, node_inputs in found.items()
            if node_inputs and name not in self.unclear
        }
        ambiguous: dict[str, tuple[Candidate, ...]] = {}
        for name in sorted(self.unclear):
            ambiguous[name] = candidates(self._graph, found[name][: MAX_TEXTS + 1])
        return Roles(
            samplers=tuple(stage.sampler for stage in stages.all if stage.sampler),
            inputs=inputs,
            ambiguous=ambiguous,
            outputs=self._outputs,
            step_ranges=find_step_ranges(stages),
            scaled_sizes=find_scaled_sizes(stages),
            alpha_masks=tuple(self._loaded.alpha_masks),
            unassigned=self.unassigned,
            presets=find_presets(self._graph, [*found["width"], *found["height"]]),
            received=find_receiving_inputs(stages, found),
            latent_paths=find_latent_paths(stages),
        )
