"""Prepares ``widgets_values`` and class declarations where comfy-cli would misread them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from comfy_worker.workflow.convert.ui_format import Json, as_list, as_text
from comfy_worker.workflow.node_defs import WIDGET_TYPES, InputSpec, NodeClass

__all__ = ["as_object_info", "has_socket_for_widgets", "widget_values", "with_names"]

# Widgets of the frontend that comfy-cli does not know and that hold one text.
TEXT_WIDGETS = frozenset({"AUDIO_RECORD"})
# Inputs that the frontend follows by a widget of its own: how the seed changes after a run.
SEEDS = frozenset({"seed", "noise_seed"})
CONTROL_VALUES = frozenset({"fixed", "increment", "decrement", "randomize"})
# Types of the frontend's widgets that hold an object, a list or a specially formatted text.
RICH_WIDGETS = frozenset(
    {
        "BOUNDING_BOX",
        "BOUNDING_BOXES",
        "CHART",
        "COLOR",
        "COLORS",
        "COMPOSITOR",
        "CURVE",
        "GALLERIA",
        "IMAGECOMPARE",
        "PAINTER",
        "RANGE",
        "TEXTAREA",
        "VIDEO_EDIT",
    }
)
# Types with a varying number of entries. Rich widgets vary too: some add widgets for their parts.
VARYING_TYPE = re.compile(r"COMFY_|LOAD_3D|PREVIEW_3D|WEBCAM")
FILE_NAME = re.compile(r"[^\n]{1,500}\.[A-Za-z0-9]{2,12}")
# How many levels of choices are followed. A format has codecs, and a codec has encodings.
MAX_LEVELS = 8
# What a widget holds at first in the editor if its input declares no default.
FIRST_VALUES = {"INT": 0, "FLOAT": 0, "BOOLEAN": False}
# With more entries than these, the values are not searched for buttons.
MAX_BUTTONS, MAX_VALUES = 20, 200


class _Slot(NamedTuple):
    """One entry of ``widgets_values``.

    Attributes:
        spec: the input that the entry belongs to.
        role: ``value``, ``control`` of a seed, or ``forced``: the unused value of a forced input.
    """

    spec: InputSpec
    role: str


def widget_values(node: Json, declared: NodeClass | None) -> Any:
    """Prepare the values of a node's widgets for comfy-cli.

    An object stands in a tuple, because comfy-cli would read its keys as inputs. :func:`with_names`
    takes it out again.

    Args:
        node: the node in the file.
        declared: its class; None if this ComfyUI lacks it.

    Returns:
        A list in the order of the class, or an object by name.
    """
    values = node.get("widgets_values")
    if (
        isinstance(values, dict)
        and values
        and all(key == str(index) for index, key in enumerate(values))
    ):
        values = list(values.values())
    if declared is None or not values:
        return _named_values(node) or values
    if not isinstance(values, list) or not _has_widgets(declared):
        return values
    if _is_plain(declared):
        values = _in_order_of_class(values, _slots(node, declared))
    return [(value,) if isinstance(value, dict) else value for value in values]


def with_names(inputs: dict[str, Any], node: Json, declared: NodeClass | None) -> dict[str, Any]:
    """Add the values that the file names to comfy-cli's reading of :func:`widget_values`.

    Names count before positions, which shift when a node pack adds a widget. Positions still count
    for inputs that the file does not name: it may have been saved with an older class.
    """
    found = {}
    for name, value in inputs.items():
        found[name] = value[0] if isinstance(value, tuple) else value
    for name, value in _named_values(node).items():
        found[name] = {"__value__": value} if isinstance(value, list) else value
    for spec in declared.inputs.values() if declared else ():
        value = found.get(spec.name)
        if spec.type == "CURVE" and isinstance(value, dict) and value.keys() == {"__value__"}:
            found[spec.name] = {"__type__": "CURVE", **value}
    if declared is not None:
        _add_defaults(found, node, declared)
        _add_camera(found, node, declared)
    return found


def _add_camera(values: dict[str, Any], node: Json, declared: NodeClass) -> None:
    """Add the camera of a 3D view, which the editor stores beside the values of the widgets."""
    config = node["properties"].get("Camera Config")
    camera = config.get("state") if isinstance(config, dict) else None
    spec = declared.inputs.get("viewport_state")
    if camera and spec is not None and spec.type == "LOAD_3D" and not values.get(spec.name):
        texts = dict.fromkeys(("image", "mask", "normal", "recording"), "")
        values[spec.name] = {**texts, "camera_info": camera, "model_3d_info": []}


def _add_defaults(values: dict[str, Any], node: Json, declared: NodeClass) -> None:
    """Add the widgets that a file lacks, with the values that the editor gives them.

    A file lacks a widget if it is older than the widget. A choice may bring further widgets.
    """
    has_sockets = has_socket_for_widgets(node, declared)
    for _ in range(MAX_LEVELS):
        missing = {}
        for name, spec in declared.live_inputs(values).items():
            is_socket = has_sockets and "," in spec.type
            if name not in values and not is_socket and _is_own_widget(name, spec, declared):
                missing[name] = _default(spec)
        if not missing:
            break
        values |= missing


def _is_own_widget(name: str, spec: InputSpec, declared: NodeClass) -> bool:
    """Whether an input has a widget with a first value; inputs of a growing list have none."""
    if name not in declared.inputs and not declared.inputs[name.partition(".")[0]].branches:
        return False
    if spec.options.get("defaultInput") or not spec.is_widget:
        return False
    has_no_value = spec.value_type == "COMBO" and not spec.choices and "default" not in spec.options
    return not has_no_value and (bool(spec.branches) or _widget_type(spec) is not None)


def _default(spec: InputSpec) -> Any:
    """Return the value that a widget of the editor has at first."""
    if "default" in spec.options:
        return spec.options["default"]
    if spec.choices:
        return spec.choices[0]
    return FIRST_VALUES.get(spec.value_type, "")


def _named_values(node: Json) -> dict[str, Any]:
    """Return the values that a file names, without empty ones, which belong to buttons.

    The editor writes each value twice, in the same order. If the two differ, the file was edited by
    hand: then the value in the list counts, as it does for the editor.
    """
    named = node.get("widgets_values_named")
    if not isinstance(named, dict):
        return {}
    listed = as_list(node.get("widgets_values"))
    # The list may have empty entries for widgets that have no name.
    is_complete = len(listed) >= len(named)
    named = {name: value for name, value in named.items() if value is not None}
    listed = [value for value in listed if value is not None]
    is_same = is_complete and len(listed) == len(named)
    return dict(zip(named, listed, strict=True)) if is_same else named


def _in_order_of_class(values: list[Any], slots: list[_Slot]) -> list[Any]:
    """Return the values for the inputs of a class whose widgets have one entry each.

    Old files have an entry for a forced input too.
    """
    if len(values) != len(slots):
        slots = [slot for slot in slots if slot.role != "forced"]
    if len(values) > len(slots):
        return _without_buttons(values, slots)
    if len(values) < len(slots):
        return values
    ordered = []
    for value, slot in zip(values, slots, strict=True):
        if slot.role == "control":
            ordered.append("fixed")
        elif slot.role != "forced":
            ordered.append(value)
    return ordered


def has_socket_for_widgets(node: Json, declared: NodeClass) -> bool:
    """Return whether a node's inputs of several types (``FLOAT,INT``) are sockets."""
    several = [spec for spec in declared.inputs.values() if "," in spec.type and _widget_type(spec)]
    if not several:
        return False
    entries = {as_text(entry.get("name")): entry for entry in node["inputs"]}
    if any(spec.name in entries for spec in several):
        return not any(entries.get(spec.name, {}).get("widget") for spec in several)
    values = node.get("widgets_values")
    if not isinstance(values, list):
        return False
    slots = [slot for spec in declared.inputs.values() for slot in _slots_of(spec)]
    with_widgets = len([slot for slot in slots if slot.role != "forced"])
    without = len([slot for slot in slots if slot.role != "forced" and slot.spec not in several])
    return len(values) not in (len(slots), with_widgets) and len(values) == without


