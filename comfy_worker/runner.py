"""Runs one job from its input to its result. Each step has a module of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from comfy_worker.comfyui.progress import ProgressReport
from comfy_worker.comfyui.supervisor import ComfyUIInstance, ComfyUISupervisor
from comfy_worker.comfyui.workdirs import make_folders
from comfy_worker.error_response import error_response
from comfy_worker.errors import ComfyUIUnavailable
from comfy_worker.job import Job, secrets_in
from comfy_worker.job_record import JobRecord
from comfy_worker.logs import bound, job_secrets, temporary_secrets
from comfy_worker.metrics import worker_metrics
from comfy_worker.planning.planner import prepare
from comfy_worker.planning.prompt import make_prompt
from comfy_worker.planning.templates import Templates, choose_template
from comfy_worker.prompt_run import PromptRun
from comfy_worker.response.a1111_options import answer_options_call
from comfy_worker.response.client_updates import ClientUpdates
from comfy_worker.response.results import ResultBuilder
from comfy_worker.response.validation import validation
from comfy_worker.settings import Settings
from comfy_worker.shared_services import SharedServices

__all__ = ["JobRunner"]

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], None]
Release = Callable[[], None]


class JobRunner:
    """Runs jobs, each in the thread that calls; may be shared by threads."""

    def __init__(
        self, settings: Settings, comfyui: ComfyUISupervisor, templates: Templates
    ) -> None:
        self._services = SharedServices(settings, comfyui, templates)

    def run(
        self,
        envelope: Mapping[str, Any],
        cancelled: threading.Event,
        send: Send = lambda _update: None,
        release: Release = lambda: None,
    ) -> Any:
        """Run one job to its result or its error; never raises.

        Args:
            envelope: RunPod's ``{"id", "input", ...}``.
            cancelled: set by another thread to stop the job.
            send: gets the job's progress and, if the settings make it a stream, its finished
                outputs.
            release: called when the GPU is free for another job, or is about to be.

        Returns:
            The result in the shape that the client asked for, or ``{"error": "CODE: sentence",
            "code", "message", "details"}``; with ``refresh_worker`` if RunPod should start another
            worker.
        """
        services = self._services
        with bound(job_id=str(envelope.get("id"))), job_secrets(*secrets_in(envelope)):
            began, record = time.monotonic(), JobRecord()
            try:
                answer = self._answer(envelope, cancelled, record, send, release)
            except Exception as error:  # noqa: BLE001 (outermost: the client gets an answer)
                answer = error_response(error, services.paths)
                record.code = answer["code"]
            duration_ms = (time.monotonic() - began) * 1000
            record.write(duration_ms)
            worker_metrics.count(record, duration_ms)
            if services.comfyui.needs_fresh_worker and isinstance(answer, dict):
                log.warning("asking for a fresh worker", extra={"action": "worker.refresh"})
                answer["refresh_worker"] = True
        return answer

    def _answer(
        self,
        envelope: Mapping[str, Any],
        cancelled: threading.Event,
        record: JobRecord,
        send: Send,
        release: Release,
    ) -> Any:
        services = self._services
        job = Job.parse(envelope, services.settings, cancelled)
        record.stages = job.timer.stages
        if job.options_call is not None:
            defs = services.comfyui.ready(job.deadline).defs
            return answer_options_call(job, defs, services.settings.sd_model)
        run = _JobRun(services, job, record, send, release)
        try:
            return run.walk()
        except ComfyUIUnavailable as error:
            if not error.try_again:
                raise
            log.warning(
                "%s; the job is tried once more", error.log_text, extra={"action": "job.again"}
            )
            services.comfyui.wait_until_settled(job.deadline)
            return run.walk()


class _JobRun:
    """One job on its way through the worker.

    Args:
        services: the worker's.
        job: the job.
        record: gets what the log says about it.
        send: gets its updates.
        release: called when the next job is wanted.
    """

    def __init__(
        self,
        services: SharedServices,
        job: Job,
        record: JobRecord,
        send: Send,
        release: Release,
    ) -> None:
        self._services = services
        self._job = job
        self._record = record
        self._delivery = services.delivery(job)
        self._template = choose_template(job.input, services.templates)
        self._updates = ClientUpdates(job, self._delivery, send)
        self._release = release

    def walk(self) -> Any:
        """Take all steps, on the ComfyUI that is up now."""
        job, services = self._job, self._services
        progress = ProgressReport(self._updates.send_progress, services.node_times)
        comfyui = self._wait_for_comfyui(progress)
        opened = services.folders.opened(
            comfyui.process.job_parents, comfyui.client.files_of_other_clients
        )
        downloads = services.models.job(progress.say, job.deadline)
        # The folder's name is a secret: with it another job could read what is there.
        with comfyui.in_use(), opened as folder, downloads as models, temporary_secrets(folder):
            services.ensure_resources(comfyui)
            with job.timer.stage("prepare"):
                plan = prepare(services.plan_context(job, self._template, comfyui, folder, models))
                if job.input.validate_only:
                    return validation(plan, comfyui, folder, services.result_limit(job))
                prompt = make_prompt(job, plan, comfyui.defs, folder, services.comfy_org_key)
                make_folders(comfyui.process.output_dir, prompt.folders)
            metadata = {"prompt": prompt.client_workflow} if services.keeps_metadata else {}
            results = ResultBuilder(
                job, plan, comfyui.process, self._delivery, metadata, self._record
            )
            with (
                job.timer.stage("execute"),
                services.turns.taken(prompt.workflow, job.deadline, self._release) as turn,
            ):
                run = PromptRun(prompt, comfyui, progress, self._updates, results, turn)
                executed = run.execute(job.deadline)
            with job.timer.stage("collect"):
                return results.build(executed, folder)

    def _wait_for_comfyui(self, progress: ProgressReport) -> ComfyUIInstance:
        comfyui = self._services.comfyui
        with self._job.timer.stage("wait"):
            if not comfyui.is_up:
                progress.say("starting ComfyUI")
            return comfyui.ready(self._job.deadline)
