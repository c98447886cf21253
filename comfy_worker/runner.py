"""The walk of a job, in order: what is asked, which graph, filled, queued, watched, collected, encoded, delivered.

Read it top to bottom; each step lives in a module of its own.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from comfy_common import paths
from comfy_worker.comfyui.events import Event, Executed
from comfy_worker.comfyui.execution import Limits
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.progress import ProgressReport
from comfy_worker.comfyui.remaining import DurationMemory, GpuQueue, RemainingTime
from comfy_worker.comfyui.resources import ensure_disk, ensure_memory
from comfy_worker.comfyui.supervisor import ComfyUI, RunningComfyUI
from comfy_worker.comfyui.workdirs import JobFolders, make_folders
from comfy_worker.deadline import Clock, Stop
from comfy_worker.error_response import secrets_of, tell_failure
from comfy_worker.errors import (
    ComfyUIUnavailable,
    InvalidInput,
    InvalidValue,
    ModelNotFound,
)
from comfy_worker.imaging.processes import image_processes
from comfy_worker.inputs.files import InputFiles
from comfy_worker.logs import bound, conceal, concealed, job_secrets
from comfy_worker.models.catalog import listed_models, log_model_locations
from comfy_worker.models.downloads import JobModels, ModelsOnDemand
from comfy_worker.models.hub_aliases import find_checkpoint
from comfy_worker.planning.embedded_workflow import with_embedded_workflow
from comfy_worker.planning.planner import Plan, Planner, choose_template, missing_needs
from comfy_worker.planning.templates import Template, Templates
from comfy_worker.request.dialect_addons import without_hash
from comfy_worker.request.dialect_names import OPTIONS
from comfy_worker.request.dialects import KNOWN_WORDS, TranslatedInput, translate
from comfy_worker.request.graph_wrappers import secrets_within
from comfy_worker.request.s3_config import parse_s3_config
from comfy_worker.request.schema import JobInput, Output
from comfy_worker.response.builder import Outcome, Tell, json_size, validation
from comfy_worker.response.deliver import Delivery, result_limit
from comfy_worker.response.job_uploader import job_uploader
from comfy_worker.response.s3 import S3Uploader
from comfy_worker.response.schema import Result
from comfy_worker.response.shapes import model_list, options_answer, shape
from comfy_worker.server_paths import ServerPaths
from comfy_worker.settings import Settings
from comfy_worker.workflow.check.links import without_idle
from comfy_worker.workflow.check.preflight import is_stale, refusal
from comfy_worker.workflow.isolate import isolate_outputs, output_folders, replace_save_nodes

__all__ = ["JobRunner"]

log = logging.getLogger(__name__)

OPTIONS_DO_NOT_STAY = (
    "setOptions sets nothing for later requests, which may be other clients'; send override_settings with each"
)
# Where ComfyUI looks for the key to paid services.
KEY = "api_key_comfy_org"
# What is kept of a job's time for its error to arrive before RunPod ends it: this much, at most this share.
MARGIN_S = 10.0
MARGIN_SHARE = 0.1
# RunPod allows seven days.
LONGEST_MS = 1e12


def server_paths(settings: Settings) -> ServerPaths:
    """This machine's folders, by the names that clients read."""
    return ServerPaths(
        {
            paths.REPO: "worker",
            settings.volume: "volume",
            settings.models_cache_dir: "models",
            settings.models_dir: "models",
            settings.comfyui_dir: "ComfyUI",
        }
    )


def launch_options(settings: Settings) -> LaunchOptions:
    """How ComfyUI is started; looks at the network volume."""
    return LaunchOptions(
        comfyui_dir=settings.comfyui_dir,
        model_roots=settings.model_roots,
        custom_nodes=tuple(paths.custom_node_folders(settings.volume)),
        args=settings.comfy_args,
        log_level=settings.comfy_log_level,
        api_nodes=settings.api_nodes,
        boot_timeout_s=settings.comfy_boot_timeout_s,
        precision=settings.precision,
        xformers=settings.enable_xformers,
    )


