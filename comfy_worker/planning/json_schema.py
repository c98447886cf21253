"""Makes a template's JSON Schema from the schema of the input and from the template's workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_worker.errors import NoPlace
from comfy_worker.planning.templates import Template
from comfy_worker.request.dialect_names import (
    find_sampling,
    find_scheduler,
    sampler_names,
    scheduler_names,
)
from comfy_worker.request.schema import JobInput, Parameters, input_schema, nullable
from comfy_worker.workflow.convert.to_api import read_workflow
from comfy_worker.workflow.edit.clip_skip import splice_clip_skip
from comfy_worker.workflow.edit.describe import describe
from comfy_worker.workflow.edit.input_files import takes_picture
from comfy_worker.workflow.edit.parameters import TWINS
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.model_names import is_model, spellings
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.walks import never_ends

__all__ = ["SchemaRules", "form_schema", "template_schema"]

PICTURE, ANY_FILE = "image/*", "application/octet-stream"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
# What needs a sampler to have an effect.
NEEDS_SAMPLER = {"loras", "controlnets", "clip_skip"}
FILES = {"image", "mask"}
# The nodes that load what a request adds, by the key of the input and its definition.
ADDED_MODELS = {
    ("Lora", "name"): ("LoraLoader", "lora_name"),
    ("ControlNet", "model"): ("ControlNetLoader", "control_net_name"),
}
URL = {"type": "string", "pattern": "^[a-zA-Z][a-zA-Z0-9+.-]*://"}
# The templates that are chosen for a request without `workflow`, by the pictures that it has.
DEFAULTS = {"txt2img": set[str](), "img2img": {"image"}, "inpaint": {"image", "mask"}}

Schema = dict[str, Any]


@dataclass(frozen=True)
class SchemaRules:
    """The operator's rules that a schema shows.

    Attributes:
        max_batch_size: how many pictures at once the endpoint allows; None: any number.
        accepts_urls: whether a client may name a model by its URL.
    """

    max_batch_size: int | None = None
    accepts_urls: bool = False


def template_schema(
    template: Template, defs: NodeDefs, rules: SchemaRules = SchemaRules()
) -> Schema:
    """Make the JSON Schema of ``job["input"]`` for one template.

    Args:
        template: a named workflow.
        defs: the node definitions of the ComfyUI that will run it, with the files that it has.
        rules: the operator's.

    Returns:
        A schema of an object. ``default`` is the value that is used if a key is absent.
    """
    return _SchemaBuilder(template, defs, rules).build()


def form_schema(schema: Schema) -> Schema:
    """Simplify a template's schema for a form: one type a key, and one name for each choice."""
    properties = {name: _field(entry) for name, entry in schema["properties"].items()}
    own = {name: _field(entry) for name, entry in properties["parameters"]["properties"].items()}
    properties["parameters"] = {**properties["parameters"], "properties": own}
    properties["workflow"] = {"const": schema["title"]}
    return {**schema, "properties": properties}


def _field(entry: Schema) -> Schema:
    field = dict(entry)
    options = [part for part in field.pop("anyOf", ()) if part.get("type") != "null"]
    if options:
        field |= options[0]
    if isinstance(field.get("type"), list):
        field["type"] = field["type"][0]
    choices = field.pop("examples", field.get("enum"))
    if choices is not None:
        field["enum"] = [choice for choice in choices if choice is not None]
        # Steps from an odd start; a list of all would be long.
        if field.get("type") == "integer":
            del field["enum"]
    return field


