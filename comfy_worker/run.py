"""The walk of a job, in order: what is asked, which graph, filled, queued, watched, collected, encoded.

Read it top to bottom; each step lives in a module of its own.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from comfy_setup import paths
from comfy_worker.comfyui.execution import ExecutionResult
from comfy_worker.comfyui.neighbour import ComfyUI, RunningComfyUI
from comfy_worker.comfyui.process import LaunchOptions
from comfy_worker.errors import InputError, InternalError, ModelNotFound, NoOutput, WorkerError, WorkflowRefused
from comfy_worker.graph.check import is_stale, refusal
from comfy_worker.graph.prefix import into_folder
from comfy_worker.graph.workflow import Workflow
from comfy_worker.job import JobInput, Result, Timings, Validation
from comfy_worker.logs import bound
from comfy_worker.model_list import listed_models
from comfy_worker.outputs.collect import find_files, find_texts
from comfy_worker.outputs.encode import encode
from comfy_worker.plan import Plan, Planner, choose_template
from comfy_worker.settings import Settings
from comfy_worker.templates import Template, Templates

__all__ = ["JobRunner"]

log = logging.getLogger(__name__)


class JobRunner:
    """Runs jobs, each in the thread that calls; may be shared by threads."""

    def __init__(self, settings: Settings, comfyui: ComfyUI, templates: Templates) -> None:
        self._settings = settings
        self._comfyui = comfyui
        self._templates = templates
        self._listed = listed_models()

    @classmethod
    @contextmanager
    def started(cls, settings: Settings) -> Iterator[JobRunner]:
        """A runner whose ComfyUI boots in the background and ends with the block."""
        comfyui = ComfyUI(
            LaunchOptions(
                comfyui_dir=settings.comfyui_dir,
                model_roots=settings.model_roots,
                custom_nodes=(paths.CUSTOM_NODES,),
                args=settings.comfy_args,
                log_level=settings.comfy_log_level,
                api_nodes=settings.api_nodes,
                boot_timeout_s=settings.comfy_boot_timeout_s,
            )
        )
        comfyui.start()
        try:
            yield cls(settings, comfyui, Templates(paths.workflow_folders()))
        finally:
            comfyui.close()

    def run(self, job: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
        """Run one job to its result or its error; never raises.

        Args:
            job: RunPod's ``{"id", "input", ...}``.
            cancelled: set by another thread to stop it.

        Returns:
            The result, or ``{"error": "CODE: sentence", "details": [...]}``.
        """
        with bound(job_id=str(job.get("id"))):
            began = time.monotonic()
            try:
                answer = self._walk(job.get("input"), cancelled).model_dump(exclude_none=True)
                log.info("done in %d ms", (time.monotonic() - began) * 1000, extra={"action": "job.done"})
            except WorkerError as error:
                # What a client wrote may be in the sentence of an input error.
                told = error.code if isinstance(error, (InputError, WorkflowRefused)) else f"{error.code}: {error}"
                log.warning("%s", told, extra={"action": "job.failed"})
                log.debug("%s", error, extra={"action": "job.error"})
                answer = error.to_result()
            except (
                Exception
            ):  # the outermost place: whatever it is, the client gets an answer and the worker goes on
                log.exception("fault of the worker", extra={"action": "job.fault"})
                answer = InternalError("the worker made a mistake; its log has the traceback").to_result()
        return answer

    def _walk(self, value: object, cancelled: threading.Event) -> Result | Validation:
        clock = _Clock()
        request = JobInput.read(value)
        template = choose_template(request, self._templates)
        with clock.stage("wait"):
            comfyui = self._comfyui.ready(cancelled)
        with _job_folders(comfyui) as name:
            with clock.stage("prepare"):
                plan = self._plan(request, template, comfyui, name)
                workflow = into_folder(plan.workflow, name)
            if request.validate_only:
                return _validation(plan, workflow, comfyui)
            if plan.findings:
                raise refusal(plan.findings)
            with clock.stage("execute"):
                executed = comfyui.execute(workflow, cancelled)
            with clock.stage("collect"):
                return _result(plan, executed, comfyui, clock)

    def _plan(self, request: JobInput, template: Template | None, comfyui: RunningComfyUI, name: str) -> Plan:
        planner = Planner(
            request,
            template,
            installed=comfyui,
            sd_model=self._settings.sd_model,
            folder=comfyui.process.input_dir / name,
            listed=self._listed,
        )
        try:
            plan = planner.plan()
            if not is_stale(plan.findings):
                return plan
        except ModelNotFound:
            pass
        comfyui.refresh()  # the file may have just arrived
        return planner.plan()


class _Clock:
    """How long each stage of a job took."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}
        self._began = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.stages[name] = round((time.monotonic() - began) * 1000)

    def total_ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)


@contextmanager
def _job_folders(comfyui: RunningComfyUI) -> Iterator[str]:
    """A name, not to be guessed, for the job's own folders; they are removed with all that is in them."""
    name = uuid.uuid4().hex
    try:
        yield name
    finally:
        for parent in (comfyui.process.input_dir, comfyui.process.output_dir):
            shutil.rmtree(parent / name, ignore_errors=True)


def _validation(plan: Plan, workflow: Workflow, comfyui: RunningComfyUI) -> Validation:
    """What a job would be; where nothing was found, ComfyUI is asked as well."""
    needs = [
        {**asdict(need), "installed": comfyui.model_path(need.folder, need.file) is not None}
        for need in plan.needs
    ]
    return Validation(
        workflow=workflow,
        name=plan.name,
        seed=plan.seed,
        parameters=plan.parameters,
        roles=plan.roles.outline(),
        needs=needs,
        findings=list(plan.findings) or comfyui.client.validate(workflow),
        warnings=plan.warnings,
    )


def _result(plan: Plan, executed: ExecutionResult, comfyui: RunningComfyUI, clock: _Clock) -> Result:
    """Collect what the workflow made; what it only previewed counts where it made nothing else."""
    process = comfyui.process
    files = find_files(executed.outputs, {"output": process.output_dir, "temp": process.temp_dir})
    try:
        texts = find_texts(executed.outputs)
        wanted = [file for file in files if file.type == "output"] or files
        if not wanted and not texts:
            raise NoOutput("the workflow ended well but saved nothing; end it in a node such as SaveImage")
        media = encode(wanted, plan.seed)
    finally:
        for file in files:
            file.path.unlink(missing_ok=True)
    return Result(
        **{"images": [], **media},
        texts=texts or None,
        workflow=plan.name,
        seed=plan.seed,
        parameters=plan.parameters,
        timings=Timings(stages={**clock.stages, "total": clock.total_ms()}, nodes=executed.node_ms),
        warnings=plan.warnings,
    )
