"""Tells which entry of ``widgets_values`` belongs to which input, where comfy-cli would read it otherwise."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from comfy_worker.workflow.convert.ui_format import Json, as_text
from comfy_worker.workflow.node_defs import WIDGET_TYPES, InputSpec, NodeClass

__all__ = ["as_object_info", "has_socket_for_widgets", "widget_values", "with_names"]

# Widgets of the frontend that comfy-cli does not know; each holds one text.
TEXT_WIDGETS = frozenset({"AUDIO_RECORD"})
# The frontend's own widget behind such an input, if nothing says otherwise: what becomes of the seed after a run.
SEEDS = frozenset({"seed", "noise_seed"})
CONTROL_VALUES = frozenset({"fixed", "increment", "decrement", "randomize"})
# Widgets of the frontend that hold an object or a list, or a text of a form of their own.
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
# Types whose widgets take a varying number of entries. So do rich widgets: some add widgets for their parts.
VARYING_TYPE = re.compile(r"COMFY_|LOAD_3D|PREVIEW_3D|WEBCAM")
FILE_NAME = re.compile(r"[^\n]{1,500}\.[A-Za-z0-9]{2,12}")
# More entries than these are no widgets and buttons.
MAX_BUTTONS, MAX_VALUES = 20, 200


class _Slot(NamedTuple):
    """One entry of ``widgets_values``: an input's value, its control of the seed, or a forced input's."""

    spec: InputSpec
    role: str


def widget_values(node: Json, declared: NodeClass | None) -> Any:
    """The values of a node's widgets for comfy-cli: a list in the order of the class, or an object by name.

    Where there is one entry for each of the frontend's widgets (old files hold one for a forced input
    too), their places tell what each is. An object, which comfy-cli would take for other inputs, stands
    in a tuple; :func:`with_names` takes it out again.

    Args:
        node: as it stands in the file.
        declared: its class; None where this ComfyUI lacks it.
    """
    values = node.get("widgets_values")
    if isinstance(values, dict) and values and all(key == str(index) for index, key in enumerate(values)):
        values = list(values.values())
    if declared is None or not values:
        return values if not _named_values(node) else _named_values(node)
    if not isinstance(values, list) or not _has_widgets(declared):
        return values
    if _is_plain(declared):
        values = _in_order_of_class(values, _slots(node, declared))
    return [(value,) if isinstance(value, dict) else value for value in values]


def with_names(inputs: dict[str, Any], node: Json, declared: NodeClass | None) -> dict[str, Any]:
    """What comfy-cli made of :func:`widget_values`, with the values that the file names.

    Names count before places: a place means another widget once a node pack adds one. A file may name
    inputs that its class no longer has, so that the places stay good for the inputs that it does not name.
    """
    found = {name: value[0] if isinstance(value, tuple) else value for name, value in inputs.items()}
    for name, value in _named_values(node).items():
        found[name] = {"__value__": value} if isinstance(value, list) else value
    for spec in declared.inputs.values() if declared else ():
        value = found.get(spec.name)
        if spec.type == "CURVE" and isinstance(value, dict) and value.keys() == {"__value__"}:
            found[spec.name] = {"__type__": "CURVE", **value}
    return found


def _named_values(node: Json) -> dict[str, Any]:
    """The values that a file names; empty ones are those of buttons."""
    named = node.get("widgets_values_named")
    if not isinstance(named, dict):
        return {}
    return {name: value for name, value in named.items() if value is not None}


def _in_order_of_class(values: list[Any], slots: list[_Slot]) -> list[Any]:
    """The values of a class whose widgets have one entry each."""
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
    """Whether the inputs of several types (``FLOAT,INT``) of a node are sockets, without a widget's value."""
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
    """A class as ``/object_info`` declares it, but for what comfy-cli reads otherwise than the frontend.

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
        options["socketless"] = True  # comfy-cli knows these widgets by this word alone
    if spec.is_listed and spec.choices is not None:
        return [list(spec.choices), options]
    return [widget_type if widget_type and not is_socket else spec.type, options]


def _widget_type(spec: InputSpec) -> str | None:
    """The type of the widget that an input has in the editor; None for a socket.

    Of several types (``FLOAT,INT``) it is the first, unless one of them never has a widget. The class may
    name the widget itself (``widgetType``).
    """
    if spec.type in TEXT_WIDGETS:
        return "STRING"
    words = [word.strip() for word in spec.type.split(",")]
    if spec.options.get("widgetType"):
        return next((word for word in words if word in WIDGET_TYPES), None)
    return words[0] if WIDGET_TYPES.issuperset(words) else None


def _slots(node: Json, declared: NodeClass) -> list[_Slot]:
    """What ``widgets_values`` of a node holds."""
    has_sockets = has_socket_for_widgets(node, declared)
    slots = []
    for spec in declared.inputs.values():
        if not (has_sockets and "," in spec.type):
            slots += _slots_of(spec)
    return slots


def _slots_of(spec: InputSpec) -> list[_Slot]:
    """What ``widgets_values`` holds for an input."""
    if spec.options.get("forceInput"):
        return [_Slot(spec, "forced")]
    if _widget_type(spec) is None:
        return []
    is_controlled = spec.type == "INT" and spec.options.get("control_after_generate", spec.name in SEEDS)
    return [_Slot(spec, "value"), _Slot(spec, "control")] if is_controlled else [_Slot(spec, "value")]


def _is_plain(declared: NodeClass) -> bool:
    """Whether each widget of a class has one entry, as far as its declaration tells."""
    specs = declared.inputs.values()
    for spec in specs:
        if spec.type in RICH_WIDGETS or VARYING_TYPE.search(spec.type) or spec.options.get("socketless"):
            return False
    return True


def _has_widgets(declared: NodeClass) -> bool:
    """Whether a class has a widget of its own; where it has none, a pack's web code reads the values."""
    for spec in declared.inputs.values():
        is_rich = spec.type in RICH_WIDGETS or spec.options.get("socketless")
        if is_rich or _widget_type(spec) or VARYING_TYPE.search(spec.type):
            return True
    return False


def _without_buttons(values: list[Any], slots: list[_Slot]) -> list[Any]:
    """The values without those of buttons, which some packs add between a class's own widgets.

    Changes nothing where the values fit their places as they stand, or where no choice of them fits.
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
    """Of the values the earliest that fit the slots in their order; None where there are none."""
    # From the end: how many of the last slots can be filled from each value on.
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
    """Whether a widget can hold a value."""
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
        # A file may be in the list of another machine.
        is_file = isinstance(value, str) and FILE_NAME.fullmatch(value) is not None
        return is_file or value in spec.choices
    return isinstance(value, str)
