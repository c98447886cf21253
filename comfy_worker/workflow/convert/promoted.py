"""Reads the widget values of a host, which is the node that stands for a subgraph.

A host shows ("promotes") widgets of inner nodes. Since frontend 1.43 each host has its own values,
in the order of the subgraph's inputs. Earlier frontends list the widgets in ``proxyWidgets`` and
the values in that order, also for widgets that no input of the subgraph leads to. Frontend 1.49.6
reads both forms (``SubgraphNode.ts``, ``proxyWidgetMigration.ts``), and so does this module.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from comfy_worker.workflow.convert.ui_format import Json, as_dict, as_list, as_text, dicts

__all__ = ["PRIMITIVE_WIDGET", "HostValues", "Promotion", "WidgetSource", "read_host_values"]

# Stands in ``proxyWidgets`` for the host itself: an input of the subgraph by its name.
HOST_ITSELF = "-1"
# Old files put the ids of inner hosts in front of a widget's name: ``12: 5: seed``.
ID_PREFIX = re.compile(r"\s*\d+\s*:\s*(.+)")
MAX_ID_PREFIXES = 30
# Begins the names of widgets that only show a picture.
PREVIEW = "$$"
PRIMITIVE_WIDGET = ""


class WidgetSource(NamedTuple):
    """A widget of a node in the file.

    Attributes:
        node: the node.
        name: the widget's name, which is that of its input.
    """

    node: Json
    name: str


@dataclass(frozen=True)
class Promotion:
    """An input of a subgraph that has a widget on the host.

    Attributes:
        name: the input's name.
        node_id: the inner node whose widget the host shows.
        widget: the name of that widget, or of the input if the inner node is a host too.
        source: the widget at the end of nested hosts; its value counts if no host has one.
        inner_value: the value of the nearest inner host; None if no inner host has one.
    """

    name: str
    node_id: str
    widget: str
    source: WidgetSource
    inner_value: Any = None


@dataclass
class HostValues:
    """The values that one host holds.

    Attributes:
        by_input: by the name of the subgraph's input.
        by_widget: of widgets that no input leads to, by the inner node's id and the widget's name;
            a PrimitiveNode has one widget, named :data:`PRIMITIVE_WIDGET` here.
    """

    by_input: dict[str, Any] = field(default_factory=dict)
    by_widget: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_host_values(host: Json, promotions: list[Promotion], primitives: set[str]) -> HostValues:
    """Read the values of a host; None counts as missing.

    Args:
        host: the node that stands for the subgraph.
        promotions: what its subgraph promotes, in the order of the inputs.
        primitives: the ids of the PrimitiveNodes in the subgraph.
    """
    properties = host["properties"]
    values = _listed_values(host)
    found = HostValues(by_input=_named_values(host) if not values else {})
    for promotion, value in zip(promotions, values, strict=False):
        found.by_input[promotion.name] = value
    found.by_input |= _quarantined(properties.get("proxyWidgetErrorQuarantine"))
    inputs = {(promotion.node_id, promotion.widget): promotion.name for promotion in promotions}
    for entry, value in zip(
        _promoted_entries(properties.get("proxyWidgets")), values, strict=False
    ):
        if value is not None:
            _keep(found, entry, value, inputs, primitives)
    return found


def _listed_values(host: Json) -> list[Any]:
    """Return the values that a host lists. Some files write the list as a numbered object."""
    values = host.get("widgets_values")
    if isinstance(values, dict) and all(key == str(index) for index, key in enumerate(values)):
        return list(values.values())
    return as_list(values)


def _named_values(host: Json) -> dict[str, Any]:
    """Return the values that a host names."""
    return {**as_dict(host.get("widgets_values_named")), **as_dict(host.get("widgets_values"))}


def _keep(
    found: HostValues,
    entry: tuple[str, str],
    value: Any,
    inputs: dict[tuple[str, str], str],
    primitives: set[str],
) -> None:
    """Keep the value of one entry of ``proxyWidgets``."""
    node_id, widget = entry
    plain_name = _without_ids(widget)
    input_name = inputs.get((node_id, widget)) or inputs.get((node_id, plain_name))
    if node_id == HOST_ITSELF:
        found.by_input[widget] = value
    elif input_name is not None:
        found.by_input[input_name] = value
    elif not widget.startswith(PREVIEW):
        name = PRIMITIVE_WIDGET if node_id in primitives else plain_name
        found.by_widget.setdefault(node_id, {})[name] = value


def _without_ids(widget: str) -> str:
    """Return a widget's name without the ids in front of it."""
    for _ in range(MAX_ID_PREFIXES):
        match = ID_PREFIX.fullmatch(widget)
        if match is None:
            break
        widget = match[1]
    return widget


def _promoted_entries(value: Any) -> list[tuple[str, str]]:
    """``proxyWidgets`` as pairs of node id and widget name; a malformed entry is an empty pair."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    pairs = []
    for entry in as_list(value):
        is_pair = isinstance(entry, list) and len(entry) >= 2
        pairs.append((as_text(entry[0]), as_text(entry[1])) if is_pair else ("", ""))
    return pairs


def _quarantined(value: Any) -> dict[str, Any]:
    """Return, by input, the values that the frontend could not read. The first entry counts."""
    found = {}
    for quarantined in reversed(dicts(value)):
        entry = as_list(quarantined.get("originalEntry"))
        host_value = quarantined.get("hostValue")
        if len(entry) >= 2 and as_text(entry[0]) == HOST_ITSELF and host_value is not None:
            found[as_text(entry[1])] = host_value
    return found
