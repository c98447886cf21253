"""Translates LoRAs and ControlNets of other workers' requests into entries of our own input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "CONTROLNET",
    "LORA",
    "UNIT",
    "controlnet_entries",
    "from_unit",
    "lora_entries",
    "without_hash",
]

CONTROLNET = {
    "conditioning_scale": "strength",
    "controlnet_conditioning_scale": "strength",
    "image_url": "image",
    "control_guidance_start": "start",
    "control_guidance_end": "end",
}
"""diffusers' words in ``controlnet`` -> the keys of an entry of ``controlnets``."""

LORA = {"model_id": "name", "path": "name", "weight": "strength", "scale": "strength"}
"""diffusers' words in ``lora`` -> the keys of an entry of ``loras``."""

UNIT = {
    "input_image": "image",
    "image": "image",
    "model": "model",
    "module": "type",
    "weight": "strength",
    "guidance_start": "start",
    "guidance_end": "end",
}
"""A1111's words in a unit of the ControlNet extension -> the keys of ``controlnets``."""

UNIT_NEUTRAL = {"control_mode": ("Balanced",), "mask": (), "mask_image": ()}
"""Words of a unit that this worker ignores -> the values that change nothing."""


def controlnet_entries(value: Any) -> list[Any]:
    """Translate diffusers' ``controlnet``, which is an entry or a list of them."""
    return [_renamed(unit, CONTROLNET) for unit in _listed(value)]


def lora_entries(value: Any) -> list[Any]:
    """Translate diffusers' ``lora``: an entry or a list of entries. A text is a name."""
    entries = []
    for unit in _listed(value):
        if isinstance(unit, str):
            entries.append({"name": unit})
        else:
            entries.append(_renamed(unit, LORA))
    return entries


def _listed(value: Any) -> list[Any]:
    """Return a value as a list, without nulls."""
    units = value if isinstance(value, list) else [value]
    return [unit for unit in units if unit is not None]


def _renamed(unit: Any, names: Mapping[str, str]) -> Any:
    """Return an object with our own keys; the schema rejects anything else later."""
    if not isinstance(unit, dict):
        return unit
    return {names.get(word, word): value for word, value in unit.items()}


def from_unit(unit: Mapping[str, Any], start_image: Any) -> tuple[dict[str, Any], list[str]]:
    """Translate a unit of A1111's ControlNet extension.

    Args:
        unit: an entry of ``alwayson_scripts.controlnet.args``.
        start_image: the image of an img2img request, which a unit without an image uses.

    Returns:
        The entry of ``controlnets``, and the words that are ignored.
    """
    entry: dict[str, Any] = {}
    for word, key in UNIT.items():
        if unit.get(word) not in (None, ""):
            entry.setdefault(key, unit[word])
    image = entry.get("image", start_image)
    entry["image"] = image.get("image") if isinstance(image, dict) else image
    module = str(entry.pop("type", "none"))
    entry["preprocess"] = module.casefold() != "none"
    if entry["preprocess"]:
        entry["type"] = module
    model = without_hash(entry.pop("model", None))
    if model != "None":
        entry["model"] = model
    ignored = []
    for word, neutral in UNIT_NEUTRAL.items():
        if unit.get(word) not in (None, "", 0, *neutral):
            ignored.append(word)
    return {key: value for key, value in entry.items() if value is not None}, ignored


def without_hash(name: Any) -> Any:
    """Remove the hash from A1111's title of a model, ``model.safetensors [6ce0161689]``."""
    if isinstance(name, str) and name.endswith("]") and " [" in name:
        return name.rpartition(" [")[0]
    return name
