"""What ComfyUI cannot say: which pack brings a class, where a missing file was looked for and where to get it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from comfy_common.placeholder_names import real_files
from comfy_worker.errors import brief
from comfy_worker.nearest import MAX_HINTS, nearest
from comfy_worker.workflow.check.problems import TEXT_LENGTH, Problem, shown
from comfy_worker.workflow.graph import ModelFile
from comfy_worker.workflow.model_files import CheckContext, find_model_file
from comfy_worker.workflow.model_names import FOLDERS, nearest_files
from comfy_worker.workflow.node_defs import InputSpec, MissingNodeReason, NodeDefs

__all__ = ["Remedies"]

# Looking a class up reads the sources of packs.
MAX_EXPLAINED = 10
# How many of the installed files an error names.
MAX_SHOWN = 8


class Remedies:
    """Finds what a client or the operator can do about a missing class, file or choice.

    Args:
        defs: the classes that this ComfyUI has.
        sources: what else is known of models and classes.
    """

    def __init__(self, defs: NodeDefs, sources: CheckContext) -> None:
        self._defs = defs
        self._sources = sources
        self._explained: dict[str, MissingNodeReason | None] = {}
        self._near: dict[tuple[str, str], list[str]] = {}

    def unknown_class(self, class_type: str) -> Problem:
        """The problem of a class that this ComfyUI lacks."""
        near = self._nearest(class_type, "", self._defs)
        pack = self._sources.packs.get(class_type)
        if class_type not in self._explained and len(self._explained) < MAX_EXPLAINED:
            self._explained[class_type] = self._sources.explain(class_type)
        problem = f"this ComfyUI has no {brief(class_type, TEXT_LENGTH)}"
        absence = self._explained.get(class_type)
        if absence is not None:
            facts = {"nearest": near, "pack": absence.pack or pack}
            return Problem("unknown_class", f"{problem}: {absence.why}", absence.would_do, facts)
        would_do = (
            f"install the node pack {pack}" if pack else "install the node pack that brings it"
        )
        would_do += f", or use {' or '.join(near)}" if near else ""
        return Problem("unknown_class", problem, would_do, {"nearest": near, "pack": pack})

    def missing_model(self, class_type: str, spec: InputSpec, value: str) -> Problem:
        """The problem of a model file that is not installed."""
        file = value.replace("\\", "/")
        need = find_model_file(class_type, spec.name, file, self._sources)
        near = self._near.get((spec.name, value), [])
        if not near and len(self._near) < MAX_HINTS:
            near = nearest_files(value, [str(choice) for choice in spec.choices or ()])
            self._near[spec.name, value] = near
        searched = list(self._sources.searched(need.folder))
        problem = f"{spec.name} {shown(value)} is not installed"
        problem += f" (looked in {', '.join(searched)})" if searched else ""
        ways = [*self._ways_of_client(need, near, spec), self._way_of_operator(need)]
        facts = {
            "folder": need.folder,
            "nearest": near,
            "url": need.url,
            "in_models_txt": f"{need.folder}/{file}" in self._sources.listed,
            "looked_in": searched,
        }
        return Problem("missing_model", problem, ", or ".join(ways), facts)

    def missing_choice(self, spec: InputSpec, value: Any) -> Problem:
        """The problem of a value that is not among the choices of an input."""
        choices = spec.choices or ()
        near = self._nearest(str(value), spec.name, choices)
        use = " or ".join(near or [str(choice) for choice in choices[:8]])
        problem = f"{spec.name} {shown(value)} is none of its choices"
        return Problem("value_not_in_list", problem, f"use {use or 'another node'}")

    def missing_input_file(self, name: str, value: Any) -> Problem:
        """The problem of a picture or another file that did not come with the job."""
        problem = f"{name} names the input file {shown(value)}, which is not there"
        return Problem("missing_input_file", problem, "send it with the job")

    def _ways_of_client(self, need: ModelFile, near: list[str], spec: InputSpec) -> Iterator[str]:
        """What a client can do about a missing model file."""
        is_checkpoint = need.folder == FOLDERS["checkpoint"]
        installed = real_files(str(choice) for choice in spec.choices or ())
        if near:
            yield f"name one that is there, such as {', '.join(near)}"
        elif installed:
            more = f" and {len(installed) - MAX_SHOWN} more" if len(installed) > MAX_SHOWN else ""
            by_key = " as `checkpoint`" if is_checkpoint else ""
            yield f"name an installed one{by_key}: {', '.join(installed[:MAX_SHOWN])}{more}"
        if self._sources.accepts_urls:
            yield "give its URL"

    def _way_of_operator(self, need: ModelFile) -> str:
        """What the operator can do about a missing model file."""
        where = f"models/{need.folder}" if need.folder else "its folder under models"
        name = self._sources.commands.get(f"{need.folder}/{need.file}")
        source = f", from {need.url}" if need.url else ""
        way = f"put it into {where}{source}"
        if name:
            way = f"run `python3 -m comfy_setup models --only {name}`"
        if self._sources.has_default and need.folder == FOLDERS["checkpoint"]:
            way += " or to set SD_MODEL to an installed one"
        return f"ask the operator to {way}"

    def _nearest(self, name: str, where: str, known: Iterable[Any]) -> list[str]:
        """The known names that are near to this one; none after many searches."""
        key = (where, name)
        if key not in self._near and len(self._near) < MAX_HINTS:
            self._near[key] = nearest(name, map(str, known))
        return self._near.get(key, [])
