"""Describes the node classes of this ComfyUI: a typed view of ``/object_info``.

Reads the declaration of a class: its inputs, its outputs, and the inputs that appear only with
certain values of other inputs. It does not depend on ComfyUI's version: an input whose declaration
is not known here accepts anything.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

__all__ = [
    "ANY_TYPE",
    "WIDGET_TYPES",
    "Autogrow",
    "InputSpec",
    "MissingNodeReason",
    "NodeClass",
    "NodeDefs",
]

log = logging.getLogger(__name__)

ANY_TYPE = "*"
WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
# Widgets of the editor that hold a literal of another form: a colour, a box, a curve.
OBJECT_WIDGETS = frozenset({"COLOR", "COLORS", "BOUNDING_BOX", "BOUNDING_BOXES", "CURVE", "RANGE"})
# Hidden inputs that hold more of a job than the node's own inputs do.
OF_THE_JOB = re.compile(r"PROMPT|PNGINFO|TOKEN|KEY|AUTH|USER")

# Kinds of inputs that ComfyUI names like types.
MATCH_TYPE = "COMFY_MATCHTYPE_V3"
AUTOGROW = "COMFY_AUTOGROW_V3"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
DYNAMIC_SLOT = "COMFY_DYNAMICSLOT_V3"
DYNAMIC_GROUP = "COMFY_DYNAMICGROUP_V3"
KNOWN_KINDS = frozenset({MATCH_TYPE, AUTOGROW, DYNAMIC_COMBO, DYNAMIC_SLOT, DYNAMIC_GROUP})
KIND = re.compile(r"COMFY_[A-Z0-9_]+_V\d+")

_logged_kinds: set[str] = set()

Declared = Mapping[str, Any]


@dataclass(frozen=True)
class Autogrow:
    """The inputs that one input grows into: ``images`` grows into ``images.image0`` and others.

    Attributes:
        names: what they are called below the declared input.
        min: so many of them are required.
        input: how each of them is declared.
    """

    names: tuple[str, ...]
    min: int
    input: InputSpec


@dataclass(frozen=True)
class InputSpec:
    """One declared input of a node class.

    Attributes:
        name: as it stands under ``inputs`` in a workflow.
        type: ComfyUI's type name, ``COMBO`` for a list of choices; a kind such as
            ``COMFY_AUTOGROW_V3`` stays.
        required: whether ComfyUI refuses the node without it.
        options: ``default``, ``min``, ``max``, ``step``, ``multiline``, ``tooltip`` ... as
            declared.
        choices: what a ``COMBO`` takes; None where the class declares no list.
        is_listed: whether the list stands in place of the type, the older form; ComfyUI 0.3.75
            refuses a value outside of that form only.
        has_custom_validation: whether the class validates the input itself. Then ComfyUI checks
            neither the range nor the list.
        match_id: inputs and outputs of a node with the same one have the same type; empty where the
            type is fixed.
        grown: the inputs that an input of type ``COMFY_AUTOGROW_V3`` stands for.
        branches: by choice, the inputs that come with it, such as ``format.bit_depth``.
        below: the inputs that come with any value of this one.
    """

    name: str
    type: str
    required: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None
    is_listed: bool = False
    has_custom_validation: bool = False
    match_id: str = ""
    grown: Autogrow | None = None
    branches: Mapping[Any, tuple[InputSpec, ...]] = field(default_factory=dict)
    below: tuple[InputSpec, ...] = ()

    @property
    def value_type(self) -> str:
        """The type of the input's value: ``COMBO`` for a dynamic choice, ``*`` for anything."""
        if self.type == DYNAMIC_COMBO:
            return "COMBO"
        if self.type == MATCH_TYPE:
            return _allowed(self.options)
        if self.type == DYNAMIC_SLOT:
            return str(self.options.get("slotType") or ANY_TYPE)
        return ANY_TYPE if KIND.fullmatch(self.type) else self.type

    @property
    def types(self) -> frozenset[str]:
        """The types that the input takes, each alone: ``FLOAT,INT`` are two."""
        return frozenset(word.strip() for word in self.value_type.split(","))

    @property
    def widget_type(self) -> str | None:
        """The type of the widget that the editor shows: of several types the first that has one."""
        words = [word.strip() for word in self.value_type.split(",")]
        return next(
            (word for word in words if word in WIDGET_TYPES or word in OBJECT_WIDGETS), None
        )

    @cached_property
    def is_widget(self) -> bool:
        """Whether the input may hold a literal: a number, a text or a choice."""
        is_literal = not WIDGET_TYPES.isdisjoint(self.types)
        return is_literal and not self.options.get("forceInput", False)

    @cached_property
    def is_upload(self) -> bool:
        """Whether the input names a file of ComfyUI's input folder."""
        return any(word.endswith("_upload") for word in self.options)

    @property
    def is_remote(self) -> bool:
        """Whether the choices come from a server, so that the list here is not all of them."""
        return bool(self.options.get("remote") or self.options.get("remote_combo"))

    @cached_property
    def is_dynamic(self) -> bool:
        """Whether other inputs come with this one."""
        return self.type in KNOWN_KINDS and self.type != MATCH_TYPE

    @classmethod
    def read(
        cls, name: str, declared: Any, required: bool, validated: AbstractSet[str] | None = None
    ) -> InputSpec:
        """Read one entry of ``input.required`` or ``input.optional``; choices come in two forms.

        Args:
            name: the input's.
            declared: the entry.
            required: under which of the two it stands.
            validated: the inputs that the class validates itself, ``*`` for all; None where that is
                not known.
        """
        entry = (
            declared if isinstance(declared, (list, tuple)) and declared else [declared or ANY_TYPE]
        )
        options = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
        is_listed = isinstance(entry[0], (list, tuple))
        type_name = "COMBO" if is_listed else str(entry[0])
        spec = cls(
            name,
            type_name,
            required,
            options,
            _choices(entry[0], options),
            is_listed=is_listed,
            match_id=_match_id(type_name, options),
        )
        own = spec.is_upload if validated is None else not validated.isdisjoint({name, "*"})
        spec = replace(spec, has_custom_validation=own)
        if KIND.fullmatch(type_name):
            return _with_dynamic(spec, validated)
        return spec

    def live(self, values: Mapping[str, Any]) -> Iterator[InputSpec]:
        """The inputs that a node with these values has for this one, each under its full name."""
        if self.grown is not None:
            yield from self._live_grown(values)
            return
        if self.type == DYNAMIC_GROUP:
            yield from self._live_group(values)
            return
        yield self
        below = self.branches.get(_key(values.get(self.name)), ()) if self.branches else self.below
        if below and self.name in values:
            for spec in below:
                yield from replace(spec, name=f"{self.name}.{spec.name}").live(values)

    def _live_grown(self, values: Mapping[str, Any]) -> Iterator[InputSpec]:
        grown = self.grown
        for index, name in enumerate(grown.names if grown else ()):
            assert grown is not None
            full_name = f"{self.name}.{name}"
            required = index < grown.min and grown.input.required
            if required or full_name in values:
                yield replace(grown.input, name=full_name, required=required)

    def _live_group(self, values: Mapping[str, Any]) -> Iterator[InputSpec]:
        """The inputs ``group.0.field`` that the node has. ComfyUI limits their number."""
        by_name = {spec.name: spec for spec in self.below}
        for key in values:
            group, _dot, rest = key.removeprefix(f"{self.name}.").partition(".")
            if key.startswith(f"{self.name}.") and group.isdecimal() and rest in by_name:
                yield from replace(by_name[rest], name=key, required=False).live(values)