class _SchemaBuilder:
    """Builds the schema of one template."""

    def __init__(self, template: Template, defs: NodeDefs, rules: SchemaRules) -> None:
        self._template = template
        self._defs = defs
        self._rules = rules
        self._contract = input_schema()
        self._workflow = read_workflow(template.workflow, defs).workflow
        self._roles = find_roles(self._workflow, defs)
        self._described = self._described_in(self._workflow)

    def build(self) -> Schema:
        properties: dict[str, Schema] = {}
        absent = self._absent()
        required = [key for key in self._template.params.required if key in JobInput.model_fields]
        for key, entry in self._contract["properties"].items():
            if key not in absent:
                own = self._own(key, entry) if key in Parameters.model_fields else entry
                properties[key] = _required(own) if key in required else own
        properties["parameters"], needs_parameters = self._parameters()
        if needs_parameters:
            required.append("parameters")
        properties["workflow"] = {"enum": [self._template.name, None]}
        if not self._is_default(required, properties):
            properties["workflow"] = {"const": self._template.name}
            required.insert(0, "workflow")
        return {
            "$schema": DIALECT,
            "title": self._template.name,
            "description": self._template.params.description,
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
            "$defs": self._definitions(),
        }

    def _described_in(self, workflow: Workflow) -> dict[str, Schema]:
        """Describe the parameters that the workflow has inputs for."""
        declared = self._template.params.parameters
        described: dict[str, Schema] = {}
        for name, entry in describe(workflow, self._roles, self._defs, declared).items():
            own = {key: value for key, value in entry.items() if key != "places"}
            described[name] = self._with_spellings(_with_listed_steps(own))
        for name, parameter in declared.items():
            own = self._content_of_file(parameter.node, parameter.input)
            described[name] = {"description": parameter.description, **described[name], **own}
        for name, twin in TWINS.items():
            if twin in described and name not in described and name not in self._roles.ambiguous:
                described[name] = described[twin]
        most = self._rules.max_batch_size
        if most is not None and "batch_size" in described:
            known = described["batch_size"].get("maximum", most)
            described["batch_size"]["maximum"] = min(most, known)
        return {name: _with_true_default(entry) for name, entry in described.items()}

    def _content_of_file(self, node_id: str, input_name: str) -> Schema:
        """Name the content of an input that takes a file: base64, a data URI or a URL."""
        node = self._workflow.get(node_id)
        node_def = self._defs.get(node["class_type"]) if node is not None else None
        spec = node_def.inputs.get(input_name) if node_def is not None else None
        if spec is None or not spec.is_upload:
            return {}
        is_picture = takes_picture(self._workflow, self._defs, node_id, input_name)
        return {"contentMediaType": PICTURE if is_picture else ANY_FILE}

    def _with_spellings(self, entry: Schema) -> Schema:
        """Let a model be named without its folder or extension, or by URL."""
        files = [file for file in entry.get("enum", ()) if is_model(file)]
        if not files:
            return entry
        return {**entry, **self._model_names(entry["enum"])}

    def _model_names(self, files: Sequence[str]) -> Schema:
        names = {"type": "string", "enum": spellings(files), "examples": list(files)}
        if not self._rules.accepts_urls:
            return names
        return {"anyOf": [names, URL], "enum": None, "type": None}

    def _own(self, key: str, entry: Schema) -> Schema:
        """Describe a key that sets an input of the workflow."""
        own = {"description": entry["description"], **self._described[key]}
        own = _within(own, entry)
        if key == "seed":
            own |= {"minimum": -1, "default": -1}
        if key == "sampler":
            own = _with_names(own, [name for name in sampler_names() if self._is_sampler(name)])
        if key == "scheduler":
            own = _with_names(own, [name for name in scheduler_names() if self._is_scheduler(name)])
        own = _with_true_default(own)
        return nullable({word: value for word, value in own.items() if value is not None})

    def _is_sampler(self, name: str) -> bool:
        """Return whether the workflow takes the sampler that another program's name means."""
        found = find_sampling(name)
        return (
            found is not None
            and self._takes("sampler", found.sampler)
            and self._takes("scheduler", found.scheduler)
        )

    def _is_scheduler(self, name: str) -> bool:
        if find_sampling(name) is not None:  # diffusers calls a sampler so
            return self._is_sampler(name)
        scheduler = find_scheduler(name)  # without one, the name is ignored
        return not scheduler or self._takes("scheduler", scheduler)

    def _takes(self, key: str, value: str) -> bool:
        """Return whether a key has the value; without the key, the value is ignored."""
        choices = self._described.get(key, {}).get("enum")
        return choices is None or value in choices

    def _parameters(self) -> tuple[Schema, bool]:
        """Describe the key ``parameters``, and tell whether it is required."""
        declared = self._template.params.parameters
        required = [
            key for key in self._template.params.required if key not in JobInput.model_fields
        ]
        properties: dict[str, Schema] = {}
        for name, entry in self._described.items():
            if name in FILES and name not in declared:
                continue
            own = {word: value for word, value in entry.items() if value is not None}
            properties[name] = own if name in required else nullable(own)
        schema = {
            "type": "object",
            "properties": properties,
            "additionalProperties": {"type": "null"},  # the same as no key
        }
        if required:
            return {**schema, "required": required}, True
        return nullable(schema), False

    def _is_default(self, required: Sequence[str], properties: Mapping[str, Any]) -> bool:
        """Return whether a request that fits and has no ``workflow`` means the template."""
        pictures = DEFAULTS.get(self._template.name)
        if pictures is None:
            return False
        return FILES & set(required) == pictures and FILES & properties.keys() == pictures

    def _absent(self) -> set[str]:
        """List the keys of the input that the workflow has no use for."""
        absent = {*Parameters.model_fields, *FILES} - self._described.keys()
        if self._roles.alpha_masks:
            absent.discard("mask")
        if not self._roles.samplers:
            absent |= NEEDS_SAMPLER
        try:
            splice_clip_skip(self._workflow, self._defs, 1, never_ends)
        except NoPlace:
            absent.add("clip_skip")
        return absent

    def _definitions(self) -> Schema:
        definitions: Schema = self._contract["$defs"]
        for (name, key), (class_type, input_name) in ADDED_MODELS.items():
            if class_type not in self._defs:
                continue
            choices = self._defs[class_type].inputs[input_name].choices or ()
            properties = definitions[name]["properties"]
            names = self._model_names([str(choice) for choice in choices])
            own = {"description": properties[key]["description"], **names}
            own = {word: value for word, value in own.items() if value is not None}
            is_required = key in definitions[name].get("required", ())
            properties[key] = own if is_required else nullable(own)
        return definitions


