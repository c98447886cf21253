"""The node classes of a ComfyUI: a typed view of ``/object_info``.

Reads the declaration of a class: its inputs, its outputs, and the inputs that depend on the values
of others. It works with any ComfyUI version: an input of unknown kind accepts anything.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
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
# Types with a widget in the editor whose literal is an object: a colour, a box, a curve.
OBJECT_WIDGETS = frozenset({"COLOR", "COLORS", "BOUNDING_BOX", "BOUNDING_BOXES", "CURVE", "RANGE"})
# Hidden inputs that pass more of a job to a node than its own inputs do.
JOB_INPUTS = re.compile(r"PROMPT|PNGINFO|TOKEN|KEY|AUTH|USER")

# ComfyUI writes these kinds of inputs where other inputs have their type.
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
    """The inputs that a declared input stands for: ``images.image0``, ``images.image1`` ...

    Attributes:
        names: the names below the declared input.
        min: the number of inputs that are required, the first ones.
        input: the declaration of each of them.
    """

    names: tuple[str, ...]
    min: int
    input: InputSpec


@dataclass(frozen=True)
class InputSpec:
    """One declared input of a node class.

    Attributes:
        name: its key under ``inputs`` in a workflow.
        type: ComfyUI's type name, ``COMBO`` for a list of choices, or a kind such as
            ``COMFY_AUTOGROW_V3``.
        required: whether ComfyUI rejects the node without it.
        options: ``default``, ``min``, ``max``, ``step``, ``multiline`` ... as declared.
        choices: the values that a ``COMBO`` accepts; None if the class declares no list.
        is_listed: whether the list stands where the type should, the older form. ComfyUI 0.3.75
            checks only lists of this form.
        has_custom_validation: whether the class validates the input itself. Then ComfyUI checks
            neither the range nor the list.
        match_id: inputs and outputs of a node with the same ``match_id`` have the same type; empty
            if the type is fixed.
        grown: the inputs that an input of type ``COMFY_AUTOGROW_V3`` stands for.
        branches: by choice, the inputs that the node has with this choice, such as
            ``format.bit_depth``.
        below: the inputs that the node has with any value of this one.
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

    @cached_property
    def value_type(self) -> str:
        """The type of the input's value: ``COMBO`` for a dynamic choice, ``*`` for anything."""
        if self.type == DYNAMIC_COMBO:
            return "COMBO"
        if self.type == MATCH_TYPE:
            return _allowed(self.options)
        if self.type == DYNAMIC_SLOT:
            return str(self.options.get("slotType") or ANY_TYPE)
        return ANY_TYPE if KIND.fullmatch(self.type) else self.type

    @cached_property
    def types(self) -> frozenset[str]:
        """The types that the input accepts: ``FLOAT,INT`` is two types."""
        return frozenset(word.strip() for word in self.value_type.split(","))

    @property
    def widget_type(self) -> str | None:
        """The type of the widget that the editor shows: the first type that has a widget."""
        for word in self.value_type.split(","):
            if word.strip() in WIDGET_TYPES | OBJECT_WIDGETS:
                return word.strip()
        return None

    @cached_property
    def is_widget(self) -> bool:
        """Whether the input can hold a literal (a number, a text, a choice) and needs no link."""
        is_literal = not WIDGET_TYPES.isdisjoint(self.types)
        return is_literal and not self.options.get("forceInput", False)

    @cached_property
    def is_upload(self) -> bool:
        """Whether the input names a file in ComfyUI's input folder."""
        return any(word.endswith("_upload") for word in self.options)

    @property
    def is_remote(self) -> bool:
        """Whether the choices come from a server, so that the list here may be incomplete."""
        return bool(self.options.get("remote") or self.options.get("remote_combo"))

    @cached_property
    def is_dynamic(self) -> bool:
        """Whether this input declares other inputs."""
        return self.type in KNOWN_KINDS and self.type != MATCH_TYPE

    @classmethod
    def read(
        cls, name: str, declared: Any, required: bool, validated: AbstractSet[str] | None = None
    ) -> InputSpec:
        """Read one entry of ``input.required`` or ``input.optional``.

        Args:
            name: the input's name.
            declared: the entry.
            required: whether the entry stands under ``required``.
            validated: the inputs that the class validates itself, ``*`` for all; None if that is
                not known.
        """
        entry = declared
        if not isinstance(declared, (list, tuple)) or not declared:
            entry = [declared or ANY_TYPE]
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
        """Yield the inputs that this one stands for in a node with these values, by full name."""
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
        assert self.grown is not None
        grown = self.grown
        for index, name in enumerate(grown.names):
            full_name = f"{self.name}.{name}"
            required = index < grown.min and grown.input.required
            if required or full_name in values:
                yield replace(grown.input, name=full_name, required=required)

    def _live_group(self, values: Mapping[str, Any]) -> Iterator[InputSpec]:
        """Yield the inputs ``group.0.field`` that the node has. ComfyUI checks their number."""
        by_name = {spec.name: spec for spec in self.below}
        for key in values:
            group, _dot, rest = key.removeprefix(f"{self.name}.").partition(".")
            if key.startswith(f"{self.name}.") and group.isdecimal() and rest in by_name:
                yield from replace(by_name[rest], name=key, required=False).live(values)


