"""Reads the worker's settings from environment variables, once at start.

:class:`Settings` declares them. The reading, its errors and ``docs/settings.md`` follow from it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError

from comfy_common import hub_cache, paths
from comfy_common.sources import HUB
from comfy_worker.errors import InvalidSettings
from comfy_worker.input_limits import InputLimits
from comfy_worker.response_formats import ResponseFormat
from comfy_worker.s3_location import EXPIRY_LIMIT_S, Bucket, parse_endpoint

__all__ = ["Settings"]

# ComfyUI listens on loopback, on another port at each start, and jobs' files are in the worker's
# folders.
WORKER_FLAGS = (
    "--listen",
    "--port",
    "--input-directory",
    "--output-directory",
    "--temp-directory",
    "--user-directory",
)
# As short as this, a flag could be the beginning of many.
SHORTEST_FLAG = 4


def _upper(value: object) -> str:
    return str(value).upper()


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _hosts(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(value.lower().replace(",", " ").split())


def _model_hosts(value: object) -> object:
    # An empty variable means the default, so that no host at all needs a word.
    hosts = _hosts(value)
    if not isinstance(hosts, tuple):
        return hosts
    return tuple(host for host in hosts if host != "none")


def _flags(value: object) -> object:
    if not isinstance(value, str):
        return value
    words = tuple(shlex.split(value))
    for word in words:
        flag = word.partition("=")[0]
        if len(flag) >= SHORTEST_FLAG and _is_worker_flag(flag):
            raise PydanticCustomError("flag", "{flag} is the worker's own to set", {"flag": flag})
    return words


def _is_worker_flag(flag: str) -> bool:
    # ComfyUI accepts the beginning of a flag for the flag.
    return any(worker_flag.startswith(flag) for worker_flag in WORKER_FLAGS)


LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]


class Settings(BaseModel):
    """The settings of an endpoint; each field's alias is the environment variable."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    comfy_args: Annotated[tuple[str, ...], BeforeValidator(_flags)] = Field(
        (),
        alias="COMFY_ARGS",
        description="Extra command line flags for ComfyUI, quoted as in a shell",
    )
    comfy_log_level: LogLevel = Field(
        "INFO", alias="COMFY_LOG_LEVEL", description="Log level of ComfyUI"
    )
    comfy_readable_dirs: str = Field(
        "",
        alias="COMFY_READABLE_DIRS",
        description="Extra folders that nodes may read, separated by `:`. Nodes can always read "
        "ComfyUI, node packs, models and libraries",
    )
    comfy_boot_timeout_s: float = Field(
        300.0,
        alias="COMFY_BOOT_TIMEOUT_S",
        gt=0,
        description="How long ComfyUI may take to start, in seconds",
    )
    comfy_silence_limit_s: float = Field(
        30.0,
        alias="COMFY_SILENCE_LIMIT_S",
        gt=0,
        description="How long ComfyUI may leave HTTP requests unanswered before the worker "
        "restarts it, in seconds",
    )
    comfy_stall_limit_s: float = Field(
        300.0,
        alias="COMFY_STALL_LIMIT_S",
        gt=0,
        description="How long a running workflow may show no sign of life before the worker ends "
        "it, in seconds",
    )
    interrupt_limit_s: float = Field(
        5.0,
        alias="INTERRUPT_LIMIT_S",
        gt=0,
        description="How long a node may ignore an interrupt before the worker restarts ComfyUI, "
        "in seconds",
    )
    job_timeout_s: float = Field(
        590.0,
        alias="JOB_TIMEOUT_S",
        gt=0,
        description="Time limit of a job without `policy.executionTimeout`, in seconds. RunPod "
        "ends a job after 600 seconds unless the endpoint allows more: raise both limits together",
    )
    api_nodes: bool = Field(
        False,
        alias="API_NODES",
        description="Load ComfyUI's API nodes, which call the paid services of comfy.org",
    )
    comfy_org_api_key: SecretStr | None = Field(
        None,
        alias="COMFY_ORG_API_KEY",
        description="API key for paid nodes, used when a request brings none. You pay for these "
        "requests",
    )
    refresh_worker: bool = Field(
        False,
        alias="REFRESH_WORKER",
        description="Ask RunPod to replace the worker after every job. The worker then takes one "
        "job at a time",
    )
    min_free_disk_mb: float = Field(
        500,
        alias="MIN_FREE_DISK_MB",
        ge=0,
        description="Free disk space that a job needs to start, in megabytes",
    )
    min_free_memory_mb: float = Field(
        250,
        alias="MIN_FREE_MEMORY_MB",
        ge=0,
        description="Free host memory that a job needs to start, in megabytes. The worker unloads "
        "models first if memory is short",
    )
    concurrency: int | None = Field(
        None,
        alias="WORKER_CONCURRENCY",
        ge=1,
        le=32,
        description="How many jobs a worker takes at once. Not set: one, plus the next one "
        "shortly before the GPU is free",
    )
    prefetch_s: float = Field(
        2.0,
        alias="PREFETCH_S",
        ge=0,
        description="How long before the GPU is expected to be free the worker takes and prepares "
        "the next job, in seconds",
    )
    warmup: str = Field(
        "",
        alias="WARMUP",
        description="Name of a template, or of a workflow on the network volume, that the worker "
        "runs once, small, before it takes its first job. Its models are read from the disk while "
        "ComfyUI starts",
    )
    defer_imports: bool = Field(
        True,
        alias="DEFER_IMPORTS",
        description="Start ComfyUI without modules that few workflows need, such as "
        "`torch._dynamo` and `scipy.stats`, which are imported when a node uses them; and without "
        "Python's search for garbage until the nodes are loaded",
    )
    port_health: int | None = Field(
        None,
        alias="PORT_HEALTH",
        ge=1,
        le=65_535,
        description="Port on which the worker answers `GET /ping` (200 once it is ready, 204 "
        "before) and `GET /metrics` for Prometheus. Neither needs a key. Not set: none",
    )
    log_level: LogLevel = Field("INFO", alias="LOG_LEVEL", description="Log level of the worker")
    log_format: Literal["text", "json"] = Field(
        "text", alias="LOG_FORMAT", description="`json`: each log line is a JSON object"
    )
    sd_model: str = Field(
        "",
        alias="SD_MODEL",
        description="Checkpoint to use when a template's own checkpoint is not installed: a file "
        "in `checkpoints`, or a repository id from the list in docs/settings.md",
    )
    response_format: ResponseFormat = Field(
        "images",
        alias="RESPONSE_FORMAT",
        description="Format of the response when a request has no `response` key",
    )
    max_batch_size: int = Field(
        4,
        alias="MAX_BATCH_SIZE",
        ge=1,
        description="Maximum number of images that one request or workflow may ask for",
    )
    precision: Annotated[Literal["", "fp16", "bf16", "fp32", "fp8"], BeforeValidator(_lower)] = (
        Field(
            "",
            alias="PRECISION",
            description="Precision of the diffusion model and the text encoder: fp16, bf16, fp32 "
            "or fp8. Not set: ComfyUI chooses by model and GPU",
        )
    )
    enable_xformers: bool | None = Field(
        None,
        alias="ENABLE_XFORMERS",
        description="false: never use xformers. true: log a warning at start if xformers is "
        "missing. Not set: use xformers if it is installed",
    )
    hf_token: SecretStr | None = Field(
        None, alias="HF_TOKEN", description="Hugging Face token, for models that require one"
    )
    bucket_endpoint_url: str = Field(
        "",
        alias="BUCKET_ENDPOINT_URL",
        description="URL of the S3-compatible storage for results. It may include the bucket name",
    )
    bucket_access_key_id: str = Field(
        "", alias="BUCKET_ACCESS_KEY_ID", description="Access key of the storage"
    )
    bucket_secret_access_key: SecretStr | None = Field(
        None, alias="BUCKET_SECRET_ACCESS_KEY", description="Secret key of the storage"
    )
    bucket_name: str = Field(
        "",
        alias="BUCKET_NAME",
        description="Name of the bucket. Required if the endpoint URL does not include it",
    )
    bucket_prefix: str = Field(
        "", alias="BUCKET_PREFIX", description="Prefix of every key in the bucket"
    )
    bucket_url_expiry_s: int = Field(
        EXPIRY_LIMIT_S,
        alias="BUCKET_URL_EXPIRY_S",
        ge=1,
        le=EXPIRY_LIMIT_S,
        description="How long signed links to results stay valid, in seconds (at most seven days)",
    )
    bucket_public_url: str = Field(
        "",
        alias="BUCKET_PUBLIC_URL",
        pattern="^https?://",
        description="Public URL of the bucket. If set, links are unsigned and do not expire",
    )
    result_limit_mb: float | None = Field(
        None,
        alias="RESULT_LIMIT_MB",
        gt=0,
        description="Maximum size of a result in megabytes, including base64. Not set: RunPod's "
        "limits, 10 for `/run` and 20 for `/runsync`",
    )
    streaming: bool = Field(
        False,
        alias="STREAMING",
        description="Stream every job: progress, each finished output, then the result",
    )
    max_input_mb: float = Field(
        64,
        alias="MAX_INPUT_MB",
        gt=0,
        description="Maximum size of a file that a client sends, in megabytes",
    )
    max_input_pixels: int = Field(
        64_000_000,
        alias="MAX_INPUT_PIXELS",
        gt=0,
        le=178_956_970,  # Pillow's own
        description="Maximum number of pixels in an input image or a frame of an input video. All "
        "images of a job together may have four times as many",
    )
    max_inputs: int = Field(
        32,
        alias="MAX_INPUTS",
        ge=1,
        description="Maximum number of images, videos and audio files that a job may send",
    )
    input_timeout_s: float = Field(
        30.0,
        alias="INPUT_TIMEOUT_S",
        gt=0,
        description="Time limit for downloading all files that a job names by URL, in seconds",
    )
    allowed_url_hosts: Annotated[tuple[str, ...], BeforeValidator(_hosts)] = Field(
        (),
        alias="ALLOWED_URL_HOSTS",
        description="Hosts that input file URLs may use; `.example.com` allows its subdomains. "
        "Empty: every host",
    )
    allow_private_urls: bool = Field(
        False,
        alias="ALLOW_PRIVATE_URLS",
        description="Allow input file URLs and a job's `s3Config` to use private addresses, such "
        "as those of your network",
    )
    comfyui_dir: Path = Field(
        default_factory=lambda: paths.comfyui_dir({}),
        alias="COMFYUI_DIR",
        description="Folder of an existing ComfyUI, which is used unchanged. Not set: `.comfyui`",
    )
    models_dir: Path = Field(
        default_factory=lambda: paths.models_dir({}),
        alias="MODELS_DIR",
        description="Folder with your own `checkpoints`, `loras` ... The worker also searches the "
        "network volume",
    )

    volume: Path = Field(
        default_factory=lambda: paths.volume_dir({}),
        alias="VOLUME_DIR",
        description="Folder where the network volume is mounted. Not set: RunPod's "
        "`/runpod-volume`",
    )
    hub_caches: tuple[Path, ...] = Field(
        (),
        alias="HF_HUB_CACHE",
        description="Folder of a Hugging Face cache whose models are used where they lie. Not set: "
        "`hub` in `HF_HOME`, else `~/.cache/huggingface/hub`. RunPod's cached models on the "
        "network volume are used too",
    )
    models_cache_dir: Path = Field(
        default_factory=lambda: paths.models_cache_dir({}),
        alias="MODELS_CACHE_DIR",
        description="Folder for models that jobs download. Not set: `.cache/models`",
    )
    models_cache_gb: float = Field(
        20,
        alias="MODELS_CACHE_GB",
        gt=0,
        description="Maximum size of that folder, in gigabytes. The least recently used files are "
        "deleted first",
    )
    models_on_demand: bool = Field(
        False,
        alias="MODELS_ON_DEMAND",
        description="Download missing models of a template if its params file or `models.txt` has "
        "their URL",
    )
    models_allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_model_hosts)] = Field(
        ("huggingface.co", "civitai.com"),
        alias="MODELS_ALLOWED_HOSTS",
        description="Hosts from which jobs may download models; `.example.com` allows its "
        "subdomains, `none` allows no host",
    )
    models_safetensors_only: bool = Field(
        True,
        alias="MODELS_SAFETENSORS_ONLY",
        description="Accept only safetensors files from jobs. Other formats (`.ckpt`, `.pt`) may "
        "contain code",
    )
    civitai_token: SecretStr | None = Field(
        None,
        alias="CIVITAI_TOKEN",
        description="civitai.com token, for models that require one",
    )
    hf_endpoint: str = Field(
        HUB,
        alias="HF_ENDPOINT",
        pattern="^https?://",
        description="URL of the Hugging Face hub. Change it to use a mirror",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Args:
            environ: usually ``os.environ``; an empty value counts as not set.

        Raises:
            InvalidSettings: names every invalid variable.
        """
        known = {field.alias for field in cls.model_fields.values()}
        values: dict[str, object] = {
            key: value for key, value in environ.items() if key in known and value.strip()
        }
        values["COMFYUI_DIR"] = paths.comfyui_dir(environ)
        values["MODELS_DIR"] = paths.models_dir(environ)
        values["VOLUME_DIR"] = paths.volume_dir(environ)
        values["MODELS_CACHE_DIR"] = paths.models_cache_dir(environ)
        values["HF_HUB_CACHE"] = tuple(paths.hub_caches(environ))
        details = _storage_problems(values)
        try:
            settings = cls.model_validate(values)
            if not details:
                return settings
        except ValidationError as error:
            for problem in error.errors():
                name = str(problem["loc"][0])
                value = environ.get(name)
                details.append({"setting": name, "given": value, "problem": problem["msg"]})
        listed = "; ".join(f"{detail['setting']}: {detail['problem']}" for detail in details)
        raise InvalidSettings(f"correct or unset these environment variables: {listed}", details)

    @property
    def model_roots(self) -> tuple[Path, ...]:
        """The folders that hold models, searched in order after ComfyUI's own.

        Looks at the network volume, which may hang: do not call it in the main thread at start.
        """
        volume = paths.volume_model_roots(self.volume)
        cached = hub_cache.model_roots(self.hub_snapshots)
        return (self.models_dir, *volume, *cached, self.models_cache_dir)

    @property
    def hub_snapshots(self) -> list[hub_cache.Snapshot]:
        """The repositories in caches of Hugging Face. Looks at the network volume, as above."""
        return hub_cache.snapshots(self.hub_caches)

    @property
    def secrets(self) -> list[str]:
        """The values that must not appear in logs or answers."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]

    @property
    def input_limits(self) -> InputLimits:
        """The limits for the files of a job."""
        return InputLimits(
            max_files=self.max_inputs,
            max_mb=self.max_input_mb,
            max_pixels=self.max_input_pixels,
            timeout_s=self.input_timeout_s,
            allowed_hosts=self.allowed_url_hosts,
            allow_private=self.allow_private_urls,
        )

    @property
    def bucket(self) -> Bucket | None:
        """The storage for results; None if none is configured."""
        if self.bucket_secret_access_key is None:
            return None
        return Bucket(
            access_key_id=self.bucket_access_key_id,
            secret_access_key=self.bucket_secret_access_key,
            prefix=self.bucket_prefix,
            url_expiry_s=self.bucket_url_expiry_s,
            public_url=self.bucket_public_url,
            **parse_endpoint(self.bucket_endpoint_url, self.bucket_name),
        )


def _storage_problems(values: Mapping[str, object]) -> list[dict[str, object]]:
    """List the ``BUCKET_`` variables that are missing or wrong, if any of them is set."""
    # RunPod's Hub always sets BUCKET_URL_EXPIRY_S, also where there is no storage.
    set_names = values.keys() - {"BUCKET_URL_EXPIRY_S"}
    if not any(name.startswith("BUCKET_") for name in set_names):
        return []
    needed = ("BUCKET_ENDPOINT_URL", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY")
    problem = "is missing, while other BUCKET_ variables are set"
    missing = [name for name in needed if name not in values]
    problems: list[dict[str, object]] = [
        {"setting": name, "given": None, "problem": problem} for name in missing
    ]
    url = str(values.get("BUCKET_ENDPOINT_URL", ""))
    try:
        if url:
            parse_endpoint(url, str(values.get("BUCKET_NAME", "")))
    except ValueError as error:
        problems.append({"setting": "BUCKET_ENDPOINT_URL", "given": url, "problem": str(error)})
    return problems
