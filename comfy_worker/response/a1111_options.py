"""Answers A1111's calls that make no picture: ``getModels``, ``getOptions``, ``setOptions``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_worker.job import Job
from comfy_worker.models.hub_aliases import find_checkpoint
from comfy_worker.request.dialect_addons import without_hash
from comfy_worker.request.dialect_names import OPTIONS
from comfy_worker.request.schema import JobInput
from comfy_worker.response.a1111_answer import stem
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = ["answer_options_call", "model_list", "options_answer"]

OPTIONS_DO_NOT_STAY = (
    "setOptions sets nothing for later requests, which may be other clients'; "
    "send override_settings with each"
)


def answer_options_call(job: Job, defs: NodeDefs, sd_model: str) -> Any:
    """Answer one call.

    Args:
        job: one with an ``options_call``.
        defs: the node definitions of the running ComfyUI, with the checkpoints that it finds.
        sd_model: the setting SD_MODEL.

    Raises:
        InvalidInput: an option has a wrong value.
        ModelNotFound: the chosen checkpoint is not installed.
    """
    installed = defs["CheckpointLoaderSimple"].inputs["ckpt_name"].choices or ()
    if job.options_call == "getModels":
        return model_list(installed)
    if job.options_call == "getOptions":
        return options_answer(sd_model)
    checkpoint = _chosen_options(job.raw_input).get("sd_model_checkpoint")
    if checkpoint:
        find_checkpoint(without_hash(checkpoint), installed)
    return {"warnings": [OPTIONS_DO_NOT_STAY]}


def _chosen_options(raw_input: Mapping[str, Any]) -> dict[str, Any]:
    """Read the options that a call of ``setOptions`` sets, by A1111's names.

    Raises:
        InvalidInput: an option has a wrong value.
    """
    options = {name: raw_input[name] for name in OPTIONS if raw_input.get(name) is not None}
    values = {OPTIONS[name]: without_hash(value) for name, value in options.items()}
    JobInput.read(values, {key: name for name, key in OPTIONS.items()})
    return options


def model_list(checkpoints: Sequence[str]) -> list[dict[str, Any]]:
    """Answer as ``/sdapi/v1/sd-models`` does.

    Args:
        checkpoints: the files of ``checkpoints``, with their subfolders.
    """
    models = []
    for name in checkpoints:
        title = {"title": name, "model_name": stem(name)}
        models.append({**title, "hash": None, "sha256": None, "filename": name, "config": None})
    return models


def options_answer(checkpoint: str) -> dict[str, Any]:
    """Answer as ``/sdapi/v1/options`` does, with the options that count here.

    Args:
        checkpoint: the one that is used if a request chooses none; empty for the templates' own.
    """
    return {"sd_model_checkpoint": checkpoint, "sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1}
