"""Finds the loaders of the diffusion models and VAEs that the stages use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.roles.bit_sets import union
from comfy_worker.workflow.roles.parameter_inputs import written_inputs_of
from comfy_worker.workflow.roles.sampler_settings import conditioning_nodes
from comfy_worker.workflow.roles.stages import Stage, Stages
from comfy_worker.workflow.roles.texts import MAX_TEXTS
from comfy_worker.workflow.walks import Fold

__all__ = ["ModelReader", "find_vaes", "with_same_file"]

# The usual input names for a model file on a node that samples by itself.
MODEL_FILE_NAMES = ("ckpt_name", "unet_name")
# No merge has more models than this.
MAX_MODELS = MAX_TEXTS


class ModelReader:
    """Finds the loaders of the diffusion models of one workflow's stages."""

    def __init__(self, stages: Stages) -> None:
        graph = stages.graph
        self._graph = graph
        self._stages = stages
        self._loaders = Fold(
            lambda node_id: graph.above(node_id, "MODEL"), self._model_loaders, graph.check
        )

    def checkpoints(self, stages: Iterable[Stage]) -> list[Input]:
        """Return the inputs with the model files of these stages."""
        loaders: dict[str, None] = {}
        for stage in stages:
            if stage.sampler is None:
                if self._loads_model(stage):
                    loaders[stage.node_id] = None
                continue
            link = self._graph.link(stage.sampler.model) if stage.sampler.model else None
            if link:
                loaders |= dict.fromkeys(self._loaders(link.node_id))
        return written_inputs_of(self._graph, loaders, "checkpoint")

    def first_checkpoint(self) -> list[Input]:
        """Return the first stage's model if stages with other models have own text encoders.

        Two models that share their texts are parts of one model (Wan 2.2's two experts): neither is
        the first.
        """
        stages = self._stages.all
        if not stages:
            return []
        first = self.checkpoints(stages[:1])
        encoders = {text.encoder for text in stages[0].positive}
        for stage in stages[1:]:
            shares_text = not encoders.isdisjoint(text.encoder for text in stage.positive)
            if shares_text and set(self.checkpoints([stage])) != set(first):
                return []
        files = {repr(self._graph.value(node_input)) for node_input in first}
        return first if len(files) == 1 else []

    def _model_loaders(self, node_id: str, above: list[tuple[str, ...]]) -> tuple[str, ...]:
        if not self._graph.linked(node_id, "MODEL"):
            return (node_id,)
        if len(above) == 1:
            return above[0]
        return tuple(dict.fromkeys(loader for loaders in above for loader in loaders))[:MAX_MODELS]

    def _loads_model(self, stage: Stage) -> bool:
        widgets = self._graph.widgets(stage.node_id)
        return any(node_input.name in MODEL_FILE_NAMES for node_input in widgets)


def with_same_file(stages: Stages, checkpoints: Sequence[Input]) -> list[Input]:
    """Add the loaders that take other parts, such as a text encoder, from the same files."""
    graph = stages.graph
    found = dict.fromkeys(checkpoints)
    files = {(node_input.name, repr(graph.value(node_input))) for node_input in checkpoints}
    for node_input in written_inputs_of(graph, stages.live, "checkpoint"):
        if (node_input.name, repr(graph.value(node_input))) in files:
            found[node_input] = None
    return list(found)


def find_vaes(stages: Stages) -> list[Input]:
    """Find the loaders of the VAEs that encode for the stages or decode their latents."""
    graph = stages.graph
    users = [*stages.origins(stages.all).latent_sources, *conditioning_nodes(stages, stages.all)]
    made_here = union(1 << stages.numbers[stage.node_id] for stage in stages.all)
    for node_id in stages.live:
        latents = graph.linked(node_id, "LATENT")
        if not latents or not graph.linked(node_id, "VAE"):
            continue
        if stages.latents.trace(latents[0]).before & made_here:
            users.append(node_id)
    vaes: list[Input] = []
    for node_id in dict.fromkeys(users):
        vaes += graph.linked(node_id, "VAE")
    return written_inputs_of(graph, graph.sources(vaes, "VAE"), "vae")
