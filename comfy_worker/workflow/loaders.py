"""Which loaders feed a sampler: where a LoRA belongs, and whose family decides what fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from comfy_worker.workflow.graph import Fold, Link, Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import Roles, Sampler
from comfy_worker.workflow.tracing import Graph

__all__ = ["Fits", "LoaderFile", "Roots", "loader_files"]

# Whether the model of a loader (``LoaderFile.root``) takes a LoRA or ControlNet file; None: not known.
Fits = Callable[[str, str], "bool | None"]

# A merge of more models than this is none; what lies beyond is not looked at.
MAX_ROOTS = 100

# The model folder behind an input that names a file, by the input's name on the loader.
MODEL_FOLDERS = {"ckpt_name": "checkpoints", "unet_name": "diffusion_models", "model_name": "diffusion_models"}


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

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        kinds = ("MODEL", "CLIP", "CONDITIONING")
        self._roots = {kind: Fold(self._above(kind), self._own(kind), graph.check) for kind in kinds}

    def models(self, sampler: Sampler) -> list[Link]:
        """Where the model that a sampler uses comes from; several where models are merged."""
        link = self._graph.link(sampler.model) if sampler.model else None
        return list(self._roots["MODEL"](link)) if link else []

    def clips(self, sampler: Sampler) -> list[Link]:
        """Where the text encoders behind a sampler's conditioning come from."""
        links = [self._graph.link(place) for place in (sampler.positive, sampler.negative) if place]
        return list(dict.fromkeys(root for link in links if link for root in self._roots["CONDITIONING"](link)))

    def _above(self, kind: str) -> Callable[[Link], list[Link]]:
        graph = self._graph

        def above(link: Link) -> list[Link]:
            return [up for place in graph.linked(link.node_id, kind) if (up := graph.link(place))]

        return above

    def _own(self, kind: str) -> Callable[[Link, list[tuple[Link, ...]]], tuple[Link, ...]]:
        graph = self._graph

        def joined(link: Link, above: list[tuple[Link, ...]]) -> tuple[Link, ...]:
            found = dict.fromkeys(root for roots in above for root in roots)
            if kind == "CONDITIONING":
                for place in graph.linked(link.node_id, "CLIP"):
                    loader = graph.link(place)
                    found |= dict.fromkeys(self._roots["CLIP"](loader) if loader else ())
            elif not graph.linked(link.node_id, kind) and graph.output_type(link) in (kind, "*"):
                return (link,)
            return tuple(found)[:MAX_ROOTS]

        return joined


def loader_files(workflow: Workflow, roles: Roles, defs: NodeDefs) -> list[LoaderFile]:
    """The files whose diffusion models feed the samplers, first sampler first; several where models are merged."""
    roots = Roots(Graph(workflow, defs))
    return [
        LoaderFile(sampler.node_id, root.node_id, MODEL_FOLDERS[name], value)
        for sampler in roles.samplers
        for root in roots.models(sampler)
        for name, value in workflow[root.node_id]["inputs"].items()
        if name in MODEL_FOLDERS and isinstance(value, str)
    ]
