"""Finds the model files that a workflow names, and where to download each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import ClassVar

from comfy_worker.workflow.constraints import MODEL_FILES
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.model_names import FOLDERS, is_model
from comfy_worker.workflow.node_defs import MissingNodeReason, NodeDefs

__all__ = ["CORE_PACK", "CheckContext", "ModelFile", "find_model_file", "model_files"]

# The model folder of each loader whose input has a name that constraints.MODEL_FILES lacks.
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
# The pack that files of the editor, and maps of packs, name for ComfyUI's own classes.
CORE_PACK = "comfy-core"


@dataclass(frozen=True)
class ModelFile:
    """A model file that a workflow needs, and where to download it.

    Attributes:
        folder: ``checkpoints``, ``loras`` ...
        file: its path below that folder.
        url: the address to download it from; None if it is not known.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    folder: str
    file: str
    url: str | None = None


@dataclass(frozen=True)
class CheckContext:
    """What a check of a workflow knows in addition to the node classes.

    Attributes:
        needs: known model files, and where to download them.
        listed: the model files in models.txt, written ``folder/file``.
        packs: by class, the node pack that brings it, as the workflow says.
        find_packs: names the packs that are known to have a class, for a workflow that does not
            say; empty if none is known.
        has_input: whether ComfyUI finds an input file of this name.
        explain: why ComfyUI lacks a class that an installed node pack has; None if no pack has it.
        searched: by model folder, the paths that ComfyUI searches.
        commands: by ``folder/file``, the argument of ``comfy_setup models --only`` for this file.
        accepts_urls: whether a client may name a model by its URL.
        has_default: whether the setting SD_MODEL replaces a checkpoint that is missing.
    """

    needs: tuple[ModelFile, ...] = ()
    listed: AbstractSet[str] = frozenset()
    packs: Mapping[str, str] = field(default_factory=dict)
    find_packs: Callable[[str], Sequence[str]] = lambda _class_type: ()
    has_input: Callable[[str], bool] = lambda _name: False
    explain: Callable[[str], MissingNodeReason | None] = lambda _class_type: None
    searched: Callable[[str], Sequence[str]] = lambda _folder: ()
    commands: Mapping[str, str] = field(default_factory=dict)
    accepts_urls: bool = False
    has_default: bool = False


def model_files(workflow: Workflow, defs: NodeDefs, context: CheckContext) -> tuple[ModelFile, ...]:
    """Return the model files that a workflow names, in its order, then the other known ones.

    Known files that are in models.txt and that the workflow does not name are left out.
    """
    named: dict[str, ModelFile] = {}
    for node in workflow.values():
        class_type, inputs = node["class_type"], node["inputs"]
        declared = defs.get(class_type)
        specs = declared.live_inputs(inputs) if declared else {}
        for spec in specs.values():
            file = inputs.get(spec.name)
            if spec.choices is not None and is_model(file):
                found = find_model_file(class_type, spec.name, file, context)
                named.setdefault(_base(file), found)
    for known in context.needs:
        if f"{known.folder}/{known.file}" not in context.listed:
            named.setdefault(_base(known.file), known)
    return tuple(named.values())


def find_model_file(class_type: str, name: str, file: str, context: CheckContext) -> ModelFile:
    """Return the model file that an input names.

    Its folder is that of the known file of this name, else the folder of the loader.

    Args:
        class_type: the class of the loader.
        name: the name of its input.
        file: the value of the input.
        context: has the known files.
    """
    known = [model for model in context.needs if _base(model.file) == _base(file)]
    url = next((model.url for model in known if model.url), None)
    # An input that belongs to a dynamic choice has the choice's name before its own.
    own_name = name.rpartition(".")[2]
    folder = MODEL_FOLDERS.get(class_type) or FOLDERS.get(MODEL_FILES.get(own_name, ""), "")
    return ModelFile(known[0].folder if known else folder, file.replace("\\", "/"), url)


def _base(file: str) -> str:
    """Return a file's name without its folders."""
    return file.replace("\\", "/").rpartition("/")[2]
