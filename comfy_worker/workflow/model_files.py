"""Finds which model files a workflow names, and where to get each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from comfy_worker.workflow.constraints import MODEL_FILES
from comfy_worker.workflow.graph import ModelFile, Workflow
from comfy_worker.workflow.model_names import FOLDERS, is_model
from comfy_worker.workflow.node_defs import MissingNodeReason, NodeDefs

__all__ = ["CheckContext", "find_model_file", "model_files"]

# The folder of each loader whose input has a name that constraints.MODEL_FILES does not have.
MODEL_FOLDERS = {
    "UpscaleModelLoader": "upscale_models",
    "LatentUpscaleModelLoader": "latent_upscale_models",
    "CLIPVisionLoader": "clip_vision",
    "ModelPatchLoader": "model_patches",
    "StyleModelLoader": "style_models",
    "GLIGENLoader": "gligen",
    "AudioEncoderLoader": "audio_encoders",
    "HypernetworkLoader": "hypernetworks",
    "PhotoMakerLoader": "photomaker",
}


@dataclass(frozen=True)
class CheckContext:
    """What the check knows beside the node classes.

    Attributes:
        needs: model files, and where to get them.
        listed: those that models.txt names, written ``folder/file``.
        packs: by class, the node pack that brings it.
        has_input: whether ComfyUI finds an input file of a name.
        explain: why ComfyUI lacks a class that something here has.
        searched: by model folder, the paths that are searched.
        commands: by ``folder/file``, what ``comfy_setup models --only`` takes to fetch it alone.
        accepts_urls: whether a client may give a model by its URL.
        has_default: whether the setting SD_MODEL stands in for a checkpoint that is missing.
    """

    needs: tuple[ModelFile, ...] = ()
    listed: AbstractSet[str] = frozenset()
    packs: Mapping[str, str] = field(default_factory=dict)
    has_input: Callable[[str], bool] = lambda _name: False
    explain: Callable[[str], MissingNodeReason | None] = lambda _class_type: None
    searched: Callable[[str], Sequence[str]] = lambda _folder: ()
    commands: Mapping[str, str] = field(default_factory=dict)
    accepts_urls: bool = False
    has_default: bool = False


def model_files(workflow: Workflow, defs: NodeDefs, sources: CheckContext) -> tuple[ModelFile, ...]:
    """List the model files that a workflow names, in order, then those of its file's metadata.

    Other files of models.txt are left out.
    """
    named: dict[str, ModelFile] = {}
    for node in workflow.values():
        declared = defs.get(node["class_type"])
        specs = declared.live_inputs(node["inputs"]) if declared else {}
        for spec in specs.values():
            value = node["inputs"].get(spec.name)
            if spec.choices is not None and is_model(value):
                named.setdefault(
                    _base(value), find_model_file(node["class_type"], spec.name, value, sources)
                )
    for need in sources.needs:
        if f"{need.folder}/{need.file}" not in sources.listed:
            named.setdefault(_base(need.file), need)
    return tuple(named.values())


def _base(file: str) -> str:
    return file.replace("\\", "/").rpartition("/")[2]


def find_model_file(class_type: str, name: str, file: str, sources: CheckContext) -> ModelFile:
    """Describe a model file that an input names, in its own folder or else the loader's."""
    known = [need for need in sources.needs if _base(need.file) == _base(file)]
    url = next((need.url for need in known if need.url), None)
    # An input of a dynamic choice has the name of the choice before its own.
    own_name = name.rpartition(".")[2]
    folder = MODEL_FOLDERS.get(class_type) or FOLDERS.get(MODEL_FILES.get(own_name, ""), "")
    return ModelFile(known[0].folder if known else folder, file.replace("\\", "/"), url)
