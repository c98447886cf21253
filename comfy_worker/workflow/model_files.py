"""Which model files a workflow names, and where each can be got.

Owns how an input's value is known for a model file, and the folder that it lies in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from comfy_worker.workflow.constraints import MODEL_FILES
from comfy_worker.workflow.graph import Need, Workflow
from comfy_worker.workflow.model_names import FOLDERS, is_model
from comfy_worker.workflow.node_defs import Absence, NodeDefs

__all__ = ["Sources", "find_need", "model_files"]

# The folder behind an input whose name says less than its class does, or nothing that limits.MODEL_FILES knows.
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
class Sources:
    """What is known beside the node classes.

    Attributes:
        needs: model files, and where they can be got.
        listed: those that models.txt names, written ``folder/file``.
        packs: by class, the node pack that brings it.
        has_input: whether ComfyUI finds an input file of a name.
        explain: why ComfyUI lacks a class that something here has.
        searched: the folders that are searched for a kind of model.
        commands: by ``folder/file``, what ``comfy_setup models --only`` takes to fetch it alone.
        accepts_urls: whether a client may give a model by its URL.
        has_default: whether the setting SD_MODEL stands in for a checkpoint that is missing.
    """

    needs: tuple[Need, ...] = ()
    listed: AbstractSet[str] = frozenset()
    packs: Mapping[str, str] = field(default_factory=dict)
    has_input: Callable[[str], bool] = lambda _name: False
    explain: Callable[[str], Absence | None] = lambda _class_type: None
    searched: Callable[[str], Sequence[str]] = lambda _folder: ()
    commands: Mapping[str, str] = field(default_factory=dict)
    accepts_urls: bool = False
    has_default: bool = False


def model_files(workflow: Workflow, defs: NodeDefs, sources: Sources) -> tuple[Need, ...]:
    """The model files that a workflow names, in its order, then those that its file names beside them.

    Those of models.txt that it does not name are left out.
    """
    named: dict[str, Need] = {}
    for node in workflow.values():
        declared = defs.get(node["class_type"])
        for spec in declared.inputs.values() if declared else ():
            value = node["inputs"].get(spec.name)
            if spec.choices is not None and is_model(value):
                named.setdefault(_base(value), find_need(node["class_type"], spec.name, value, sources))
    for need in sources.needs:
        if f"{need.folder}/{need.file}" not in sources.listed:
            named.setdefault(_base(need.file), need)
    return tuple(named.values())


def _base(file: str) -> str:
    return file.replace("\\", "/").rpartition("/")[2]


def find_need(class_type: str, name: str, file: str, sources: Sources) -> Need:
    """A model file that an input names; the folder as somebody told it, else by class and input."""
    told = [need for need in sources.needs if _base(need.file) == _base(file)]
    folder = MODEL_FOLDERS.get(class_type) or FOLDERS.get(MODEL_FILES.get(name, ""), "")
    url = next((need.url for need in told if need.url), None)
    return Need(told[0].folder if told else folder, file.replace("\\", "/"), url)
