"""The docs say what the code declares: each table here is made from the declaration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from comfy_common.paths import REPO
from comfy_worker.comfyui.launch import PRECISIONS
from comfy_worker.models.hub_aliases import HUB_FILES
from comfy_worker.request import dialect_names as words
from comfy_worker.request.schema import ControlNet, JobInput, Lora, NamedImage, Output
from comfy_worker.response.schema import Media, Result, Text, Timings, Validation
from comfy_worker.response_formats import ResponseFormat
from comfy_worker.settings import Settings

WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "null": "null",
}


def kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(word for word in map(kind, schema["anyOf"]) if word != "null")
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}"
    return WORDS[schema["type"]]


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def keys_table(form: type[BaseModel]) -> str:
    schema = form.model_json_schema()
    rows = [row("key", "type", "default", "meaning"), row("---", "---", "---", "---")]
    for key, entry in schema["properties"].items():
        default = "required" if key in schema.get("required", ()) else entry.get("default")
        shown = str(default).lower() if isinstance(default, bool) else default
        shown = "-" if default in (None, [], {}) else shown
        rows.append(row(f"`{key}`", kind(entry), shown, entry.get("description", "-")))
    return "\n".join(rows)


def settings_table() -> str:
    rows = [row("variable", "default", "meaning"), row("---", "---", "---")]
    for field in Settings.model_fields.values():
        default = "-" if field.default_factory or field.default in (None, "", ()) else str(field.default).lower()
        default = " ".join(field.default) if isinstance(field.default, tuple) and field.default else default
        rows.append(row(f"`{field.alias}`", default, field.description))
    return "\n".join(rows)


def words_table() -> str:
    meant = {word: f"`{key}`" for word, key in words.RENAMED.items()} | words.STRUCTURED
    meant |= {word: f"`parameters.{name}` of `hires-fix`, with `enable_hr`" for word, name in words.HIRES.items()}
    rows = [row("word", "what it means here"), row("---", "---")]
    return "\n".join([*rows, *(row(f"`{word}`", meaning) for word, meaning in meant.items())])


def samplers_table() -> str:
    rows = [row("name", "`sampler`", "`scheduler`"), row("---", "---", "---")]
    for known in words.SAMPLERS:
        names = [f"`{name}`" for name in known.names] + [f"`{name}` (the nearest)" for name in known.nearest]
        rows.append(row(", ".join(names), f"`{known.sampler}`", f"`{known.scheduler}`"))
    return "\n".join(rows)


def schedulers_table() -> str:
    rows = [row("name", "`scheduler`"), row("---", "---")]
    rows += [row(f"`{name}`", f"`{own}`" if own else "the sampler's") for name, own in words.SCHEDULERS.items()]
    return "\n".join(rows)


def hub_table() -> str:
    rows = [row("id", "files, the first that is installed counts"), row("---", "---")]
    rows += [row(f"`{name}`", ", ".join(f"`{file}`" for file in files)) for name, files in HUB_FILES.items()]
    return "\n".join(rows)


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


@pytest.mark.parametrize("form", [JobInput, Lora, ControlNet, NamedImage, Output], ids=lambda form: form.__name__)
def test_input_md_is_the_contract(form: type[BaseModel]) -> None:
    assert keys_table(form) in (REPO / "docs" / "input.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", [Result, Media, Text, Timings, Validation], ids=lambda form: form.__name__)
def test_result_md_is_the_contract(form: type[BaseModel]) -> None:
    assert keys_table(form) in (REPO / "docs" / "result.md").read_text(encoding="utf-8")


def test_settings_md_is_the_declaration() -> None:
    text = (REPO / "docs" / "settings.md").read_text(encoding="utf-8")
    assert settings_table() in text
    assert hub_table() in text
    for precision, flags in PRECISIONS.items():
        if precision:
            assert row(f"`{precision}`", listed(flags)) in text


def test_dialects_md_is_the_tables() -> None:
    text = (REPO / "docs" / "dialects.md").read_text(encoding="utf-8")
    for table in (words_table(), samplers_table(), schedulers_table()):
        assert table in text
    plain = " ".join(text.split())
    for names in (words.IGNORED, words.NO_EFFECT, words.NOT_HERE, words.OPTIONS, get_args(ResponseFormat)):
        assert [name for name in names if f"`{name}`" not in plain] == []
