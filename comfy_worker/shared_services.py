"""What all jobs of a worker share, made once from its settings.

Nothing here may touch the network volume in the main thread. A volume that hangs would hold it for
ever, and the fitness check, which reports such a volume, would never run.
"""

from __future__ import annotations

from comfy_common import paths
from comfy_worker.comfyui.gpu_turns import GpuTurns
from comfy_worker.comfyui.node_times import NodeTimes
from comfy_worker.comfyui.resources import ensure_disk, ensure_memory
from comfy_worker.comfyui.supervisor import ComfyUIInstance, ComfyUISupervisor
from comfy_worker.comfyui.workdirs import JobFolders
from comfy_worker.inputs.files import InputFiles
from comfy_worker.job import Job
from comfy_worker.logs import add_secret
from comfy_worker.models.catalog import listed_models
from comfy_worker.models.downloads import JobModels, ModelsOnDemand
from comfy_worker.planning.plan import PlanContext, PlanningRules
from comfy_worker.planning.templates import Template, Templates
from comfy_worker.response.deliver import Delivery, result_limit
from comfy_worker.response.job_uploader import job_uploader
from comfy_worker.response.s3 import S3Uploader
from comfy_worker.server_paths import ServerPaths
from comfy_worker.settings import Settings

__all__ = ["SharedServices", "worker_templates"]


class SharedServices:
    """The services that all jobs of a worker use; may be shared by threads.

    Args:
        settings: the worker's.
        comfyui: keeps ComfyUI running.
        templates: the named workflows.

    Attributes:
        settings: as above.
        comfyui: as above.
        templates: as above.
        folders: the jobs' own folders.
        models: downloads models, and keeps them for the jobs that use them.
        turns: the turns of the jobs on the GPU.
        rules: what the operator decides about all plans.
        paths: this machine's folders, by the names that clients read.
        node_times: how long nodes run on this worker.
    """

    def __init__(
        self, settings: Settings, comfyui: ComfyUISupervisor, templates: Templates
    ) -> None:
        self.settings = settings
        self.comfyui = comfyui
        self.templates = templates
        self.folders = JobFolders()
        self.models = ModelsOnDemand(settings)
        self.turns = GpuTurns(settings.prefetch_s)
        self.rules = PlanningRules(
            settings.sd_model, settings.models_on_demand, settings.max_batch_size, listed_models()
        )
        self.paths = _server_paths(settings)
        self.node_times = NodeTimes(paths.CACHE / "node_times.json")
        self._storage = S3Uploader(settings.bucket) if settings.bucket else None
        add_secret(*settings.secrets)

    def delivery(self, job: Job) -> Delivery:
        """Make the way that a job's files take. The job's own storage counts before the worker's.

        Raises:
            InvalidValue: the job's storage cannot be used, or there is none and the job needs it.
        """
        storage = self._storage
        if job.storage is not None:
            allow_private = self.settings.allow_private_urls
            storage = job_uploader(job.storage, allow_private=allow_private, stop=job.deadline)
        limit = self.result_limit(job)
        return Delivery(job.id, job.input.output, storage, limit, job.is_stream, job.deadline)

    def result_limit(self, job: Job) -> int:
        """How many bytes of JSON RunPod takes as a job's result."""
        return result_limit(job.id, self.settings.result_limit_mb)

    def plan_context(
        self,
        job: Job,
        template: Template | None,
        comfyui: ComfyUIInstance,
        folder: str,
        models: JobModels,
    ) -> PlanContext:
        """Gather what a job's plan is made from.

        Args:
            job: the job.
            template: the template that it runs; None: a custom workflow.
            comfyui: the ComfyUI that will run it.
            folder: the name of the job's own folders.
            models: downloads models for the job.
        """
        input_dir = comfyui.process.input_dir / folder
        files = InputFiles(input_dir, self.settings.input_limits, job.deadline)
        return PlanContext(job, template, comfyui, files, models, self.rules)

    def ensure_resources(self, comfyui: ComfyUIInstance) -> None:
        """Start no job that would fail half way for want of disk or memory.

        Raises:
            DiskFull: too little disk is free.
            OutOfMemory: too little memory is free.
        """
        ensure_disk(comfyui.process.runtime_dir, self.settings.min_free_disk_mb, self._drop_models)
        if self.folders.are_alone:  # the memory that another job uses will be free after it
            ensure_memory(self.settings.min_free_memory_mb, comfyui.free)

    def _drop_models(self, _missing_mb: float) -> None:
        """Delete the downloaded models that were not used for longest."""
        self.models.cache.drop_oldest_until_free(int(self.settings.min_free_disk_mb * 1e6))

    @property
    def comfy_org_key(self) -> str | None:
        """The worker's key for paid nodes."""
        key = self.settings.comfy_org_api_key
        return None if key is None else key.get_secret_value()

    @property
    def keeps_metadata(self) -> bool:
        """Whether pictures may hold the workflow that made them."""
        return "--disable-metadata" not in self.settings.comfy_args


def worker_templates(settings: Settings) -> Templates:
    """Return the templates of the repository and of the network volume.

    The folders are looked up for each job, so a new file counts at once.
    """
    return Templates(lambda: paths.workflow_folders(settings.volume))


def _server_paths(settings: Settings) -> ServerPaths:
    return ServerPaths(
        {
            paths.REPO: "worker",
            settings.volume: "volume",
            settings.models_cache_dir: "models",
            settings.models_dir: "models",
            settings.comfyui_dir: "ComfyUI",
        }
    )