def log_places(settings: Settings) -> None:
    """Log which models lie where; looks at the network volume."""
    log_model_locations(settings.comfyui_dir, settings.model_roots, settings.volume)


class JobRunner:
    """Runs jobs, each in the thread that calls; may be shared by threads."""

    def __init__(self, settings: Settings, comfyui: ComfyUI, templates: Templates) -> None:
        self._settings = settings
        self._comfyui = comfyui
        self._templates = templates
        self._storage = S3Uploader(settings.bucket) if settings.bucket else None
        self._folders = JobFolders()
        self._listed = listed_models()
        self._models = ModelsOnDemand(settings)
        self._durations = DurationMemory()
        self._gpu_queue = GpuQueue()
        self._paths = server_paths(settings)
        conceal(*settings.secrets)

    @classmethod
    @contextmanager
    def started(cls, settings: Settings) -> Iterator[JobRunner]:
        """A runner whose ComfyUI boots in the background and ends with the block."""
        # Nothing here may touch the network volume: one that hangs would hold the main thread for ever, and
        # the fitness check, which says so, would never run.
        comfyui = ComfyUI(
            lambda: launch_options(settings),
            Limits(settings.comfy_silence_limit_s, settings.comfy_stall_limit_s, settings.interrupt_limit_s),
        )
        comfyui.start()
        image_processes().start()
        templates = Templates(lambda: paths.workflow_folders(settings.volume))
        threading.Thread(target=log_places, args=[settings], name="places", daemon=True).start()
        try:
            yield cls(settings, comfyui, templates)
        finally:
            comfyui.close()
            image_processes().close()

    def run(
        self,
        job: Mapping[str, Any],
        cancelled: threading.Event,
        tell: Tell = lambda _update: None,
        release: Callable[[], None] = lambda: None,
    ) -> Any:
        """Run one job to its result or its error; never raises.

        Args:
            job: RunPod's ``{"id", "input", ...}``.
            cancelled: set by another thread to stop it.
            tell: gets its progress and, where the settings have it stream, its finished outputs.
            release: called when the GPU is free for another job, or is about to be.

        Returns:
            The result in the shape that was asked for, or ``{"error": "CODE: sentence", "code", "message",
            "details"}``; with ``refresh_worker`` where RunPod should start another worker.
        """
        with bound(job_id=str(job.get("id"))), job_secrets(*secrets_of(job), *secrets_within(job.get("input"))):
            began = time.monotonic()
            try:
                answer = self._answer(job, Stop(cancelled, self._time_limit_s(job)), tell, release)
                log.info("done in %d ms", (time.monotonic() - began) * 1000, extra={"action": "job.done"})
            except Exception as error:  # the outermost place: the client gets an answer and the worker goes on
                answer = tell_failure(error, self._paths)
            if self._comfyui.is_worn and isinstance(answer, dict):
                log.warning("asking for a fresh worker", extra={"action": "worker.refresh"})
                answer["refresh_worker"] = True
        return answer

    def _time_limit_s(self, job: Mapping[str, Any]) -> float:
        """How long a job may take: RunPod's own limit for it less some margin, else the setting."""
        policy = job.get("policy")
        limit_ms = policy.get("executionTimeout") if isinstance(policy, Mapping) else None
        if isinstance(limit_ms, bool) or not isinstance(limit_ms, (int, float)):
            return self._settings.job_timeout_s
        if not 0 < limit_ms <= LONGEST_MS:  # nor is NaN
            return self._settings.job_timeout_s
        limit_s = limit_ms / 1000
        return limit_s - min(MARGIN_S, limit_s * MARGIN_SHARE)

    def _answer(self, job: Mapping[str, Any], stop: Stop, tell: Tell, release: Callable[[], None]) -> Any:
        asked = translate(job.get("input"), stop.check)
        if asked.api_name in ("getModels", "getOptions", "setOptions"):
            return self._a1111_options(asked, stop)
        request = JobInput.read(asked.input, asked.client_words, KNOWN_WORDS, stop.check)
        request = with_embedded_workflow(request)
        most = self._settings.max_batch_size
        if request.batch_size is not None and request.batch_size > most:
            word = asked.client_words.get("batch_size", "batch_size")
            raise InvalidValue(
                f"{word} must be at most {most}, not {request.batch_size}: the endpoint's setting MAX_BATCH_SIZE",
                [{"key": word, "value": request.batch_size, "maximum": most}],
            )
        response = request.response or asked.response or self._settings.response_format
        clock = Clock(stop)

        def shaped(result: Result) -> Any:
            return shape(result, response, asked.raw_input)

        def walk() -> Any:
            return self._walk(
                job,
                asked,
                request,
                lambda result: shape(result, response, asked.raw_input),
                clock,
                stop,
                tell,
                release,
            )

        try:
            return walk()
        except ComfyUIUnavailable as error:
            if not error.try_again:
                raise
            log.warning("%s; the job is tried once more", error.log_text, extra={"action": "job.again"})
            return walk()

    def _a1111_options(self, asked: TranslatedInput, stop: Stop) -> Any:
        """What A1111's clients ask beside pictures."""
        installed = self._comfyui.ready(stop).defs["CheckpointLoaderSimple"].inputs["ckpt_name"].choices or ()
        if asked.api_name == "getModels":
            return model_list(installed)
        if asked.api_name == "getOptions":
            return options_answer(self._settings.sd_model)
        told = {name: asked.input[name] for name in OPTIONS if asked.input.get(name) is not None}
        values = {OPTIONS[name]: without_hash(value) for name, value in told.items()}
        JobInput.read(values, {key: name for name, key in OPTIONS.items()})
        if told.get("sd_model_checkpoint"):
            find_checkpoint(without_hash(told["sd_model_checkpoint"]), installed)
        return {"warnings": [OPTIONS_DO_NOT_STAY]}

    def _walk(
        self,
        job: Mapping[str, Any],
        asked: TranslatedInput,
        request: JobInput,
        shaped: Callable[[Result], Any],
        clock: Clock,
        stop: Stop,
        tell: Tell,
        release: Callable[[], None],
    ) -> Any:
        delivery = self._delivery(job, request.output, stop)
        template = choose_template(request, self._templates)

        def send(update: dict[str, Any]) -> None:
            if self._settings.streaming:
                delivery.streamed += json_size(update)
            tell(update)

        progress = ProgressReport(send if request.output.progress else lambda _update: None)
        with clock.stage("wait"):
            if not self._comfyui.is_up:
                progress.say("starting ComfyUI")
            comfyui = self._comfyui.ready(stop)
        brought = self._models.job(progress.say, stop)
        opened = self._folders.opened(comfyui.process.job_parents)
        # A job's folder is named to nobody, not in another job's error either.
        with comfyui.in_use(), opened as name, brought as models, concealed(name):
            self._make_room(comfyui)
            with clock.stage("prepare"):
                files = InputFiles(comfyui.process.input_dir / name, self._settings.input_limits, stop)
                plan = self._plan(asked, request, template, comfyui, files, models, stop)
                plan.warnings[:0] = asked.warnings
                if request.validate_only:
                    checked = isolate_outputs(plan.workflow, name, comfyui.defs)
                    limit = result_limit(str(job.get("id")), self._settings.result_limit_mb)
                    return validation(plan, checked, comfyui, limit)
                if plan.findings:
                    raise refusal(plan.findings)
                needed = without_idle(plan.workflow, comfyui.defs)
                workflow = isolate_outputs(replace_save_nodes(needed, comfyui.defs), name, comfyui.defs)
                make_folders(comfyui.process.output_dir, output_folders(workflow, name))
            # The graph as the client knows it: without the names of this job's folders.
            graph = json.dumps(plan.workflow).replace(f"{name}/", "")
            text = {} if "--disable-metadata" in self._settings.comfy_args else {"prompt": graph}
            outcome = Outcome(plan, comfyui.process, delivery, request.output, text, shaped)
            progress.begin(workflow, comfyui.defs)
            remaining = RemainingTime(workflow, self._durations)

            def follow(event: Event | None) -> None:
                progress.follow(event)
                remaining.follow(event)
                if remaining.seconds() < self._settings.prefetch_s:
                    release()
                if self._settings.streaming and isinstance(event, Executed):
                    outcome.tell(event, send)

            with clock.stage("execute"), self._gpu_queue.entered() as is_first:
                if is_first and remaining.whole_s < self._settings.prefetch_s:
                    release()
                extra_data = self._extra_data(asked, request, plan, comfyui)
                extra_data["comfy_worker_graph"] = json.loads(graph)
                extra_data["comfy_worker_folders"] = [name]
                executed = comfyui.execute(workflow, stop, on_event=follow, extra_data=extra_data)
            release()
            with clock.stage("collect"):
                return outcome.result(executed, clock, name)

    def _delivery(self, job: Mapping[str, Any], asked: Output, stop: Stop) -> Delivery:
        """How the job's files are to reach its client; the job's own storage counts before the worker's."""
        own = job.get("s3Config") or None
        job_id = str(job.get("id"))
        limit = result_limit(job_id, self._settings.result_limit_mb)
        storage = self._storage
        if own is not None:
            bucket = parse_s3_config(own)
            storage = job_uploader(bucket, allow_private=self._settings.allow_private_urls, stop=stop)
        return Delivery(job_id, asked, storage, limit, self._settings.streaming, stop)

    def _make_room(self, comfyui: RunningComfyUI) -> None:
        """Start no job that would fail for want of disk or memory half way."""
        floor_mb = self._settings.min_free_disk_mb
        kept = self._models.cache
        ensure_disk(
            comfyui.process.runtime_dir,
            floor_mb,
            lambda _missing_mb: kept.drop_oldest_until_free(int(floor_mb * 1e6)),
        )
        if self._folders.are_alone:  # what another job needs comes back by itself
            ensure_memory(self._settings.min_free_memory_mb, comfyui.free)

    def _extra_data(
        self, asked: TranslatedInput, request: JobInput, plan: Plan, comfyui: RunningComfyUI
    ) -> dict[str, Any]:
        """What goes with the prompt beside its graph."""
        extra_data: dict[str, Any] = dict(asked.extra_data)
        if request.output.preview:
            extra_data["preview_method"] = "auto"
        paid = [node_id for node_id, node in plan.workflow.items() if comfyui.defs[node["class_type"]].is_api]
        if paid and KEY not in extra_data:
            if self._settings.comfy_org_api_key is None:
                class_type = plan.workflow[paid[0]]["class_type"]
                raise InvalidInput(
                    f"node {paid[0]} ({class_type}) calls a paid service of comfy.org; send a key for it as "
                    "comfy_org_api_key, or set COMFY_ORG_API_KEY on the endpoint",
                    [{"node_id": node_id, "key": "comfy_org_api_key", "problem": "missing"} for node_id in paid],
                )
            extra_data[KEY] = self._settings.comfy_org_api_key.get_secret_value()
        return extra_data

    def _plan(
        self,
        asked: TranslatedInput,
        request: JobInput,
        template: Template | None,
        comfyui: RunningComfyUI,
        files: InputFiles,
        models: JobModels,
        stop: Stop,
    ) -> Plan:
        on_demand = self._settings.models_on_demand
        planner = Planner(
            request,
            template,
            installed=comfyui,
            sd_model=self._settings.sd_model,
            files=files,
            said=asked.client_words,
            listed=self._listed,
            models=models,
            on_demand=on_demand,
            max_batch_size=self._settings.max_batch_size,
            check=stop.check,
        )
        try:
            plan = planner.plan()
            if not is_stale(plan.findings):
                return plan
        except ModelNotFound:
            pass
        comfyui.refresh()  # the file may have just arrived
        plan = planner.plan()
        if (
            on_demand
            and not request.validate_only
            and (needs := missing_needs(plan.findings, template, self._listed))
        ):
            models.fetch_needs(needs)
            comfyui.refresh()
            plan = planner.plan()
        return plan
