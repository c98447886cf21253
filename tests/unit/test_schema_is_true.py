"""A template's JSON Schema and the worker accept the same requests.

Requests are made from the schema: values that fit it, then a change of one key that may or may not
fit. The worker's verdict is that of its own code, on recorded declarations of ComfyUI's nodes.
"""

from __future__ import annotations

import functools
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comfy_worker.errors import InputError
from comfy_worker.inputs.files import InputFiles
from comfy_worker.job import Job
from comfy_worker.planning.json_schema import SchemaRules, form_schema, template_schema
from comfy_worker.planning.plan import PlanContext, PlanningRules
from comfy_worker.planning.planner import build_plan
from comfy_worker.planning.templates import choose_template
from comfy_worker.request.schema import JobInput, input_schema
from comfy_worker.settings import Settings
from tests import shipped
from tests.template_plans import LORA, SOURCES, TEMPLATES, RecordedComfyUI, recorded_defs

# More than a thousand requests in all.
REQUESTS = 24
RULES = SchemaRules(max_batch_size=4)
PICTURE = SOURCES[".png"]
# What the schema leaves to the worker: the contents of files, the names in open objects, and which
# ControlNet fits a checkpoint.
LEFT_TO_WORKER = {"overrides", "controlnets", "images"}
ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 3.5, 20.0, 10**30, -(10**6), "", "euler", "Euler a", "Karras",
    "DPM++ 2M Karras", "no such thing", "x" * 4001, [], {}, [1], {"a": 1},
]  # fmt: skip


@functools.cache
def schema_of(name: str) -> dict[str, Any]:
    return template_schema(TEMPLATES.load(name), recorded_defs(), RULES)


def refusal_of(job_input: dict[str, Any], name: str) -> str:
    """Return why the worker refuses a request for a template; empty if it takes it."""
    settings = Settings(MAX_BATCH_SIZE=RULES.max_batch_size)
    try:
        job = Job.parse({"id": "x", "input": job_input}, settings, threading.Event())
        template = choose_template(job.input, TEMPLATES)
        if template is None or template.name != name:
            return "it means another workflow"
        with tempfile.TemporaryDirectory() as folder:
            files = InputFiles(Path(folder), settings.input_limits)
            rules = PlanningRules(max_batch_size=settings.max_batch_size)
            context = PlanContext(job, template, RecordedComfyUI(), files, rules=rules)
            plan = build_plan(context)
    except InputError as error:
        return f"{error.code}: {error.sentence}"
    return "; ".join(str(finding) for finding in plan.findings)