def as_object_info(declared: NodeClass, has_sockets: bool) -> dict[str, Any]:
    """Declare a class like ``/object_info``, except where comfy-cli and the frontend differ.

    Args:
        declared: the class.
        has_sockets: whether its inputs of several types have no widget.
    """
    groups: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for spec in declared.inputs.values():
        group = groups["required" if spec.required else "optional"]
        group[spec.name] = _as_declared(spec, has_sockets)
    return {
        "input": groups,
        "input_order": {group: list(entries) for group, entries in groups.items()},
    }


def _as_declared(spec: InputSpec, has_sockets: bool) -> list[Any]:
    widget_type = _widget_type(spec)
    if has_sockets and "," in spec.type:
        widget_type = None
    is_rich = spec.type in RICH_WIDGETS
    is_forced = spec.options.get("defaultInput") or spec.options.get("forceInput")
    is_socket = is_forced or not (widget_type or is_rich)
    # Variants are chosen later, by the job's seed; a socket has no default.
    left_out = {"dynamicPrompts", "default"} if is_socket else {"dynamicPrompts"}
    options = {key: value for key, value in spec.options.items() if key not in left_out}
    if is_rich:
        options["socketless"] = True  # by this option alone comfy-cli recognizes such widgets
    if spec.is_listed and spec.choices is not None:
        return [list(spec.choices), options]
    return [widget_type if widget_type and not is_socket else spec.type, options]


