"""What node classes this ComfyUI has: a typed view of ``/object_info``.

Owns how a class's declaration is read. Knows nothing of jobs, and nothing of one ComfyUI version: what a class
takes and gives is always asked of its declaration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["InputSpec", "NodeClass", "NodeDefs"]

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


@dataclass(frozen=True)
class InputSpec:
    """One declared input of a node class.

    Attributes:
        name: as it stands under ``inputs`` in a workflow.
        type: ComfyUI's type name, ``COMBO`` for a list of choices.
        required: whether ComfyUI refuses the node without it.
        options: ``default``, ``min``, ``max``, ``step``, ``multiline``, ``tooltip`` ... as declared.
        choices: what a ``COMBO`` takes; None where the class declares no list.
    """

    name: str
    type: str
    required: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None

    @property
    def is_widget(self) -> bool:
        """Whether the input holds a literal (a number, a text, a choice) rather than needing a link."""
        return self.type in WIDGET_TYPES and not self.options.get("forceInput", False)

    @classmethod
    def read(cls, name: str, declared: list[Any], required: bool) -> InputSpec:
        """Read one entry of ``input.required`` or ``input.optional``; choices come in two forms."""
        kind = declared[0]
        options = declared[1] if len(declared) > 1 and isinstance(declared[1], dict) else {}
        if isinstance(kind, list):
            return cls(name, "COMBO", required, options, tuple(kind))
        choices = tuple(options["options"]) if kind == "COMBO" and "options" in options else None
        return cls(name, str(kind), required, options, choices)


@dataclass(frozen=True)
class NodeClass:
    """One node class as ComfyUI declares it.

    Attributes:
        name: the ``class_type``.
        inputs: declared inputs by name, required ones first, hidden ones left out.
        outputs: the type of each output slot.
        output_names: the name of each output slot.
        is_output: whether ComfyUI runs a graph for this node's sake.
        is_api: whether it calls a paid service of comfy.org.
        display_name: what the editor shows as its title.
        python_module: where it comes from: ``nodes``, ``comfy_extras...``, ``custom_nodes.<pack>``.
    """

    name: str
    inputs: Mapping[str, InputSpec]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...] = ()
    is_output: bool = False
    is_api: bool = False
    display_name: str = ""
    python_module: str = ""

    @classmethod
    def read(cls, name: str, declared: Mapping[str, Any]) -> NodeClass:
        """Read one value of ``/object_info``."""
        inputs: dict[str, InputSpec] = {}
        order = declared.get("input_order", {})
        for group in ("required", "optional"):
            entries = declared.get("input", {}).get(group) or {}
            for key in [*(k for k in order.get(group, ()) if k in entries), *entries]:
                inputs.setdefault(key, InputSpec.read(key, entries[key], group == "required"))
        return cls(
            name=name,
            inputs=inputs,
            outputs=tuple(str(kind) for kind in declared.get("output", ())),
            output_names=tuple(str(word) for word in declared.get("output_name", ())),
            is_output=bool(declared.get("output_node", False)),
            is_api=bool(declared.get("api_node", False)),
            display_name=declared.get("display_name") or name,
            python_module=declared.get("python_module") or "",
        )


class NodeDefs(Mapping[str, NodeClass]):
    """Every node class of a ComfyUI by its ``class_type``, each read when first asked for.

    Args:
        object_info: the answer of ``GET /object_info``.
    """

    def __init__(self, object_info: Mapping[str, Mapping[str, Any]]) -> None:
        self._object_info = object_info
        self._read: dict[str, NodeClass] = {}

    def __getitem__(self, class_type: str) -> NodeClass:
        if class_type not in self._read:
            self._read[class_type] = NodeClass.read(class_type, self._object_info[class_type])
        return self._read[class_type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._object_info)

    def __len__(self) -> int:
        return len(self._object_info)