def _within(entry: Schema, contract: Schema) -> Schema:
    """Add the bounds that a key has in any workflow to those of this one."""
    narrowed = dict(entry)
    for part in (contract, *contract.get("anyOf", ())):
        for bound, stricter in (("minimum", max), ("maximum", min)):
            if bound in part:
                narrowed[bound] = stricter(part[bound], entry.get(bound, part[bound]))
        if "exclusiveMinimum" in part:
            narrowed["exclusiveMinimum"] = part["exclusiveMinimum"]
    return narrowed


def _with_listed_steps(entry: Schema) -> Schema:
    """List the values of an input whose steps JSON Schema cannot express."""
    pairs = entry.get("steps")
    if pairs is None:
        return entry
    listed = {word: value for word, value in entry.items() if word != "steps"}
    if "minimum" in entry and "maximum" in entry:
        values = range(int(entry["minimum"]), int(entry["maximum"]) + 1)
        for start, step in pairs:
            first = values.start + (start - values.start) % step
            values_of_pair = range(first, values.stop, step)
            listed_before = listed.get("enum")
            if listed_before is None:
                listed["enum"] = list(values_of_pair)
            else:
                listed["enum"] = [value for value in listed_before if value in values_of_pair]
    return listed


def _required(entry: Schema) -> Schema:
    """Return a schema that does not accept null."""
    schema = dict(entry)
    if "anyOf" in schema:
        schema["anyOf"] = [part for part in schema["anyOf"] if part != {"type": "null"}]
    if isinstance(schema.get("type"), list):
        schema["type"] = schema["type"][0]
    if "enum" in schema:
        schema["enum"] = [choice for choice in schema["enum"] if choice is not None]
    return schema


def _with_names(entry: Schema, names: Sequence[str]) -> Schema:
    """Add other programs' names to the choices of an input."""
    choices = entry.get("enum")
    if choices is None:
        return entry
    return {**entry, "enum": list(dict.fromkeys([*choices, *names])), "examples": list(choices)}


def _with_true_default(entry: Schema) -> Schema:
    """Leave out a default that a client could not send, such as a model that is not installed."""
    default, choices = entry.get("default"), entry.get("enum")
    is_choice = choices is None or default in choices
    if is_choice and not _is_outside(default, entry):
        return entry
    return {word: value for word, value in entry.items() if word != "default"}


def _is_outside(value: Any, entry: Schema) -> bool:
    if not isinstance(value, (int, float)):
        return False
    low: float = entry.get("minimum", value)
    high: float = entry.get("maximum", value)
    return not low <= value <= high
