"""Writes the tables of the docs and of RunPod's Hub entry from the declarations in the code.

Run it with ``.venv/bin/python -m docs.tools.make_tables``. CI runs it and fails if a file changes.

A page marks where a table belongs: the lines between
``<!-- table: NAME -->`` and ``<!-- end of table -->`` are replaced. :data:`TABLES` has the names.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from benchmarks import all as benchmarks
from comfy_common.comfyui_version import DEFAULT, OLDEST, parse_version
from comfy_common.metrics import ENDPOINT_METRICS, MACHINE_METRICS, WORKER_METRICS
from comfy_common.models_txt import parse_models, parse_sections, total_size
from comfy_common.paths import REPO
from comfy_worker.comfyui.launch import PRECISIONS
from comfy_worker.models.hub_aliases import HUB_FILES
from comfy_worker.planning.templates import Parameter, Template, Templates
from comfy_worker.request import dialect_names as names
from comfy_worker.request.schema import ControlNet, JobInput, Lora, NamedImage, Output
from comfy_worker.response import schema as response
from comfy_worker.response_formats import ResponseFormat
from comfy_worker.settings import Settings
from comfy_worker.workflow.edit.describe import describe
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from docs.tools.template_usage import OFFICIAL, covered_percent, family_uses
from tests.newer_classes import object_info

PAGES = sorted([REPO / "README.md", *(REPO / "docs").glob("*.md")])
CHART = REPO / "docs" / "performance.svg"
# The figures that the README shows, by the names that the benchmarks give them.
HEADLINES = {
    "64x64, all at once": "16 jobs of 64x64 pixels without a model, time of each",
    "1024 PNG, all at once": "16 jobs of 1024x1024 pixels from a tiny model, time of each",
    "process start to first answer, no model": "from the start of the process to the first answer",
}
HUB_ENTRY = REPO / ".runpod" / "hub.json"
MARKED_TABLE = re.compile(
    r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end of table -->)", re.DOTALL
)
JSON_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "null": "null",
}
WORKFLOWS = REPO / "workflows"
# A default with more characters is not shown.
MAX_DEFAULT = 60
# A family that is used less is not shown.
LEAST_PERCENT = 0.5
# Spellings for the labels of RunPod's Hub, by the words of a setting's name.
LABEL_WORDS = {
    "api": "API",
    "gb": "(GB)",
    "hf": "HF",
    "s": "(seconds)",
    "mb": "(MB)",
    "sd": "SD",
    "url": "URL",
    "urls": "URLs",
    "comfyui": "ComfyUI",
}
# The Hub's presets: a worker downloads the models of this template when it starts.
HUB_TEMPLATES = {
    "SD 1.5 (16 GB GPU)": "txt2img",
    "SDXL (16 GB GPU)": "sdxl",
    "Z-Image Turbo (24 GB GPU)": "z-image-turbo",
    "Krea 2 Turbo (24 GB GPU)": "krea2",
    "Flux.1 schnell (24 GB GPU)": "flux-schnell",
    "Qwen-Image 2512 (48 GB GPU)": "qwen-image-2512",
    "Qwen-Image-Edit 2511 (48 GB GPU)": "qwen-image-edit-2511",
    "Wan 2.2, video from an image (48 GB GPU)": "wan22-i2v",
}
NO_MODELS = "Any workflow, with models on a network volume"
# What else the presets set, by template: the checkpoint of requests that name no template.
HUB_DEFAULT_MODELS = {"sdxl": "stabilityai/stable-diffusion-xl-base-1.0"}
# For models that a job names, in gigabytes.
HUB_SPARE_GB = 4
# The Hub lets the user search a repository of Hugging Face for these settings.
HUB_REPOSITORIES = {"SD_MODEL"}
# The Hub shows these settings first, and all others under "Advanced".
BASIC_SETTINGS = {
    "MODELS_ON_DEMAND",
    "WARMUP",
    "SD_MODEL",
    "HF_TOKEN",
    "BUCKET_ENDPOINT_URL",
    "BUCKET_ACCESS_KEY_ID",
    "BUCKET_SECRET_ACCESS_KEY",
    "BUCKET_NAME",
}


def row(*cells: object) -> str:
    """Return one row of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    columns = list(header)
    lines = [row(*columns), row(*("---" for _ in columns))]
    return "\n".join([*lines, *(row(*cells) for cells in rows)])


def code_list(words: Iterable[str]) -> str:
    """Return words in code marks, separated by commas."""
    return ", ".join(f"`{word}`" for word in words)


def paragraph(words: Iterable[str]) -> str:
    """Return words in code marks as lines of at most 100 columns."""
    return textwrap.fill(code_list(words), 100, break_long_words=False, break_on_hyphens=False)


