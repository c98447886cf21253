"""Finds the loaders that feed a sampler. LoRAs go behind them; their family decides what fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from comfy_worker.workflow.graph import Fold, Link, Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.roles.samplers import Sampler
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["Fits", "LoaderFile", "Roots", "loader_files"]

# Whether the model of a loader (``LoaderFile.root``) takes a LoRA or ControlNet file; None if
# unknown.
Fits = Callable[[str, str], "bool | None"]

# No merge has more models than this; the others are not looked at.
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
    """Where the links into samplers begin: the outputs of loaders, each once."""

    def __init__(self, graph: TypedWorkflow) -> None:
        self._graph = graph
        self._roots: dict[str, Fold[Link, tuple[Link, ...]]] = {}
        for link_type in ("MODEL", "CLIP", "CONDITIONING"):
            self._roots[link_type] = Fold(self._above(link_type), self._own(link_type), graph.check)

    def models(self, sampler: Sampler) -> list[Link]:
        """Where the model that a sampler uses comes from; several links where models are merged."""
        link = self._graph.link(sampler.model) if sampler.model else None
        return list(self._roots["MODEL"](link)) if link else []

    def clips(self, sampler: Sampler) -> list[Link]:
        """Where the text encoders behind a sampler's conditioning come from."""
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
    """The files of the samplers' diffusion models, first sampler first; several if merged."""
    roots = Roots(TypedWorkflow(workflow, defs))
    found: list[LoaderFile] = []
    for sampler in roles.samplers:
        for root in roots.models(sampler):
            for name, value in workflow[root.node_id]["inputs"].items():
                if name in MODEL_FOLDERS and isinstance(value, str):
                    file = LoaderFile(sampler.node_id, root.node_id, MODEL_FOLDERS[name], value)
                    found.append(file)
    return found
