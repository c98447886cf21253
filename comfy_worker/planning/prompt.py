"""Makes the prompt that is queued: the planned workflow with the job's folders and secrets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comfy_worker.errors import InvalidInput
from comfy_worker.job import Job
from comfy_worker.planning.plan import Plan
from comfy_worker.workflow.check.links import without_idle
from comfy_worker.workflow.check.preflight import refusal
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.isolate import isolate_outputs, output_folders, replace_save_nodes
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = ["API_KEY", "Prompt", "make_prompt"]

# Where ComfyUI looks for the key to paid services.
API_KEY = "api_key_comfy_org"


@dataclass(frozen=True)
class Prompt:
    """A workflow as it is queued.

    Attributes:
        workflow: what ComfyUI runs.
        client_workflow: the same as the client knows it, as JSON: without the names of this job's
            folders.
        extra_data: sent to ComfyUI with it.
        folders: the folders below ComfyUI's output folder that its nodes write to.
    """

    workflow: Workflow
    client_workflow: str
    extra_data: dict[str, Any]
    folders: Sequence[str]


def make_prompt(
    job: Job, plan: Plan, defs: NodeDefs, folder: str, worker_key: str | None
) -> Prompt:
    """Make the prompt of a job.

    Args:
        job: the job.
        plan: its plan.
        defs: the node definitions of the ComfyUI that will run it.
        folder: the name of the job's own folders.
        worker_key: the worker's key for comfy.org, for jobs that bring none.

    Raises:
        InputError: the plan has findings, or a paid node has no key.
    """
    if plan.findings:
        raise refusal(plan.findings)
    needed = replace_save_nodes(without_idle(plan.workflow, defs), defs)
    workflow = isolate_outputs(needed, folder, defs)
    client_workflow = json.dumps(plan.workflow).replace(f"{folder}/", "")
    extra_data: dict[str, Any] = {
        **_key_for_paid_nodes(job, plan, defs, worker_key),
        "comfy_worker_graph": json.loads(client_workflow),
        "comfy_worker_folders": [folder],
    }
    if job.input.output.preview:
        extra_data["preview_method"] = "auto"
    return Prompt(workflow, client_workflow, extra_data, output_folders(workflow, folder))


def _key_for_paid_nodes(
    job: Job, plan: Plan, defs: NodeDefs, worker_key: str | None
) -> dict[str, str]:
    """Choose the key for comfy.org: the client's own, or the worker's if a node needs one."""
    paid = [node_id for node_id, node in plan.workflow.items() if defs[node["class_type"]].is_api]
    if not paid or API_KEY in job.extra_data:
        return dict(job.extra_data)
    if worker_key is None:
        class_type = plan.workflow[paid[0]]["class_type"]
        raise InvalidInput(
            f"node {paid[0]} ({class_type}) calls a paid service of comfy.org; "
            "send a key for it as "
            "comfy_org_api_key, or set COMFY_ORG_API_KEY on the endpoint",
            [
                {"node_id": node_id, "key": "comfy_org_api_key", "problem": "missing"}
                for node_id in paid
            ],
        )
    return {**job.extra_data, API_KEY: worker_key}
