"""What node classes this ComfyUI has: a typed view of ``/object_info``.

Owns how a class's declaration is read. Knows nothing of jobs, and nothing of one ComfyUI version: what a class
takes and gives is always asked of its declaration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Absence", "InputSpec", "NodeClass", "NodeDefs"]

# Hidden inputs that hold more of a job than the node's own inputs do.
OF_THE_JOB = frozenset({"PROMPT", "DYNPROMPT", "EXTRA_PNGINFO", "AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG"})
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
        is_listed: whether the list stands in place of the type, in which case ComfyUI refuses what is not in it;
            the newer form is a list for the editor alone.
        is_validated: whether the class itself says what is right, so that ComfyUI looks at no range and no list.
    """

    name: str
    type: str
    required: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None
    is_listed: bool = False
    is_validated: bool = False

    @property
    def is_widget(self) -> bool:
        """Whether the input holds a literal (a number, a text, a choice) rather than needing a link."""
        return self.type in WIDGET_TYPES and not self.options.get("forceInput", False)

    @property
    def is_upload(self) -> bool:
        """Whether the input names a file of ComfyUI's input folder."""
        return any(word.endswith("_upload") for word in self.options)

    @classmethod
    def read(
        cls, name: str, declared: list[Any], required: bool, validated: AbstractSet[str] | None = None
    ) -> InputSpec:
        """Read one entry of ``input.required`` or ``input.optional``; choices come in two forms.

        Args:
            name: the input's.
            declared: the entry.
            required: under which of the two it stands.
            validated: the inputs that the class validates itself, ``*`` for all; None where that is not known.
        """
        kind = declared[0]
        options = declared[1] if len(declared) > 1 and isinstance(declared[1], dict) else {}
        listed = isinstance(kind, list)
        choices = kind if listed else options.get("options") if kind == "COMBO" else None
        spec = cls(
            name, "COMBO" if listed else str(kind), required, options, choices and tuple(choices), is_listed=listed
        )
        own = spec.is_upload if validated is None else not validated.isdisjoint({name, "*"})
        return replace(spec, is_validated=own)


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
        takes_any_link: whether the class itself says which types may be linked to it.
        sees_job: whether it is handed more than its inputs: the whole graph, or a key.
    """

    name: str
    inputs: Mapping[str, InputSpec]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...] = ()
    is_output: bool = False
    is_api: bool = False
    display_name: str = ""
    python_module: str = ""
    takes_any_link: bool = False
    sees_job: bool = False

    @classmethod
    def read(cls, name: str, declared: Mapping[str, Any], validated: AbstractSet[str] | None = None) -> NodeClass:
        """Read one value of ``/object_info``; for ``validated`` see :meth:`InputSpec.read`."""
        hidden = (declared.get("input", {}).get("hidden") or {}).values()
        inputs: dict[str, InputSpec] = {}
        order = declared.get("input_order", {})
        for group in ("required", "optional"):
            entries = declared.get("input", {}).get(group) or {}
            for key in [*(k for k in order.get(group, ()) if k in entries), *entries]:
                inputs.setdefault(key, InputSpec.read(key, entries[key], group == "required", validated))
        return cls(
            name=name,
            inputs=inputs,
            outputs=tuple(str(kind) for kind in declared.get("output", ())),
            output_names=tuple(str(word) for word in declared.get("output_name", ())),
            is_output=bool(declared.get("output_node", False)),
            is_api=bool(declared.get("api_node", False)),
            display_name=declared.get("display_name") or name,
            python_module=declared.get("python_module") or "",
            takes_any_link="input_types" in (validated or ()),
            sees_job=any((kind[0] if isinstance(kind, list) and kind else kind) in OF_THE_JOB for kind in hidden),
        )


@dataclass(frozen=True)
class Absence:
    """Why a class is not there although something on this machine has it.

    Attributes:
        why: what became of it.
        would_do: what would bring it.
        pack: the node pack that it belongs to; None for ComfyUI's own.
    """

    why: str
    would_do: str
    pack: str | None = None


class NodeDefs(Mapping[str, NodeClass]):
    """Every node class of a ComfyUI by its ``class_type``, each read when first asked for.

    Args:
        object_info: the answer of ``GET /object_info``.
        validated: by class, the inputs that it validates itself; None where that is not known.
    """

    def __init__(
        self, object_info: Mapping[str, Mapping[str, Any]], validated: Mapping[str, list[str]] | None = None
    ) -> None:
        self._object_info = object_info
        self._validated = validated
        self._read: dict[str, NodeClass] = {}

    def __getitem__(self, class_type: str) -> NodeClass:
        if class_type not in self._read:
            own = None if self._validated is None else frozenset(self._validated.get(class_type, ()))
            self._read[class_type] = NodeClass.read(class_type, self._object_info[class_type], own)
        return self._read[class_type]

    @property
    def has_unique_subgraph_ids(self) -> bool:
        """Whether this ComfyUI's editor gives nodes of subgraphs new ids where an id is taken.

        Frontends since 1.42 do. They came with a ComfyUI that declares ``has_intermediate_output``.
        """
        first = next(iter(self._object_info.values()), None)
        return first is None or "has_intermediate_output" in first

    def __iter__(self) -> Iterator[str]:
        return iter(self._object_info)

    def __len__(self) -> int:
        return len(self._object_info)