def _key(value: Any) -> Any:
    """A value as a key of a dictionary; one that cannot be a key is none of the choices."""
    return None if isinstance(value, (dict, list)) else value


def _choices(declared_type: Any, options: Declared) -> tuple[Any, ...] | None:
    if isinstance(declared_type, (list, tuple)):
        return tuple(declared_type)
    listed = options.get("options")
    if declared_type == "COMBO" and isinstance(listed, (list, tuple)):
        return tuple(listed)
    if declared_type == DYNAMIC_COMBO and isinstance(listed, (list, tuple)):
        return tuple(option.get("key") for option in listed if isinstance(option, dict))
    return None


def _template(options: Declared) -> Declared:
    template = options.get("template")
    return template if isinstance(template, dict) else {}


def _allowed(options: Declared) -> str:
    """The types that an input of any type takes; ``*`` for all."""
    return str(_template(options).get("allowed_types") or ANY_TYPE)


def _match_id(type_name: str, options: Declared) -> str:
    return str(_template(options).get("template_id") or "") if type_name == MATCH_TYPE else ""


def _with_dynamic(spec: InputSpec, validated: AbstractSet[str] | None) -> InputSpec:
    """The same input with the inputs that come with it."""
    template = _template(spec.options)
    if spec.type == AUTOGROW:
        return replace(spec, grown=_grown(template, validated))
    if spec.type == DYNAMIC_COMBO:
        branches = {}
        for option in spec.options.get("options") or ():
            branches[_key(option.get("key"))] = tuple(_specs(option.get("inputs"), validated))
        return replace(spec, branches=branches)
    if spec.type in (DYNAMIC_SLOT, DYNAMIC_GROUP):
        inner = spec.options.get("inputs") or template.get("inputs") or template.get("input")
        return replace(spec, below=tuple(_specs(inner, validated)))
    if spec.type not in KNOWN_KINDS:
        _log_once(spec.type)
    return spec


