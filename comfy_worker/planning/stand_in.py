"""Chooses the checkpoint of a template's job, also if the template's own is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_common.placeholder_names import is_toy, real_files
from comfy_worker.errors import ModelNotFound
from comfy_worker.models.hub_aliases import find_checkpoint, published_files
from comfy_worker.planning.model_families import identify_installed
from comfy_worker.planning.plan import PlanContext, StandIn
from comfy_worker.planning.templates import Template
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.model_files import ModelFile
from comfy_worker.workflow.model_names import match
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles

__all__ = ["CheckpointChoice", "announcement"]

# The stand-ins that a client of this worker has been warned of.
_announced: set[StandIn] = set()


def announcement(stand_in: StandIn) -> list[str]:
    """Warn of a stand-in.

    A real checkpoint is announced once, since it is the same for every job of this worker. The toy
    is announced with each picture: nobody shall take its pictures for those of a real model.
    """
    if is_toy(stand_in.chosen):
        return [
            f"checkpoint {stand_in.missing} is not installed; {stand_in.chosen} stood in, a toy "
            "model that draws coloured shapes: install a real checkpoint for other pictures"
        ]
    if stand_in in _announced:
        return []
    _announced.add(stand_in)
    return [
        f"checkpoint {stand_in.missing} is not installed; {stand_in.chosen}, "
        "the only one there is, stood in"
    ]


class CheckpointChoice:
    """Finds the checkpoint for a template.

    Args:
        context: the job's.
        defs: the node definitions of the running ComfyUI.
        workflow: the template's, not filled yet.
        roles: of that workflow.

    Attributes:
        stand_in: set if a checkpoint was used only because it is the only one there is.
    """

    def __init__(
        self, context: PlanContext, defs: NodeDefs, workflow: Workflow, roles: Roles
    ) -> None:
        self.stand_in: StandIn | None = None
        self._context = context
        self._defs = defs
        self._workflow = workflow
        self._roles = roles

    def values(self, template: Template, client_values: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the checkpoint, and settings that suit it where the client chose none.

        Args:
            template: the one that the job runs.
            client_values: the parameters of the request.

        Returns:
            Values by parameter; empty if the template's own checkpoint stays.

        Raises:
            Ambiguous: the client's name, or the setting SD_MODEL, fits several files.
            ModelNotFound: it fits no file.
            ModelNotFetched: the file of SD_MODEL could not be downloaded.
        """
        loader = self._loader(template)
        if loader is None:
            return {}
        own = str(loader["inputs"]["ckpt_name"])
        chosen = self._chosen(own, self._installed(loader), client_values.get("checkpoint"))
        if chosen is None:
            return {}
        values: dict[str, Any] = {"checkpoint": chosen}
        # Identified in any case: a broken file is an error now, not when ComfyUI loads it.
        family = identify_installed(self._context.comfyui, "checkpoints", chosen).family
        has_size = "width" in client_values or "height" in client_values
        if family is not None and chosen != own:
            suited: dict[str, Any] = {"cfg": family.cfg}
            if self._starts_from_picture(client_values.get("denoise")):
                suited["scheduler"] = family.picture_scheduler
            if not has_size:
                suited |= {"width": family.width, "height": family.height}
            values |= {
                name: value
                for name, value in suited.items()
                if value and name in self._roles.inputs and name not in client_values
            }
        return values

    def _starts_from_picture(self, denoise: Any) -> bool:
        """Return whether a sampler leaves out noise. If the client sets a value, that counts."""
        inputs = () if denoise is not None else self._roles.inputs.get("denoise", ())
        values = [self._workflow[node_id]["inputs"][name] for node_id, name in inputs]
        return any(isinstance(value, (int, float)) and value < 1 for value in [denoise, *values])

    def _chosen(self, own: str, installed: list[str], wanted: object) -> str | None:
        """Choose a file; None: the template's own stays, or there is none to choose."""
        if wanted is not None:
            return find_checkpoint(str(wanted), installed)
        if own in installed:
            return None
        sd_model = self._context.rules.sd_model
        if self._need(own) and (not sd_model or own in published_files(sd_model)):
            return None  # it is downloaded together with the other models of the template
        if sd_model:
            return self._sd_model_file(sd_model, installed)
        candidates = real_files(installed)
        if len(candidates) == 1:
            self.stand_in = StandIn(own, candidates[0])
            return candidates[0]
        try:
            return match(own, installed, "checkpoint")
        except ModelNotFound:
            return None  # the check says so, together with whatever else is missing

    def _sd_model_file(self, sd_model: str, installed: list[str]) -> str:
        """Find the file that SD_MODEL means, and download it if it is missing."""
        context = self._context
        try:
            return find_checkpoint(sd_model, installed)
        except ModelNotFound:
            needs = [need for file in published_files(sd_model) if (need := self._need(file))]
            if not needs or context.models is None or context.job.input.validate_only:
                raise
        context.models.fetch_needs(needs[:1])
        context.comfyui.refresh()
        return needs[0].file

    def _loader(self, template: Template) -> dict[str, Any] | None:
        """Find the node that loads the template's checkpoint."""
        declared = template.params.parameters.get("checkpoint")
        if declared is not None:
            inputs: tuple[Input, ...] = (Input(declared.node, declared.input),)
        else:
            inputs = self._roles.inputs.get("checkpoint", ())
        for node_input in inputs:
            if node_input.name == "ckpt_name":
                return self._workflow[node_input.node_id]
        return None

    def _installed(self, loader: Mapping[str, Any]) -> list[str]:
        choices = self._defs[loader["class_type"]].inputs["ckpt_name"].choices
        return [str(choice) for choice in choices or ()]

    def _need(self, file: str) -> ModelFile | None:
        """Find a checkpoint that the worker may download; None if there is none of this name."""
        if not self._context.rules.downloads_models:
            return None
        for need in self._context.known_needs:
            if need.url and (need.folder, need.file) == ("checkpoints", file):
                return need
        return None
