"""LoRAs and ControlNets in other people's words -> the contract's entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CONTROLNET", "LORA", "UNIT", "entries", "from_unit", "without_hash"]

CONTROLNET = {
    "conditioning_scale": "strength",
    "controlnet_conditioning_scale": "strength",
    "image_url": "image",
    "control_guidance_start": "start",
    "control_guidance_end": "end",
}
"""diffusers' words in ``controlnet`` -> the contract's in ``controlnets``."""

LORA = {"model_id": "name", "path": "name", "weight": "strength", "scale": "strength"}
"""diffusers' words in ``lora`` -> the contract's in ``loras``."""

UNIT = {
    "input_image": "image",
    "image": "image",
    "model": "model",
    "module": "type",
    "weight": "strength",
    "guidance_start": "start",
    "guidance_end": "end",
}
"""A1111's words in a unit of the ControlNet extension -> the contract's in ``controlnets``."""

UNIT_NEUTRAL = {"control_mode": ("Balanced",), "mask": (), "mask_image": ()}


def entries(given: Any, names: Mapping[str, str]) -> list[Any]:
    """Entries by the contract's names: of one entry or a list; a text alone is a name."""
    units = given if isinstance(given, list) else [given]
    return [
        {names.get(word, word): value for word, value in unit.items()}
        if isinstance(unit, dict)
        else {"name": unit}
        if isinstance(unit, str) and names is LORA
        else unit
        for unit in units
        if unit is not None
    ]


def from_unit(unit: Mapping[str, Any], start_image: Any) -> tuple[dict[str, Any], list[str]]:
    """One unit of A1111's ControlNet extension.

    Args:
        unit: as it stands in ``alwayson_scripts.controlnet.args``.
        start_image: what an img2img unit without an image of its own takes.

    Returns:
        The entry of ``controlnets``, and the words that are not honoured.
    """
    found = {key: unit[word] for word, key in reversed(UNIT.items()) if unit.get(word) not in (None, "")}
    image = found.get("image", start_image)
    found["image"] = image.get("image") if isinstance(image, dict) else image
    module = str(found.pop("type", "none"))
    found["preprocess"] = module.casefold() != "none"
    if found["preprocess"]:
        found["type"] = module
    if (model := without_hash(found.pop("model", None))) != "None":
        found["model"] = model
    ignored = [word for word, ok in UNIT_NEUTRAL.items() if unit.get(word) not in (None, "", 0, *ok)]
    return {key: value for key, value in found.items() if value is not None}, ignored


def without_hash(name: Any) -> Any:
    """A1111's title of a model, ``model.safetensors [6ce0161689]``, without its hash."""
    return name.rpartition(" [")[0] if isinstance(name, str) and name.endswith("]") and " [" in name else name
