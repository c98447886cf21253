"""Splices the LoRAs, the clip skip and the ControlNets of a request into a workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from comfy_worker.errors import ModelMismatch
from comfy_worker.planning.model_families import BaseModels
from comfy_worker.planning.plan import Installed
from comfy_worker.request.schema import ControlNet, JobInput
from comfy_worker.workflow.edit.clip_skip import splice_clip_skip
from comfy_worker.workflow.edit.controlnet import (
    ControlNetRules,
    ControlNetSpec,
    splice_controlnets,
)
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras, with_experts
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.loaders import loader_files
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.walks import Check, never_ends

__all__ = ["Splicer"]


class Splicer:
    """Splices what a request asks for into the workflow of one job.

    Args:
        comfyui: will run the job.
        defs: its node definitions.
        request: its input.
        roles: of the workflow, before anything is spliced in.
        check: called repeatedly; raises if the job must end.

    Attributes:
        warnings: sentences for the client.
    """

    def __init__(
        self,
        comfyui: Installed,
        defs: NodeDefs,
        request: JobInput,
        roles: Roles,
        check: Check = never_ends,
    ) -> None:
        self.warnings: list[str] = []
        self._comfyui = comfyui
        self._defs = defs
        self._request = request
        self._roles = roles
        self._check = check

    def splice(
        self, workflow: Workflow, tagged: Sequence[LoraSpec], control_images: Mapping[str, str]
    ) -> Workflow:
        """Splice all of it in.

        Args:
            workflow: filled; is not changed.
            tagged: the LoRAs that the prompt names.
            control_images: the stored files, by their key in the input.

        Raises:
            ModelMismatch: a file fits none of the workflow's models; the error names the families.
            InputError: something else cannot be spliced in.
        """
        named = [
            LoraSpec(lora.name, lora.strength, lora.strength_clip, target=lora.target)
            for lora in self._request.loras
        ]
        loras = [*named, *tagged]
        bases = self._base_models(workflow, loras)
        try:
            spliced = self._spliced(workflow, loras, self._controlnets(control_images), bases)
        except ModelMismatch as error:
            raise bases.with_families(error) from error
        self.warnings += bases.warnings_of(spliced, spliced.keys() - workflow.keys())
        return spliced

    def _spliced(
        self,
        workflow: Workflow,
        loras: Sequence[LoraSpec],
        controlnets: Sequence[ControlNetSpec],
        bases: BaseModels,
    ) -> Workflow:
        loras, warnings = with_experts(
            workflow, self._roles, self._defs, loras, fits=bases.fits_lora, check=self._check
        )
        self.warnings += warnings
        workflow = splice_loras(
            workflow, self._roles, self._defs, loras, fits=bases.fits_lora, check=self._check
        )
        if self._request.clip_skip is not None:
            workflow = splice_clip_skip(workflow, self._defs, self._request.clip_skip, self._check)
        return splice_controlnets(
            workflow,
            self._roles,
            self._defs,
            controlnets,
            rules=ControlNetRules(bases.fits_controlnet, bases.is_union, bases.may_need_vae),
            check=self._check,
        )

    def _base_models(self, workflow: Workflow, loras: Sequence[LoraSpec]) -> BaseModels:
        """Identify the workflow's models by their headers, if something has to fit them."""
        has_to_fit = bool(loras) or bool(self._request.controlnets)
        loaders = loader_files(workflow, self._roles, self._defs) if has_to_fit else []
        return BaseModels(self._comfyui, loaders)

    def _controlnets(self, control_images: Mapping[str, str]) -> list[ControlNetSpec]:
        return [
            _controlnet(controlnet, control_images[f"controlnets.{index}.image"])
            for index, controlnet in enumerate(self._request.controlnets)
        ]


def _controlnet(controlnet: ControlNet, image: str) -> ControlNetSpec:
    return ControlNetSpec(image=image, **controlnet.model_dump(exclude={"image"}))
