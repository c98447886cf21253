"""The docs say what the code declares: each table here is made from the declaration."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from comfy_setup.paths import REPO
from comfy_worker.job import ControlNet, JobInput, Lora, Media, Output, Result, Timings
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
        rows.append(row(f"`{field.alias}`", default, field.description))
    return "\n".join(rows)


@pytest.mark.parametrize("form", [JobInput, Lora, ControlNet, Output], ids=lambda form: form.__name__)
def test_input_md_is_the_contract(form: type[BaseModel]) -> None:
    assert keys_table(form) in (REPO / "docs" / "input.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", [Result, Media, Timings], ids=lambda form: form.__name__)
def test_result_md_is_the_contract(form: type[BaseModel]) -> None:
    assert keys_table(form) in (REPO / "docs" / "result.md").read_text(encoding="utf-8")


def test_settings_md_is_the_declaration() -> None:
    assert settings_table() in (REPO / "docs" / "settings.md").read_text(encoding="utf-8")