def type_name(schema: Mapping[str, Any]) -> str:
    """Return the type of a key in plain words, from its JSON Schema."""
    if "anyOf" in schema:
        options = (type_name(option) for option in schema["anyOf"])
        return " or ".join(option for option in options if option != "null")
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if schema.get("type") == "array":
        return f"list of {type_name(schema['items'])}"
    return JSON_TYPES[schema["type"]]


def shown_default(default: object) -> str:
    """Return a default as the tables show it: `-` for an empty value."""
    if default is None or default in ("", [], {}, ()):
        return "-"
    if isinstance(default, bool):
        return str(default).lower()
    return str(default)


def keys_table(model: type[BaseModel]) -> str:
    """Return the keys of a JSON object that a client sends or gets."""
    schema = model.model_json_schema()
    rows = []
    for key, entry in schema["properties"].items():
        is_required = key in schema.get("required", ())
        default = "required" if is_required else shown_default(entry.get("default"))
        rows.append((f"`{key}`", type_name(entry), default, entry.get("description", "-")))
    return table(("key", "type", "default", "meaning"), rows)


def settings_table() -> str:
    """Return the environment variables."""
    rows = []
    for field in Settings.model_fields.values():
        default = "-" if field.default_factory else shown_default(field.default)
        if isinstance(field.default, tuple) and field.default:
            default = " ".join(field.default)
        if field.alias in ("LOG_LEVEL", "COMFY_LOG_LEVEL"):
            default = default.lower()
        rows.append((f"`{field.alias}`", default, field.description))
    return table(("variable", "default", "meaning"), rows)


def metrics_table() -> str:
    """Return what `/metrics` shows."""
    rows = [
        (f"`{metric.name}`", metric.type, code_list(metric.labels), metric.meaning)
        for metric in (*WORKER_METRICS, *ENDPOINT_METRICS, *MACHINE_METRICS)
    ]
    return table(("metric", "type", "labels", "meaning"), rows)


def figures_table() -> str:
    """Return all measured figures."""
    rows = []
    for document in measured_figures():
        for entry in document["rows"]:
            figures = (entry["ours"], entry["peer"])
            ours, peer = ("" if value is None else f"{value:,.0f}" for value in figures)
            ratio = "" if entry["ratio"] is None else f"{entry['ratio']:.3f}"
            rows.append((entry["name"], document["unit"], ours, peer, ratio))
    return table(("what", "unit", "this worker", "the other", "ratio"), rows)


def headline_table() -> str:
    """Return the three figures of the README."""
    rows = []
    for document in measured_figures():
        for entry in document["rows"]:
            if entry["name"] in HEADLINES:
                ours, peer = (f"{entry[side]:,.0f} ms" for side in ("ours", "peer"))
                rows.append((HEADLINES[entry["name"]], ours, peer))
    return table(("", "this worker", "worker-comfyui"), rows)


def measured_figures() -> list[dict[str, Any]]:
    """Return what ``benchmarks.all --write`` wrote."""
    documents: list[dict[str, Any]] = json.loads(benchmarks.FIGURES.read_text(encoding="utf-8"))
    return documents


def precisions_table() -> str:
    """Return ComfyUI's flags for each value of PRECISION."""
    rows = [(f"`{name}`", code_list(flags)) for name, flags in PRECISIONS.items() if name]
    return table(("`PRECISION`", "ComfyUI's flags"), rows)


def repositories_table() -> str:
    """Return the repository ids that SD_MODEL and `checkpoint` take."""
    rows = [(f"`{name}`", code_list(files)) for name, files in HUB_FILES.items()]
    return table(("repository id", "files; the first one that is installed is used"), rows)


def dialect_keys_table() -> str:
    """Return the keys of other workers' requests."""
    meanings = {word: f"`{key}`" for word, key in names.RENAMED.items()} | names.STRUCTURED
    for word, parameter in names.HIRES.items():
        meanings[word] = f"`parameters.{parameter}` of `hires-fix`, with `enable_hr`"
    return table(
        ("key", "what it becomes"), ((f"`{word}`", text) for word, text in meanings.items())
    )


def samplers_table() -> str:
    """Return other workers' names of samplers."""
    rows = []
    for sampling in names.SAMPLERS:
        words = [f"`{name}`" for name in sampling.names]
        words += [f"`{name}` (closest match)" for name in sampling.nearest]
        rows.append((", ".join(words), f"`{sampling.sampler}`", f"`{sampling.scheduler}`"))
    return table(("name", "`sampler`", "`scheduler`"), rows)


