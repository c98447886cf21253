"""Finds the loaders that feed a sampler.

A LoRA belongs behind a loader, and the model family of its file decides which LoRAs fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from comfy_worker.workflow.graph import Input, Link, Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.roles.samplers import Sampler
from comfy_worker.workflow.typed_workflow import TypedWorkflow
from comfy_worker.workflow.walks import Fold

__all__ = ["Fits", "LoaderFile", "Roots", "loader_files"]

# Whether the model of a loader (``LoaderFile.root``) accepts a LoRA or ControlNet file; None if it
# is not known.
Fits = Callable[[str, str], "bool | None"]

# No merge has more models than this. Further ones are ignored.
MAX_ROOTS = 100

# The model folder behind an input that names a file, by the input's name on the loader.
MODEL_FOLDERS = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "model_name": "diffusion_models",
}


@dataclass(frozen=True)
class LoaderFile:
    """A file with a diffusion model that feeds a sampler.

    Attributes:
        sampler: the sampler's node id.
        root: the loader's node id.
        folder: the model folder, ``checkpoints`` or ``diffusion_models``.
        name: the file, relative to that folder.
    """

    sampler: str
    root: str
    folder: str
    name: str


class Roots:
    """Finds the outputs of loaders where the links into samplers begin, each once."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._roots: dict[str, Fold[Link, tuple[Link, ...]]] = {}
        for link_type in ("MODEL", "CLIP", "CONDITIONING"):
            self._roots[link_type] = Fold(self._above(link_type), self._own(link_type), graph.check)

    def models(self, sampler: Sampler) -> list[Link]:
        """Return the loaders of the models that a sampler uses.

        They are several where models are merged, and where a sampler takes a model for each noise.
        """
        found: dict[Link, None] = {}
        for node_input in self.model_inputs(sampler):
            found |= dict.fromkeys(self.models_at(node_input))
        return list(found)

    def model_inputs(self, sampler: Sampler) -> list[Input]:
        """Return the inputs by which a sampler, or its guider, takes models; the main one first."""
        if sampler.model is None:
            return []
        others = self._graph.linked(sampler.model.node_id, "MODEL")
        return list(dict.fromkeys([sampler.model, *others]))

    def models_at(self, node_input: Input) -> tuple[Link, ...]:
        """Return the loaders of the models that arrive at an input."""
        link = self._graph.link(node_input)
        return self._roots["MODEL"](link) if link else ()

    def clips(self, sampler: Sampler) -> list[Link]:
        """Return the outputs that the text encoders behind a sampler's conditioning come from."""
        found: dict[Link, None] = {}
        for node_input in (sampler.positive, sampler.negative):
            link = self._graph.link(node_input) if node_input else None
            if link is not None:
                found |= dict.fromkeys(self._roots["CONDITIONING"](link))
        return list(found)

    def _above(self, link_type: str) -> Callable[[Link], list[Link]]:
        graph = self._graph

        def above(link: Link) -> list[Link]:
            links = [graph.link(node_input) for node_input in graph.linked(link.node_id, link_type)]
            return [source for source in links if source is not None]

        return above

    def _own(self, link_type: str) -> Callable[[Link, list[tuple[Link, ...]]], tuple[Link, ...]]:
        graph = self._graph

        def joined(link: Link, above: list[tuple[Link, ...]]) -> tuple[Link, ...]:
            found: dict[Link, None] = {}
            for roots in above:
                found |= dict.fromkeys(roots)
            is_root = not graph.linked(link.node_id, link_type)
            if link_type == "CONDITIONING":
                for node_input in graph.linked(link.node_id, "CLIP"):
                    loader = graph.link(node_input)
                    found |= dict.fromkeys(self._roots["CLIP"](loader) if loader else ())
            elif is_root and graph.output_type(link) in (link_type, "*"):
                return (link,)
            return tuple(found)[:MAX_ROOTS]

        return joined


def loader_files(workflow: Workflow, roles: Roles, defs: NodeDefs) -> list[LoaderFile]:
    """Return the files whose diffusion models feed the samplers, first sampler first.

    A sampler has several if models are merged.
    """
    roots = Roots(TypedWorkflow(workflow, defs))
    found: list[LoaderFile] = []
    for sampler in roles.samplers:
        for node_id, _ in roots.models(sampler):
            for name, value in workflow[node_id]["inputs"].items():
                if name in MODEL_FOLDERS and isinstance(value, str):
                    folder = MODEL_FOLDERS[name]
                    found.append(LoaderFile(sampler.node_id, node_id, folder, value))
    return found