def _grown(template: Declared, validated: AbstractSet[str] | None) -> Autogrow | None:
    inner = next(_specs(template.get("input"), validated), None)
    if inner is None:
        return None
    if "names" in template:
        names = [str(name) for name in template["names"]]
    else:
        names = [
            f"{template.get('prefix', '')}{number}"
            for number in range(int(template.get("max", 100)))
        ]
    return Autogrow(tuple(names), int(template.get("min", 0)), inner)


def _specs(
    groups: Any, validated: AbstractSet[str] | None = None, order: Mapping[str, Any] | None = None
) -> Iterator[InputSpec]:
    """The inputs of ``{"required": {name: ...}, "optional": ...}`` in their declared order."""
    if not isinstance(groups, dict):
        return
    for group in ("required", "optional"):
        entries = groups.get(group) or {}
        ordered = [name for name in (order or {}).get(group) or () if name in entries]
        for name in dict.fromkeys([*ordered, *entries]):
            yield InputSpec.read(name, entries[name], group == "required", validated)


def _log_once(type_name: str) -> None:
    if type_name not in _logged_kinds:
        _logged_kinds.add(type_name)
        log.warning(
            "inputs of the kind %s are not known to this worker; they count as taking anything",
            type_name,
            extra={"action": "node_defs.unknown_kind"},
        )


@dataclass(frozen=True)
class NodeClass:
    """One node class as ComfyUI declares it.

    Attributes:
        name: the ``class_type``.
        inputs: declared inputs by name, required ones first, hidden ones left out; see
            :meth:`live_inputs`.
        outputs: the type of each output slot; ``*`` or the allowed types where it follows from an
            input.
        output_names: the name of each output slot.
        output_matches: for each output slot, the ``match_id`` of the inputs whose type it has;
            empty for a fixed type.
        is_output: whether ComfyUI runs a graph for this node's sake.
        is_api: whether it calls a paid service of comfy.org.
        is_list_input: whether it is handed all items of a list at once.
        display_name: what the editor shows as its title.
        python_module: where it comes from: ``nodes``, ``comfy_extras...``, ``custom_nodes.<pack>``.
        takes_any_link: whether the class itself says which types may be linked to it.
        takes_hidden_prompt: whether it is handed more than its inputs: the graph of the job, or a
            key.
    """

    name: str
    inputs: Mapping[str, InputSpec]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...] = ()
    output_matches: tuple[str, ...] = ()
    is_output: bool = False
    is_api: bool = False
    is_list_input: bool = False
    display_name: str = ""
    python_module: str = ""
    takes_any_link: bool = False
    takes_hidden_prompt: bool = False

    @classmethod
    def read(
        cls, name: str, declared: Declared, validated: AbstractSet[str] | None = None
    ) -> NodeClass:
        """Read one value of ``/object_info``; for ``validated`` see :meth:`InputSpec.read`."""
        groups = declared.get("input") or {}
        inputs: dict[str, InputSpec] = {}
        for spec in _specs(groups, validated, declared.get("input_order")):
            inputs.setdefault(spec.name, spec)
        matches = tuple(str(word or "") for word in declared.get("output_matchtypes") or ())
        types = [str(output) for output in declared.get("output") or ()]
        outputs = [
            _output_type(output, _at(matches, slot), inputs) for slot, output in enumerate(types)
        ]
        return cls(
            name=name,
            inputs=inputs,
            outputs=tuple(outputs),
            output_names=tuple(str(word) for word in declared.get("output_name") or ()),
            output_matches=matches,
            is_output=bool(declared.get("output_node", False)),
            is_api=bool(declared.get("api_node", False)),
            is_list_input=bool(declared.get("is_input_list", False)),
            display_name=declared.get("display_name") or name,
            python_module=declared.get("python_module") or "",
            takes_any_link="input_types" in (validated or ()),
            takes_hidden_prompt=any(map(_is_of_the_job, (groups.get("hidden") or {}).values())),
        )

    @cached_property
    def is_dynamic(self) -> bool:
        """Whether some inputs come with the values of others."""
        return any(spec.is_dynamic for spec in self.inputs.values())

    def live_inputs(self, values: Mapping[str, Any]) -> Mapping[str, InputSpec]:
        """The inputs that a node with these values has, by the key that stands in the workflow.

        ``images`` gives ``images.image0``, ``format`` gives ``format`` and ``format.bit_depth``.
        """
        if not self.is_dynamic:
            return self.inputs
        found: dict[str, InputSpec] = {}
        for declared in self.inputs.values():
            for spec in declared.live(values):
                found.setdefault(spec.name, spec)
        return found

    def spec(self, key: str, values: Mapping[str, Any]) -> InputSpec | None:
        """How the input behind a key of the workflow is declared, in a node with these values."""
        declared = (
            self.inputs.get(key.partition(".")[0])
            if "." in key and key not in self.inputs
            else None
        )
        if declared is None:
            return self.inputs.get(key)
        return next((spec for spec in declared.live(values) if spec.name == key), None)

    def match_of(self, slot: int) -> str:
        """The ``match_id`` of the inputs whose type an output has; empty if its type is fixed."""
        return _at(self.output_matches, slot)

    def matching_inputs(self, slot: int) -> list[str]:
        """The inputs whose type an output has."""
        match_id = self.match_of(slot)
        return [
            spec.name for spec in self.inputs.values() if match_id and spec.match_id == match_id
        ]