def _key(value: Any) -> Any:
    """Return a value as a key of a dictionary; None for a value that cannot be a key."""
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
    """Return the types that an input of variable type accepts; ``*`` for all."""
    return str(_template(options).get("allowed_types") or ANY_TYPE)


def _match_id(type_name: str, options: Declared) -> str:
    return str(_template(options).get("template_id") or "") if type_name == MATCH_TYPE else ""


def _with_dynamic(spec: InputSpec, validated: AbstractSet[str] | None) -> InputSpec:
    """Return the input with the inputs that it declares."""
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
    """Yield the inputs of ``{"required": {name: ...}, "optional": {...}}`` in declared order."""
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
            "this worker does not know inputs of the kind %s; it lets them accept anything",
            type_name,
            extra={"action": "node_defs.unknown_kind"},
        )


@dataclass(frozen=True)
class NodeClass:
    """One node class as ComfyUI declares it.

    Attributes:
        name: the ``class_type``.
        inputs: declared inputs by name, required ones first, without hidden ones; see
            :meth:`live_inputs`.
        outputs: the type of each output slot; ``*`` or the allowed types if it follows from an
            input.
        output_names: the name of each output slot.
        output_matches: for each output slot, the ``match_id`` of the inputs whose type it has;
            empty for a fixed type.
        is_output: whether ComfyUI runs a workflow to get this node's result.
        is_api: whether it calls a paid service of comfy.org.
        is_list_input: whether it receives all items of a list at once.
        display_name: the title in the editor.
        python_module: the origin: ``nodes``, ``comfy_extras...``, ``custom_nodes.<pack>``.
        takes_any_link: whether the class itself checks which types may be linked to it.
        takes_hidden_prompt: whether it receives more than its inputs: the job's workflow, or a
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
            takes_hidden_prompt=any(map(_is_job_input, (groups.get("hidden") or {}).values())),
        )

    @cached_property
    def is_dynamic(self) -> bool:
        """Whether the node's inputs depend on the values of others."""
        return any(spec.is_dynamic for spec in self.inputs.values())

    def live_inputs(self, values: Mapping[str, Any]) -> Mapping[str, InputSpec]:
        """Return the inputs that a node with these values has, by their key in the workflow.

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
        """Return the declaration of the input with this key, in a node with these values."""
        declared = self.inputs.get(key.partition(".")[0])
        if key in self.inputs or declared is None:
            return self.inputs.get(key)
        return next((spec for spec in declared.live(values) if spec.name == key), None)

    def match_of(self, slot: int) -> str:
        """Return the ``match_id`` of the inputs whose type an output has; empty if it is fixed."""
        return _at(self.output_matches, slot)

    def matching_inputs(self, slot: int) -> list[str]:
        """Return the names of the inputs whose type an output has."""
        match_id = self.match_of(slot)
        if not match_id:
            return []
        return [spec.name for spec in self.inputs.values() if spec.match_id == match_id]


def _at(words: tuple[str, ...], slot: int) -> str:
    return words[slot] if 0 <= slot < len(words) else ""


def _output_type(declared_type: str, match_id: str, inputs: Mapping[str, InputSpec]) -> str:
    if declared_type == MATCH_TYPE:
        types = (spec.value_type for spec in inputs.values() if spec.match_id == match_id)
        return next(types, ANY_TYPE)
    return ANY_TYPE if KIND.fullmatch(declared_type) else declared_type


def _is_job_input(hidden: Any) -> bool:
    word = hidden[0] if isinstance(hidden, (list, tuple)) and hidden else hidden
    return isinstance(word, str) and JOB_INPUTS.search(word) is not None


@dataclass(frozen=True)
class MissingNodeReason:
    """Why ComfyUI lacks a class although a node pack on this machine, or ComfyUI itself, has it.

    Attributes:
        why: the reason.
        would_do: the remedy.
        pack: the node pack that it belongs to; None for ComfyUI's own classes.
    """

    why: str
    would_do: str
    pack: str | None = None


class NodeDefs(Mapping[str, NodeClass]):
    """Every node class of a ComfyUI by its ``class_type``, each read when it is first needed.

    Args:
        object_info: the answer of ``GET /object_info``.
        validated: by class, the inputs that it validates itself; None if that is not known.
        replacements: the answer of ``GET /node_replacements``: by a removed class, its
            replacements.
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

    def as_saved(self) -> dict[str, Any]:
        """Return what the definitions were made from, for JSON."""
        return {
            "object_info": self._object_info,
            "validated": self._validated,
            "replacements": self.replacements,
        }

    def __getitem__(self, class_type: str) -> NodeClass:
        if class_type not in self._read:
            own = None
            if self._validated is not None:
                own = frozenset(self._validated.get(class_type, ()))
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
        """Return the widgets that a removed class had, in order; empty if they are not known."""
        entries: list[Mapping[str, Any]] = self.replacements.get(class_type) or [{}]
        return [str(name) for name in entries[0].get("old_widget_ids") or ()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._object_info)

    def __len__(self) -> int:
        return len(self._object_info)