def schedulers_table() -> str:
    """Return other workers' names of schedulers."""
    rows = []
    for name, own_name in names.SCHEDULERS.items():
        meaning = f"`{own_name}`" if own_name else "the sampler's default"
        rows.append((f"`{name}`", meaning))
    return table(("name", "`scheduler`"), rows)


def options_table() -> str:
    """Return the options of A1111 that have an effect."""
    rows = ((f"`{option}`", f"`{key}`") for option, key in names.OPTIONS.items())
    return table(("`override_settings`", "key"), rows)


def template_names() -> list[str]:
    """Return the names of the templates, in the order of models.txt."""
    entries = parse_models((REPO / "models.txt").read_text(encoding="utf-8"))
    sections = dict.fromkeys(entry.section for entry in entries)
    # A section may be something else than a template.
    return [name for name in sections if (WORKFLOWS / f"{name}.params.json").exists()]


def templates_table() -> str:
    """Return the templates with what they need of the machine."""
    rows = []
    templates = Templates([WORKFLOWS])
    for name in template_names():
        params = templates.load(name).params
        requirements = params.requirements
        link = f"[`{name}`](#{anchor(name)})"
        sizes = (requirements.disk_gb, requirements.vram_gib)
        shown = ("" if size is None else f"{size:g}" for size in sizes)
        rows.append((link, params.description, requirements.comfyui or OLDEST, *shown))
    header = ("template", "what it does", "ComfyUI", "models (GB)", "VRAM (GiB)")
    return table(header, rows)


def usage_table() -> str:
    """Return how much each family of ComfyUI's own templates is used, and its templates here."""
    templates = Templates([WORKFLOWS])
    wanted = {name: templates.load(name).params.requirements.comfyui for name in OFFICIAL}
    default = parse_version(DEFAULT)
    current = [name for name, version in wanted.items() if parse_version(version) <= default]
    summary = (
        f"All families with a template here: {covered_percent():.1f} %. Those whose templates "
        f"ComfyUI {DEFAULT} runs: {covered_percent(current):.1f} %."
    )
    rows = [
        (found.family, f"{found.percent:.1f} %", code_list(found.templates))
        for found in family_uses()
        if found.percent >= LEAST_PERCENT
    ]
    header = ("family", "share of use", "templates here")
    return f"{textwrap.fill(summary, 100)}\n\n{table(header, rows)}"


def anchor(name: str) -> str:
    """Return the anchor that Markdown gives to the heading of a template."""
    return name.replace(".", "")


def gallery() -> str:
    """Return a section for each template: its keys, its model files and a request."""
    defs = NodeDefs(object_info())
    templates = Templates([WORKFLOWS])
    return "\n".join(_gallery_entry(templates.load(name), defs) for name in template_names())


def _gallery_entry(template: Template, defs: NodeDefs) -> str:
    params = template.params
    roles = find_roles(template.workflow, defs)
    described = describe(template.workflow, roles, defs, params.parameters)
    keys = [key for key in JobInput.model_fields if key in described]
    lines = [f"### {template.name}", "", f"{params.title}. {params.description}", ""]
    if params.older:
        lines += [f"- An older ComfyUI runs `{params.older}` in its place."]
    if params.required:
        lines += [f"- Required: {code_list(params.required)}"]
    lines += [_wrapped(f"- Keys: {code_list(keys)}")] if keys else []
    for name, parameter in params.parameters.items():
        if name not in JobInput.model_fields:
            lines.append(_wrapped(f"- `parameters.{name}`{_default(described, name, parameter)}"))
    files = code_list(f"{need.folder}/{need.file}" for need in params.needs)
    request = json.dumps({"input": params.example}, indent=2, ensure_ascii=False)
    lines += [_wrapped(f"- Models: {files}"), "", "```json", request, "```", ""]
    return "\n".join(lines)


def _default(described: Mapping[str, Any], name: str, parameter: Parameter) -> str:
    """Return the default and the meaning of a template's own parameter."""
    default = described.get(name, {}).get("default")
    is_file = parameter.input in ("image", "file")
    if is_file or default in (None, "") or len(str(default)) > MAX_DEFAULT:
        return f": {parameter.description}"
    return f" (`{shown_default(default)}`): {parameter.description}"


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


