"""Five workflows with node packs, in the forms in which public ones come.

A pack is named by the editor with a version, by the editor with a commit, by the owner of its
repository, by the map of classes, or only by the registry.
"""

from __future__ import annotations

from typing import Any

from tests.editor_files import editor_file, node
from tests.graphs import node as api_node
from tests.pack_registry import Registry

__all__ = ["CLASSES", "COMMIT", "GGUF", "LORA", "WORKFLOWS", "publish_packs"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GGUF = "z-image-Q8.gguf"
# models.txt has its URL.
LORA = "minimax_h3_fl2v_turbo_8step_v1.0_comfyui_bf16.safetensors"


def _through(class_type: str, **properties: Any) -> dict[str, Any]:
    """An editor's file: a picture goes through one node."""
    return editor_file(
        node(1, "LoadImage", {"=image": ("COMBO", None)}, "IMAGE MASK", ["x.png"]),
        node(2, class_type, {"image": ("IMAGE", (1, 0))}, "IMAGE", [], properties=properties),
        node(3, "SaveImage", {"images": ("IMAGE", (2, 0))}, "", ["x"]),
    )


def _api(class_type: str, **inputs: Any) -> dict[str, Any]:
    """The same in API format, which names no packs."""
    return {
        "1": api_node("LoadImage", image="x.png"),
        "2": api_node(class_type, image=["1", 0], **inputs),
        "3": api_node("SaveImage", images=["2", 0], filename_prefix="x"),
    }


def _gguf() -> dict[str, Any]:
    model = {"name": GGUF, "url": f"https://huggingface.co/o/r/resolve/main/{GGUF}"}
    properties = {
        "cnr_id": "ComfyUI-GGUF",
        "ver": COMMIT,
        "models": [{**model, "directory": "diffusion_models"}],
    }
    inputs = {"=unet_name": ("COMBO", None)}
    return editor_file(
        node(1, "LoadImage", {"=image": ("COMBO", None)}, "IMAGE MASK", ["x.png"]),
        node(2, "UnetLoaderGGUF", inputs, "MODEL", [GGUF], properties=properties),
        node(3, "UseModel", {"image": ("IMAGE", (1, 0)), "model": ("MODEL", (2, 0))}, "IMAGE"),
        node(4, "SaveImage", {"images": ("IMAGE", (3, 0))}, "", ["x"]),
    )


WORKFLOWS: dict[str, dict[str, Any]] = {
    "resize": _through("ImageResizeKJv2", cnr_id="comfyui-kjnodes", ver="1.1.9"),
    "blend": _through("BlendPlus", aux_id="someone/blend-nodes"),
    "loras": _api("Lora Stack (rgthree)", lora_01=LORA),
    "canny": _api("CannyEdgePreprocessor"),
    "gguf": _gguf(),
}


def _declared(pack: str, **required: Any) -> dict[str, Any]:
    return {
        "input": {"required": required},
        "output": ["IMAGE"],
        "output_name": ["IMAGE"],
        "python_module": f"custom_nodes.{pack}",
    }


# What /object_info says of the packs' classes, once they and the models are installed.
CLASSES: dict[str, Any] = {
    "ImageResizeKJv2": _declared("comfyui-kjnodes", image=["IMAGE"]),
    "BlendPlus": _declared("blend-nodes", image=["IMAGE"]),
    "Lora Stack (rgthree)": _declared("rgthree-comfy", image=["IMAGE"], lora_01=[[LORA]]),
    "CannyEdgePreprocessor": _declared("comfyui_controlnet_aux", image=["IMAGE"]),
    "UnetLoaderGGUF": _declared("ComfyUI-GGUF", unet_name=[[GGUF]]) | {"output": ["MODEL"]},
    "UseModel": _declared("ComfyUI-GGUF", image=["IMAGE"], model=["MODEL"]),
}


def publish_packs(registry: Registry) -> None:
    """Publish the packs, and Manager's lists, which know one of them."""
    rgthree = "https://github.com/rgthree/rgthree-comfy"
    registry.publish("comfyui-kjnodes", "1.1.9", {})
    registry.publish("comfyui-kjnodes", "1.2.0", {})
    registry.publish("rgthree-comfy", "1.0.5", {}, repository=f"{rgthree}.git")
    registry.publish("comfyui_controlnet_aux", "1.1.3", {}, classes=["CannyEdgePreprocessor"])
    registry.publish(
        "comfyui-gguf",
        "1.0.0",
        {},
        repository="https://github.com/city96/ComfyUI-GGUF",
        classes=["UseModel"],
    )
    patterns: dict[str, Any] = {rgthree: [[], {"nodename_pattern": r" \(rgthree\)$"}]}
    registry.answer("/manager/extension-node-map.json", patterns)
    packs = {"custom_nodes": [{"id": "rgthree", "reference": rgthree}]}
    registry.answer("/manager/custom-node-list.json", packs)