def _at(words: tuple[str, ...], slot: int) -> str:
    return words[slot] if 0 <= slot < len(words) else ""


def _output_type(declared_type: str, match_id: str, inputs: Mapping[str, InputSpec]) -> str:
    if declared_type == MATCH_TYPE:
        matching: Iterable[InputSpec] = (
            spec for spec in inputs.values() if spec.match_id == match_id
        )
        return next((spec.value_type for spec in matching), ANY_TYPE)
    return ANY_TYPE if KIND.fullmatch(declared_type) else declared_type


def _is_of_the_job(hidden: Any) -> bool:
    word = hidden[0] if isinstance(hidden, (list, tuple)) and hidden else hidden
    return isinstance(word, str) and OF_THE_JOB.search(word) is not None


@dataclass(frozen=True)
class MissingNodeReason:
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
    """Every node class of a ComfyUI by its ``class_type``, each read when it is first needed.

    Args:
        object_info: the answer of ``GET /object_info``.
        validated: by class, the inputs that it validates itself; None where that is not known.
        replacements: the answer of ``GET /node_replacements``: by a class that is gone, what stands
            in for it.
    """

    def __init__(
        self,
        object_info: Mapping[str, Declared],
        validated: Mapping[str, list[str]] | None = None,
        replacements: Mapping[str, Any] | None = None,
    ) -> None:
        self._object_info = object_info
        self._validated = validated
        self.replacements = replacements or {}
        self._read: dict[str, NodeClass] = {}

    def __getitem__(self, class_type: str) -> NodeClass:
        if class_type not in self._read:
            own = (
                None if self._validated is None else frozenset(self._validated.get(class_type, ()))
            )
            self._read[class_type] = NodeClass.read(class_type, self._object_info[class_type], own)
        return self._read[class_type]

    @property
    def has_unique_subgraph_ids(self) -> bool:
        """Whether this ComfyUI's editor gives nodes of subgraphs new ids where an id is taken.

        Frontends since 1.42 do. They came with a ComfyUI that declares ``has_intermediate_output``.
        """
        first = next(iter(self._object_info.values()), None)
        return first is None or "has_intermediate_output" in first

    def replaced_widgets(self, class_type: str) -> list[str]:
        """The widgets that a removed class had, in order; empty if they are not known."""
        entries: list[Mapping[str, Any]] = self.replacements.get(class_type) or [{}]
        return [str(name) for name in entries[0].get("old_widget_ids") or ()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._object_info)

    def __len__(self) -> int:
        return len(self._object_info)
