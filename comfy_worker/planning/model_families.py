"""Compares model families: which LoRAs and ControlNets fit the models of a workflow."""

from __future__ import annotations

from collections.abc import Collection

from comfy_worker.errors import InvalidValue, ModelMismatch
from comfy_worker.models.detect import Family, ModelInfo, compatible, identify
from comfy_worker.planning.plan import Installed
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.loaders import LoaderFile

__all__ = ["BaseModels", "identify_installed"]

# The inputs that name a LoRA or ControlNet file, with the model folder of the file.
ADDON_FOLDERS = (("lora_name", "loras"), ("control_net_name", "controlnet"))


def identify_installed(comfyui: Installed, folder: str, name: str) -> ModelInfo:
    """Tell what an installed model file is.

    Raises:
        InvalidValue: the file is broken.
    """
    path = comfyui.model_path(folder, name)
    return ModelInfo("unknown") if path is None else identify(path)


class BaseModels:
    """The families of the models that the samplers of a workflow use.

    Args:
        comfyui: has the files.
        loaders: the files that the samplers use; none if nothing has to fit them.
    """

    def __init__(self, comfyui: Installed, loaders: Collection[LoaderFile]) -> None:
        self._comfyui = comfyui
        # By the loader's node, the family of its model; None: not known.
        self._families: dict[str, Family | None] = {}
        for loader in loaders:
            family = identify_installed(comfyui, loader.folder, loader.name).family
            self._families[loader.root] = self._families.get(loader.root) or family

    def fits_lora(self, loader_id: str, file: str) -> bool | None:
        """Return whether a LoRA fits the model of a loader; None: not known."""
        return compatible(self._families.get(loader_id), self._info("loras", file).family)

    def fits_controlnet(self, loader_id: str, file: str) -> bool | None:
        """Return whether a ControlNet fits the model of a loader; None: not known."""
        return compatible(self._families.get(loader_id), self._info("controlnet", file).family)

    def is_union(self, file: str) -> bool:
        """Return whether a ControlNet file serves several types of control."""
        return self._info("controlnet", file).union

    @property
    def may_need_vae(self) -> bool:
        """Whether a ControlNet may need a VAE. ComfyUI ignores one that is not needed."""
        families = self._families.values()
        return any(family is None or family.controlnet_vae for family in families)

    def with_families(self, error: ModelMismatch) -> ModelMismatch:
        """Add the names of the families to an error."""
        file = str(error.details[0]["file"])
        addon = self._info("loras", file).family or self._info("controlnet", file).family
        titles = {family.title for family in self._families.values() if family is not None}
        base = " and ".join(sorted(titles))
        if addon is None or not base:
            return error
        return ModelMismatch(
            f"{file} is made for {addon.title}, but the workflow's model is {base}; "
            f"use one that is made for {base}",
            [{"file": file, "family": addon.name, "base": base}],
        )

    def warnings_of(self, workflow: Workflow, node_ids: Collection[str]) -> list[str]:
        """Warn about each file that was spliced in and may not fit.

        Args:
            workflow: the workflow with LoRAs and ControlNets.
            node_ids: the nodes that were spliced in.
        """
        warnings = []
        for node_id in node_ids:
            inputs = workflow[node_id]["inputs"]
            for name, folder in ADDON_FOLDERS:
                if name in inputs and not self._surely_fits(folder, inputs[name]):
                    warnings.append(
                        f"whether {inputs[name]} fits the graph's model could not be told"
                    )
        return warnings

    def _surely_fits(self, folder: str, file: str) -> bool:
        family = identify_installed(self._comfyui, folder, file).family
        return any(compatible(base, family) for base in self._families.values())

    def _info(self, folder: str, file: str) -> ModelInfo:
        """Tell what a file is. A broken file must not end the search for one that fits."""
        try:
            return identify_installed(self._comfyui, folder, file)
        except InvalidValue:
            return ModelInfo("unknown")