def _widget_type(spec: InputSpec) -> str | None:
    """Return the type of the widget that an input has in the editor; None for a socket.

    Of several types (``FLOAT,INT``) the first counts, unless one of them never has a widget. A
    class may name the widget itself (``widgetType``).
    """
    if spec.type in TEXT_WIDGETS:
        return "STRING"
    words = [word.strip() for word in spec.type.split(",")]
    if spec.options.get("widgetType"):
        return next((word for word in words if word in WIDGET_TYPES), None)
    return words[0] if WIDGET_TYPES.issuperset(words) else None


def _slots(node: Json, declared: NodeClass) -> list[_Slot]:
    """Return the entries of a node's ``widgets_values``."""
    has_sockets = has_socket_for_widgets(node, declared)
    slots = []
    for spec in declared.inputs.values():
        if not (has_sockets and "," in spec.type):
            slots += _slots_of(spec)
    return slots


def _slots_of(spec: InputSpec) -> list[_Slot]:
    """Return the entries of ``widgets_values`` for an input."""
    if spec.options.get("forceInput"):
        return [_Slot(spec, "forced")]
    if _widget_type(spec) is None:
        return []
    slots = [_Slot(spec, "value")]
    if spec.type == "INT" and spec.options.get("control_after_generate", spec.name in SEEDS):
        slots.append(_Slot(spec, "control"))
    return slots


def _is_plain(declared: NodeClass) -> bool:
    """Return whether each widget of a class has one entry, judging by its declaration."""
    return not any(
        _is_rich(spec) or VARYING_TYPE.search(spec.type) for spec in declared.inputs.values()
    )


def _is_rich(spec: InputSpec) -> bool:
    return spec.type in RICH_WIDGETS or bool(spec.options.get("socketless"))


def _has_widgets(declared: NodeClass) -> bool:
    """Return whether a class has a widget. If not, web code of a node pack uses the values."""
    for spec in declared.inputs.values():
        if _is_rich(spec) or _widget_type(spec) or VARYING_TYPE.search(spec.type):
            return True
    return False


def _without_buttons(values: list[Any], slots: list[_Slot]) -> list[Any]:
    """Remove the values of buttons, which some packs add between a class's own widgets.

    Nothing changes if the values fit their positions already, or if no choice of them fits.
    """
    layouts = [slots, [slot for slot in slots if slot.role != "control"]]
    if len(values) > min(MAX_VALUES, len(slots) + MAX_BUTTONS):
        return values
    for layout in layouts:
        if all(_fits(value, slot) for value, slot in zip(values, layout, strict=False)):
            return values
    for layout in layouts:
        chosen = _first_that_fit(values, layout)
        if chosen is not None:
            return chosen
    return values


def _first_that_fit(values: list[Any], slots: list[_Slot]) -> list[Any] | None:
    """Choose the earliest values that fit the slots in order; None if there are none."""
    # For each position, counted from the end: how many of the last slots the rest can fill.
    fillable = [0] * (len(values) + 1)
    for index in range(len(values) - 1, -1, -1):
        filled = fillable[index + 1]
        fillable[index] = filled
        if filled < len(slots) and _fits(values[index], slots[len(slots) - 1 - filled]):
            fillable[index] = filled + 1
    if fillable[0] < len(slots):
        return None
    chosen: list[Any] = []
    for index, value in enumerate(values):
        left = len(slots) - len(chosen) - 1
        if left >= 0 and fillable[index + 1] >= left and _fits(value, slots[len(chosen)]):
            chosen.append(value)
    return chosen


def _fits(value: Any, slot: _Slot) -> bool:
    """Return whether a widget can hold a value."""
    spec = slot.spec
    if slot.role == "control":
        return isinstance(value, str) and value in CONTROL_VALUES
    widget_type = _widget_type(spec)
    if widget_type == "BOOLEAN":
        return isinstance(value, bool)
    if widget_type in ("INT", "FLOAT"):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return is_number and (widget_type == "FLOAT" or "," in spec.type or is_whole)
    if widget_type == "COMBO" and spec.choices:
        # The file may exist on another machine only.
        is_file = isinstance(value, str) and FILE_NAME.fullmatch(value) is not None
        return is_file or value in spec.choices
    return isinstance(value, str)