TABLES: dict[str, Callable[[], str]] = {
    "JobInput": lambda: keys_table(JobInput),
    "Lora": lambda: keys_table(Lora),
    "ControlNet": lambda: keys_table(ControlNet),
    "NamedImage": lambda: keys_table(NamedImage),
    "Output": lambda: keys_table(Output),
    "Result": lambda: keys_table(response.Result),
    "Media": lambda: keys_table(response.Media),
    "Text": lambda: keys_table(response.Text),
    "Timings": lambda: keys_table(response.Timings),
    "Validation": lambda: keys_table(response.Validation),
    "settings": settings_table,
    "metrics": metrics_table,
    "figures": figures_table,
    "headline-figures": headline_table,
    "templates": templates_table,
    "usage": usage_table,
    "gallery": gallery,
    "precisions": precisions_table,
    "repositories": repositories_table,
    "dialect-keys": dialect_keys_table,
    "samplers": samplers_table,
    "schedulers": schedulers_table,
    "options": options_table,
    "not-supported-samplers": lambda: paragraph(names.NOT_HERE),
    "keys-with-a-warning": lambda: paragraph(names.IGNORED),
    "keys-without-effect": lambda: paragraph(names.NO_EFFECT),
    "responses": lambda: paragraph(get_args(ResponseFormat)),
}


def with_tables(page: str) -> str:
    """Return a page with tables that match the code."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match['name']]()}\n{match['end']}"

    return MARKED_TABLE.sub(replaced, page)


def hub_environment() -> list[dict[str, Any]]:
    """Return the settings as RunPod's Hub describes environment variables."""
    properties = Settings.model_json_schema()["properties"]
    return [{"key": key, "input": _hub_input(key, entry)} for key, entry in properties.items()]


def _hub_input(key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    words = [LABEL_WORDS.get(word, word) for word in key.lower().split("_")]
    field: dict[str, Any] = {
        "name": words[0][0].upper() + " ".join(words)[1:],
        "type": "string",
        "description": entry["description"],
        "default": "",
        "advanced": key not in BASIC_SETTINGS,
    }
    if key in HUB_REPOSITORIES:
        return field | {"type": "huggingface"}
    default = entry.get("default")
    types = {option.get("type") for option in entry.get("anyOf", [entry])}
    if types == {"boolean"}:
        field |= {"type": "boolean", "default": default}
        field |= {"trueValue": "true", "falseValue": "false"}
    elif types <= {"integer", "number"}:
        lowest = entry.get("minimum", entry.get("exclusiveMinimum"))
        field |= {"type": "number", "default": default, "min": lowest}
        if "maximum" in entry:
            field["max"] = entry["maximum"]
    elif "boolean" in types:  # true, false, or not set
        field["options"] = _hub_options(("", "true", "false"))
    elif "enum" in entry:
        field["default"] = default
        field["options"] = _hub_options(entry["enum"])
    elif isinstance(default, str):
        field["default"] = default
    return field


def _hub_options(values: Iterable[str]) -> list[dict[str, str]]:
    return [{"label": value or "not set", "value": value} for value in values]


def hub_presets() -> list[dict[str, Any]]:
    """Return the Hub's presets: sets of settings, each for one family of models."""
    presets: list[dict[str, Any]] = [
        {"name": NO_MODELS, "defaults": {"MODELS_ON_DEMAND": False, "WARMUP": "", "SD_MODEL": ""}}
    ]
    for name, template in HUB_TEMPLATES.items():
        defaults = {
            "MODELS_ON_DEMAND": True,
            "WARMUP": template,
            "SD_MODEL": HUB_DEFAULT_MODELS.get(template, ""),
            "MODELS_CACHE_GB": math.ceil(template_bytes(template) / 1e9) + HUB_SPARE_GB,
        }
        presets.append({"name": name, "defaults": defaults})
    return presets


def template_bytes(name: str) -> int:
    """Return how many bytes the models of a template have, as models.txt says."""
    text = (REPO / "models.txt").read_text(encoding="utf-8")
    files = [entry for entry in parse_models(text) if entry.section == name]
    return total_size(parse_sections(text)[name], files)


def hub_entry(text: str) -> str:
    """Return RunPod's Hub entry with the settings as they are declared."""
    entry = json.loads(text)
    entry["config"]["presets"] = hub_presets()
    entry["config"]["env"] = hub_environment()
    return json.dumps(entry, indent=2) + "\n"


def stale_files() -> dict[Path, str]:
    """Return every file that differs from the code, with its right text."""
    found = {}
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        if with_tables(text) != text:
            found[path] = with_tables(text)
    chart = benchmarks.chart(measured_figures())
    if CHART.read_text(encoding="utf-8") != chart:
        found[CHART] = chart
    text = HUB_ENTRY.read_text(encoding="utf-8")
    if hub_entry(text) != text:
        found[HUB_ENTRY] = hub_entry(text)
    return found


if __name__ == "__main__":
    for path, text in stale_files().items():
        path.write_text(text, encoding="utf-8")
