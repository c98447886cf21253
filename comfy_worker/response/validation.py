"""Builds the answer to ``validate_only``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from comfy_common.text import megabytes
from comfy_worker.comfyui.supervisor import ComfyUIInstance
from comfy_worker.errors import InputError, ResultTooLarge
from comfy_worker.logs import redact
from comfy_worker.outgoing import posted_size, within
from comfy_worker.planning.plan import Plan
from comfy_worker.response.deliver import ENVELOPE, MB
from comfy_worker.response.schema import Validation
from comfy_worker.workflow.isolate import isolate_outputs

__all__ = ["validation"]


def validation(plan: Plan, comfyui: ComfyUIInstance, folder: str, limit: int) -> dict[str, Any]:
    """Return what the check of a plan found.

    Args:
        plan: the job's.
        comfyui: would run it.
        folder: the name of the job's own folders.
        limit: how many bytes of JSON RunPod takes. If the answer has more, long texts in
            ``parameters`` are cut: they are in ``workflow`` too.

    Raises:
        InputError: the outputs cannot be kept apart, and the check found nothing else.
        ResultTooLarge: it has more all the same.
    """
    try:
        workflow = isolate_outputs(plan.workflow, folder, comfyui.defs)
    except InputError:
        if not plan.findings:
            raise
        workflow = plan.workflow  # the job would be refused for its findings first
    needs = []
    for need in plan.needs:
        is_installed = comfyui.model_path(need.folder, need.file) is not None
        needs.append({**asdict(need), "installed": is_installed})
    answer = Validation(
        workflow=workflow,
        name=plan.name,
        seed=plan.seed,
        parameters=plan.parameters,
        roles=plan.roles.outline(),
        needs=needs,
        findings=within(list(plan.findings), redact),
        warnings=plan.warnings,
    ).model_dump(exclude_none=True)
    return _cut(answer, limit)


def _cut(answer: dict[str, Any], limit: int) -> dict[str, Any]:
    available = limit - ENVELOPE
    if posted_size(answer) > available:
        (answer["parameters"],) = within([answer["parameters"]])
    size = posted_size(answer)
    if size > available:
        raise ResultTooLarge(
            f"the checked workflow is {megabytes(size)}, "
            f"but RunPod accepts at most {megabytes(limit)}; "
            "send fewer nodes or shorter texts",
            [{"size_mb": size / MB, "limit_mb": limit / MB}],
        )
    return answer
