"""Lists the templates with their JSON Schemas and the installed files, for a page that shows forms.

The page of ``comfy_setup serve`` runs in another process that must not import the worker. So the
worker writes the list into a file when ComfyUI is up, and again when models or templates change.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from comfy_common import hub_cache
from comfy_common.page_catalog import CATALOG_VARIABLE
from comfy_worker.comfyui.supervisor import ComfyUISupervisor
from comfy_worker.comfyui.version import ComfyUIVersion
from comfy_worker.deadline import Deadline
from comfy_worker.errors import WorkerError
from comfy_worker.planning.json_schema import SchemaRules, form_schema, template_schema
from comfy_worker.planning.templates import Template, Templates, is_too_old
from comfy_worker.request.schema import JobInput, input_schema
from comfy_worker.settings import Settings
from comfy_worker.workflow.convert.to_api import read_workflow
from comfy_worker.workflow.graph import Workflow, title_of
from comfy_worker.workflow.model_files import ModelFile
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles

__all__ = ["keep_catalog", "template_catalog", "template_row"]

LOOK_S = 5.0
RETRY_S = 30.0
# The inputs that list the installed files of a type.
FILE_LISTS = {
    "checkpoints": ("CheckpointLoaderSimple", "ckpt_name"),
    "controlnet": ("ControlNetLoader", "control_net_name"),
    "loras": ("LoraLoaderModelOnly", "lora_name"),
    "vae": ("VAELoader", "vae_name"),
}
SAMPLER_CLASS = "KSampler"
MEDIA = ("image", "video", "audio")
RESULT_WORDS = {"video": ("video", "animated", "webm"), "audio": ("audio",)}

log = logging.getLogger(__name__)


def template_row(settings: Settings, templates: Templates, name: str) -> dict[str, Any]:
    """Return the list entry of a template. For a broken template, the description is its error."""
    try:
        params = templates.load(name).params
    except WorkerError as error:
        return _broken_row(name, error)
    too_old = is_too_old(params.requirements, ComfyUIVersion.in_folder(settings.comfyui_dir).name)
    missing = [
        f"{need.folder}/{need.file}" for need in params.needs if not _is_installed(need, settings)
    ]
    return {
        "name": name,
        "title": params.title,
        "description": params.description,
        "requirements": params.requirements.model_dump(),
        "too_old": too_old,
        "missing": missing,
        "broken": False,
    }


def template_catalog(settings: Settings, templates: Templates, defs: NodeDefs) -> dict[str, Any]:
    """List everything that a page needs to show forms.

    Args:
        settings: say where models are.
        templates: the named workflows.
        defs: the node classes of the ComfyUI that will run them, with the files that it has.

    Returns:
        ``templates``: rows as `templates --json` prints them, with
        ``schema``, ``media``, ``nodes``, ``inputs`` and ``result``; ``files``: the installed files
        by folder; ``samplers``, ``schedulers``; ``input``: the schema of any request, for forms;
        ``request``: the same with all that the worker takes, for programs.
    """
    return {
        "comfyui": ComfyUIVersion.in_folder(settings.comfyui_dir).name,
        "templates": [_entry(settings, templates, name, defs) for name in templates.names()],
        "files": {
            folder: _choices(defs, class_type, name)
            for folder, (class_type, name) in FILE_LISTS.items()
        },
        "samplers": _choices(defs, SAMPLER_CLASS, "sampler_name"),
        "schedulers": _choices(defs, SAMPLER_CLASS, "scheduler"),
        "input": JobInput.model_json_schema(),
        "request": input_schema(settings.max_batch_size),
    }


def keep_catalog(
    settings: Settings, comfyui: ComfyUISupervisor, templates: Templates, environ: Mapping[str, str]
) -> None:
    """Start a thread that writes the catalog, if the environment names a file for it.

    Args:
        settings: the worker's.
        comfyui: lists the node classes.
        templates: the named workflows.
        environ: the environment of the worker.
    """
    if file := environ.get(CATALOG_VARIABLE):
        writer = _CatalogWriter(Path(file), settings, comfyui, templates)
        threading.Thread(target=writer.run, name="page-catalog", daemon=True).start()


class _CatalogWriter:
    """Keeps the file of the catalog up to date."""

    def __init__(
        self, file: Path, settings: Settings, comfyui: ComfyUISupervisor, templates: Templates
    ) -> None:
        self._file = file
        self._settings = settings
        self._comfyui = comfyui
        self._templates = templates

    def run(self) -> None:
        """Write the file now and after each change, until the process ends."""
        written: object = None
        while True:
            pause_s = LOOK_S
            state = self._state()
            if state != written:
                try:
                    self._write(is_first=written is None)
                    written = state
                except (WorkerError, OSError) as error:
                    log.warning(
                        "the list for the page is not written: %s",
                        error,
                        extra={"action": "page_catalog.failed"},
                    )
                    pause_s = RETRY_S
            time.sleep(pause_s)

    def _state(self) -> tuple[tuple[str, float], ...]:
        """The times at which the folders of models and templates changed."""
        models = [self._settings.comfyui_dir / "models", *self._settings.model_roots]
        template_files = [path for name, path in self._templates.files().items()]
        return tuple(_times([*_folders(models), *template_files]))

    def _write(self, *, is_first: bool) -> None:
        running = self._comfyui.ready(Deadline())
        if not is_first:
            running.refresh()
        catalog = template_catalog(self._settings, self._templates, running.defs)
        unfinished = self._file.with_name(f"{self._file.name}.{os.getpid()}.part")
        unfinished.write_text(json.dumps(catalog), encoding="utf-8")
        unfinished.replace(self._file)


def _broken_row(name: str, error: WorkerError) -> dict[str, Any]:
    return {
        "name": name,
        "description": str(error),
        "missing": [],
        "broken": True,
        "too_old": False,
    }


def _is_installed(need: ModelFile, settings: Settings) -> bool:
    roots = (settings.comfyui_dir / "models", *settings.model_roots)
    if any((root / need.folder / need.file).is_file() for root in roots):
        return True
    cached = hub_cache.find_url(need.url or "", settings.hub_snapshots, settings.hf_endpoint)
    return cached is not None


def _entry(settings: Settings, templates: Templates, name: str, defs: NodeDefs) -> dict[str, Any]:
    row = template_row(settings, templates, name)
    if row["broken"]:
        return row
    try:
        rules = SchemaRules(settings.max_batch_size)
        return {**row, **_form(templates.load(name), defs, rules)}
    except WorkerError as error:
        # A template for a newer ComfyUI has classes that this one lacks.
        return {**row, "broken": not row["too_old"], "problem": str(error)}


def _form(template: Template, defs: NodeDefs, rules: SchemaRules) -> dict[str, Any]:
    """What a form needs beside the list entry."""
    workflow = read_workflow(template.workflow, defs).workflow
    roles = find_roles(workflow, defs)
    inputs = {}
    for name, node_inputs in roles.inputs.items():
        inputs[name] = [f"{found.node_id}.{found.name}" for found in node_inputs]
    for name, parameter in template.params.parameters.items():
        inputs[name] = [f"{parameter.node}.{parameter.input}"]
    return {
        "schema": form_schema(template_schema(template, defs, rules)),
        "media": _media(workflow, inputs, defs),
        "inputs": inputs,
        "nodes": {node_id: title_of(workflow, node_id) for node_id in workflow},
        "result": _result(workflow, roles.outputs),
        "prompt": str(template.params.example.get("prompt", "")),
    }


def _media(
    workflow: Workflow, inputs: Mapping[str, Sequence[str]], defs: NodeDefs
) -> dict[str, str]:
    """Which parameters are files, by the upload button of their widget: image, video or audio."""
    found = {}
    for name, node_inputs in inputs.items():
        for node_input in node_inputs:
            node_id, input_name = node_input.split(".", 1)
            node = workflow.get(node_id, {})
            node_class = defs.get(node.get("class_type", ""))
            spec = node_class and node_class.spec(input_name, node.get("inputs", {}))
            words = [word for word in MEDIA if spec and spec.options.get(f"{word}_upload")]
            if words:
                found[name] = words[0]
    return found


def _result(workflow: Workflow, outputs: Sequence[str]) -> str:
    """What the template makes: image, video or audio."""
    classes = " ".join(workflow[node_id]["class_type"].lower() for node_id in outputs)
    for word, marks in RESULT_WORDS.items():
        if any(mark in classes for mark in marks):
            return word
    return "image"


def _choices(defs: NodeDefs, class_type: str, name: str) -> list[str]:
    node_class = defs.get(class_type)
    spec = node_class.spec(name, {}) if node_class else None
    return [str(choice) for choice in (spec.choices or ())] if spec else []


def _folders(roots: Sequence[Path]) -> Iterator[Path]:
    """The folders of models, two levels deep: more would be slow on a network volume."""
    for root in roots:
        yield root
        for folder in _below(root):
            yield folder
            yield from _below(folder)


def _below(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]
    return []


def _times(paths: Sequence[Path]) -> Iterator[tuple[str, float]]:
    for path in paths:
        with suppress(OSError):
            yield str(path), path.stat().st_mtime
