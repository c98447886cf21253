"""Which loaders feed a sampler: where a LoRA belongs, and whose family decides what fits.

Owns the walk along links of one type, MODEL, CLIP or CONDITIONING, up to where they begin. Knows no model file
by its content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from comfy_worker.workflow.graph import Input, Link, Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import Roles, Sampler
from comfy_worker.workflow.tracing import Graph

__all__ = ["Fits", "LoaderFile", "clip_roots", "loader_files", "model_roots", "roots_of"]

# Whether the model of a loader (``LoaderFile.root``) takes a LoRA or ControlNet file; None: not known.
Fits = Callable[[str, str], "bool | None"]

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


def roots_of(graph: Graph, places: Iterable[Input | None], kind: str) -> list[Link]:
    """Where the links of one type into some inputs begin: the outputs of loaders, nearest first, each once."""
    roots: dict[Link, None] = {}
    seen: set[Link] = set()
    row = [link for place in places if place and (link := graph.link(place))]
    while row:
        link = row.pop(0)
        if link in seen:
            continue
        seen.add(link)
        above = [up for place in graph.linked(link.node_id, kind) if (up := graph.link(place))]
        if not above and graph.output_type(link) in (kind, "*"):
            roots[link] = None
        row += above
    return list(roots)


def model_roots(graph: Graph, sampler: Sampler) -> list[Link]:
    """Where the model that a sampler uses comes from; several where models are merged."""
    return roots_of(graph, [sampler.model], "MODEL")


def clip_roots(graph: Graph, sampler: Sampler) -> list[Link]:
    """Where the text encoders behind a sampler's conditioning come from."""
    conditioning = [place for place in (sampler.positive, sampler.negative) if place]
    encoders = graph.upstream(conditioning, "CONDITIONING")
    return roots_of(graph, [place for node_id in encoders for place in graph.linked(node_id, "CLIP")], "CLIP")


def loader_files(workflow: Workflow, roles: Roles, defs: NodeDefs) -> list[LoaderFile]:
    """The files whose diffusion models feed the samplers, first sampler first; several where models are merged."""
    graph = Graph(workflow, defs)
    return [
        LoaderFile(sampler.node_id, root.node_id, MODEL_FOLDERS[name], value)
        for sampler in roles.samplers
        for root in model_roots(graph, sampler)
        for name, value in workflow[root.node_id]["inputs"].items()
        if name in MODEL_FOLDERS and isinstance(value, str)
    ]