class Generator:
    """Makes requests for one schema, always the same ones.

    Args:
        schema: a template's.
        seed: of the random numbers.
    """

    def __init__(self, schema: dict[str, Any], seed: int) -> None:
        self._schema = schema
        self._random = random.Random(seed)

    def fitting(self) -> dict[str, Any]:
        """A request that fits the schema."""
        return self._object(self._schema, LEFT_TO_WORKER)

    def changed(self) -> dict[str, Any]:
        """A request with one change, which may fit or not."""
        request = self.fitting()
        keys = [key for key in self._schema["properties"] if key not in LEFT_TO_WORKER]
        key = self._random.choice([*keys, "unknown_key"])
        if key in self._schema["required"] and self._random.random() < 0.3:
            del request[key]
        elif key in ("image", "mask"):
            request[key] = self._random.choice([None, 1, [], True])
        elif key == "parameters":
            request[key] = self._changed_parameters(request.get(key) or {})
        else:
            request[key] = self._odd(self._schema["properties"].get(key, {}))
        return request

    def _changed_parameters(self, parameters: dict[str, Any]) -> Any:
        properties = self._schema["properties"]["parameters"]["properties"]
        known = [name for name, entry in properties.items() if not file_for(name, entry)]
        name = self._random.choice([*known, "unknown_key"])
        return {**parameters, name: self._odd(properties.get(name, {}))}

    def _odd(self, entry: dict[str, Any]) -> Any:
        edges: list[Any] = []
        for bound, step in (("minimum", -1), ("maximum", 1)):
            if bound in entry:
                edges += [entry[bound], entry[bound] + step]
        if "multipleOf" in entry:
            edges.append(entry["minimum"] + entry["multipleOf"] // 2)
        return self._random.choice([*ODD_VALUES, *edges, *edges])

    def _object(self, schema: dict[str, Any], skipped: set[str]) -> dict[str, Any]:
        made = {}
        for key, entry in schema["properties"].items():
            is_needed = key in schema.get("required", ())
            if key in skipped or not (is_needed or self._random.random() < 0.4):
                continue
            made[key] = file_for(key, entry) or self._value(entry)
        return made

    def _value(self, entry: dict[str, Any]) -> Any:
        if "$ref" in entry:
            part = self._schema["$defs"][entry["$ref"].rpartition("/")[2]]
            # What a LoRA's target means depends on the workflow; storage is not here.
            return self._object(part, {"target", "delivery"})
        if "anyOf" in entry:
            return self._value(self._random.choice(entry["anyOf"]))
        if "const" in entry:
            return entry["const"]
        if "enum" in entry:
            return self._random.choice(entry["enum"])
        types = entry["type"] if isinstance(entry["type"], list) else [entry["type"]]
        return self._of_type(self._random.choice(types), entry)

    def _of_type(self, name: str, entry: dict[str, Any]) -> Any:
        low, high = entry.get("minimum", 0), entry.get("maximum", 100)
        match name:
            case "null":
                return None
            case "boolean":
                return self._random.random() < 0.5
            case "integer":
                step = entry.get("multipleOf", 1)
                return int(low) + step * self._random.randint(0, min(50, int(high - low) // step))
            case "number":
                return self._random.choice([low, high, (low + high) / 2])
            case "array":
                return [self._value(entry["items"]) for _ in range(self._random.randint(0, 2))]
            case "object":
                return self._object(entry, set())
            case _:
                return "a red fox"


def file_for(name: str, entry: dict[str, Any]) -> str:
    """Return a file for a key that takes one; else an empty text."""
    content = entry.get("contentMediaType")
    if content == "application/octet-stream":
        return SOURCES[".mp4"]
    return SOURCES[".png"] if content or name in ("image", "mask") else ""


@pytest.mark.parametrize("name", shipped.NAMES)
def test_schema_and_worker_accept_the_same(name: str) -> None:
    schema = schema_of(name)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    generator = Generator(schema, seed=1)
    differences = []
    verdicts = {True: 0, False: 0}
    for number in range(REQUESTS):
        request = generator.changed() if number % 2 else generator.fitting()
        problem = next(validator.iter_errors(request), None)
        refusal = refusal_of(request, name)
        verdicts[not refusal] += 1
        if bool(problem) != bool(refusal):
            shown = {key: str(value)[:60] for key, value in request.items()}
            says = problem.message[:200] if problem is not None else "fits"
            differences.append(f"{shown}: schema: {says}; worker: {refusal[:300] or 'takes it'}")
    assert differences == []
    assert all(verdicts.values())


@pytest.mark.parametrize("name", shipped.NAMES)
def test_defaults_fit_their_own_schema(name: str) -> None:
    schema = schema_of(name)
    for key, entry in schema["properties"].items():
        if "default" in entry:
            part = {**entry, "$defs": schema["$defs"]}
            jsonschema.validate(entry["default"], part)
        assert key == "workflow" or "description" in entry or key == "parameters"


def test_the_common_schema_takes_any_template() -> None:
    validator = jsonschema.Draft202012Validator(input_schema())
    for name in shipped.NAMES:
        request = {"workflow": name, "image": PICTURE, "seed": None, "loras": [None]}
        assert list(validator.iter_errors(request)) == []
        JobInput.read(request)
    assert not validator.is_valid({"controlnets": [{"image": PICTURE}]})
    assert not validator.is_valid({"loras": [{"name": "x" * 4001}]})


def test_models_may_be_named_by_url() -> None:
    rules = SchemaRules(accepts_urls=True)
    schema = template_schema(TEMPLATES.load("txt2img"), recorded_defs(), rules)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"checkpoint": "https://example.com/a.safetensors"})
    assert validator.is_valid({"loras": [{"name": LORA.removesuffix(".safetensors")}]})
    assert not validator.is_valid({"checkpoint": "no-such-file"})


@pytest.mark.parametrize("name", ["txt2img", "wan22-i2v", "controlnet"])
def test_forms_get_one_type_a_key(name: str) -> None:
    schema = form_schema(schema_of(name))
    properties = schema["properties"]
    assert properties["workflow"] == {"const": name}
    for key, entry in {**properties, **properties["parameters"]["properties"]}.items():
        assert "anyOf" not in entry
        assert not isinstance(entry.get("type"), list)
        assert None not in entry.get("enum", [])
        assert key != "sampler" or "Euler a" not in entry["enum"]
