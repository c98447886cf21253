"""Tells what to do about missing classes, files and choices, which ComfyUI itself does not know.

That is the pack that has a class, the folders that were searched for a file, and its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from comfy_common.placeholder_names import real_files
from comfy_common.sources import SourceError, read_source
from comfy_worker.errors import brief
from comfy_worker.nearest import MAX_HINTS, nearest
from comfy_worker.workflow.check.problems import TEXT_LENGTH, Problem, shown
from comfy_worker.workflow.model_files import CORE_PACK, CheckContext, ModelFile, find_model_file
from comfy_worker.workflow.model_names import FOLDERS, nearest_files
from comfy_worker.workflow.node_defs import InputSpec, MissingNodeReason, NodeDefs

__all__ = ["Remedies"]

# Finding the reason for a missing class reads the sources of packs, which takes time.
MAX_EXPLAINED = 10
# How many of the installed files an error names.
MAX_SHOWN = 8


class Remedies:
    """Finds what a client or the operator can do about a missing class, file or choice.

    Args:
        defs: the node classes of this ComfyUI.
        context: what else is known about models and classes.
    """

    def __init__(self, defs: NodeDefs, context: CheckContext) -> None:
        self._defs = defs
        self._context = context
        self._explained: dict[str, MissingNodeReason | None] = {}
        self._near: dict[tuple[str, str], list[str]] = {}

    def unknown_class(self, class_type: str) -> Problem:
        """Return the problem of a class that this ComfyUI lacks."""
        near = self._nearest(class_type, "", self._defs)
        packs = self._packs(class_type)
        pack = next(iter(packs), None)
        if class_type not in self._explained and len(self._explained) < MAX_EXPLAINED:
            self._explained[class_type] = self._context.explain(class_type)
        problem = f"this ComfyUI has no {brief(class_type, TEXT_LENGTH)}"
        absence = self._explained.get(class_type)
        if absence is not None:
            facts = {"nearest": near, "pack": absence.pack or pack}
            return Problem("unknown_class", f"{problem}: {absence.why}", absence.would_do, facts)
        would_do = f"install the node pack {' or '.join(packs) or 'that brings it'}"
        if pack == CORE_PACK:
            would_do = "use a version of ComfyUI that has it"
        if near:
            would_do += f", or use {' or '.join(near)}"
        return Problem("unknown_class", problem, would_do, {"nearest": near, "pack": pack})

    def _packs(self, class_type: str) -> list[str]:
        """Name the pack of a class: the one that the workflow names, else those of the map."""
        named = self._context.packs.get(class_type)
        known = [named] if named else self._context.find_packs(class_type)
        return [brief(pack, TEXT_LENGTH) for pack in known]

    def missing_model(self, class_type: str, spec: InputSpec, value: str) -> Problem:
        """Return the problem of a model file that is not installed."""
        file = value.replace("\\", "/")
        need = find_model_file(class_type, spec.name, file, self._context)
        near = self._nearest_files(spec, value)
        searched = list(self._context.searched(need.folder))
        problem = f"{spec.name} {shown(value)} is not installed"
        if searched:
            problem += f" (looked in {', '.join(searched)})"
        ways = [*self._ways_of_client(need, near, spec), self._way_of_operator(need)]
        facts = {
            "folder": need.folder,
            "nearest": near,
            "url": need.url,
            "in_models_txt": f"{need.folder}/{file}" in self._context.listed,
            "looked_in": searched,
        }
        return Problem("missing_model", problem, ", or ".join(ways), facts)

    def missing_choice(self, spec: InputSpec, value: Any) -> Problem:
        """Return the problem of a value that is not among the choices of an input."""
        choices = spec.choices or ()
        near = self._nearest(str(value), spec.name, choices)
        use = " or ".join(near or _texts(spec)[:8])
        problem = f"{spec.name} {shown(value)} is none of its choices"
        return Problem("value_not_in_list", problem, f"use {use or 'another node'}")

    def missing_input_file(self, name: str, value: Any) -> Problem:
        """Return the problem of a picture or another file that did not come with the job."""
        problem = f"{name} names the input file {shown(value)}, which is not there"
        return Problem("missing_input_file", problem, "send it with the job")

    def _ways_of_client(self, need: ModelFile, near: list[str], spec: InputSpec) -> Iterator[str]:
        """Yield what a client can do about a missing model file."""
        installed = real_files(_texts(spec))
        if near:
            yield f"name one that is there, such as {', '.join(near)}"
        elif installed:
            named = ", ".join(installed[:MAX_SHOWN])
            if len(installed) > MAX_SHOWN:
                named += f" and {len(installed) - MAX_SHOWN} more"
            by_key = " as `checkpoint`" if need.folder == FOLDERS["checkpoint"] else ""
            yield f"name an installed one{by_key}: {named}"
        if self._context.accepts_urls:
            yield "give its URL"

    def _way_of_operator(self, need: ModelFile) -> str:
        """Return what the operator can do about a missing model file."""
        name = self._context.commands.get(f"{need.folder}/{need.file}")
        if name:
            way = f"run `python3 -m comfy_setup models --only {name}`"
        else:
            folder = f"models/{need.folder}" if need.folder else "its folder under models"
            source = f", from {need.url}" if need.url else ""
            way = f"put it into {folder}{source}"
        if repository := _repository(need.url or ""):
            way += f", or to let RunPod cache {repository} (the endpoint's setting Model)"
        if self._context.has_default and need.folder == FOLDERS["checkpoint"]:
            way += " or to set SD_MODEL to an installed one"
        return f"ask the operator to {way}"

    def _nearest_files(self, spec: InputSpec, value: str) -> list[str]:
        near = self._near.get((spec.name, value), [])
        if not near and len(self._near) < MAX_HINTS:
            near = nearest_files(value, _texts(spec))
            self._near[spec.name, value] = near
        return near

    def _nearest(self, name: str, group: str, known: Iterable[Any]) -> list[str]:
        """Return the known names that resemble a name; none after many searches."""
        key = (group, name)
        if key not in self._near and len(self._near) < MAX_HINTS:
            self._near[key] = nearest(name, map(str, known))
        return self._near.get(key, [])


def _repository(url: str) -> str:
    """Return the repository of a file on the hub; empty for another URL."""
    try:
        return read_source(url).repo
    except SourceError:
        return ""


def _texts(spec: InputSpec) -> list[str]:
    """Return the choices of an input as texts."""
    return [str(choice) for choice in spec.choices or ()]
