"""Every environment variable of the worker, read once at start and handed down.

One declaration: the reading, its errors and ``docs/settings.md`` all follow from :class:`Settings`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError

from comfy_common import paths
from comfy_common.sources import HUB
from comfy_worker.errors import InvalidSettings
from comfy_worker.input_limits import InputLimits
from comfy_worker.response_formats import ResponseFormat
from comfy_worker.s3_location import EXPIRY_LIMIT_S, Bucket, parse_endpoint

__all__ = ["Settings"]

LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda v: str(v).upper())]


# ComfyUI listens on loopback, on another port at each start, and all files of jobs lie in the worker's folders.
OURS = ("--listen", "--port", "--input-directory", "--output-directory", "--temp-directory", "--user-directory")


def _flags(text: object) -> object:
    words = tuple(shlex.split(text)) if isinstance(text, str) else text
    for word in words if isinstance(words, tuple) else ():
        # ComfyUI takes a flag's beginning for the flag.
        flag = str(word).partition("=")[0]
        if len(flag) > 3 and any(one.startswith(flag) for one in OURS):
            raise PydanticCustomError("flag", "{flag} is the worker's own to set", {"flag": flag})
    return words


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


def _hosts(text: object) -> object:
    return tuple(text.lower().replace(",", " ").split()) if isinstance(text, str) else text


class Settings(BaseModel):
    """What the operator of an endpoint can set; each field's alias is the environment variable."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    comfy_args: Annotated[tuple[str, ...], BeforeValidator(_flags)] = Field(
        (), alias="COMFY_ARGS", description="Further command line flags for ComfyUI, quoted as in a shell"
    )
    comfy_log_level: LogLevel = Field(
        "INFO", alias="COMFY_LOG_LEVEL", description="How much of ComfyUI's own log is written"
    )
    comfy_readable_dirs: str = Field(
        "",
        alias="COMFY_READABLE_DIRS",
        description="Folders that nodes may read beside those of ComfyUI, its packs, models and libraries, "
        "parted by `:`",
    )
    comfy_boot_timeout_s: float = Field(
        300.0, alias="COMFY_BOOT_TIMEOUT_S", gt=0, description="How long ComfyUI may take to start, in seconds"
    )
    comfy_silence_limit_s: float = Field(
        30.0,
        alias="COMFY_SILENCE_LIMIT_S",
        gt=0,
        description="How long ComfyUI may leave HTTP unanswered before it is started again, in seconds",
    )
    comfy_stall_limit_s: float = Field(
        300.0,
        alias="COMFY_STALL_LIMIT_S",
        gt=0,
        description="How long a running workflow may show no sign of life before it is ended, in seconds",
    )
    interrupt_limit_s: float = Field(
        5.0,
        alias="INTERRUPT_LIMIT_S",
        gt=0,
        description="How long a node may ignore that its job must end before ComfyUI is started again, in seconds",
    )
    job_timeout_s: float = Field(
        590.0,
        alias="JOB_TIMEOUT_S",
        gt=0,
        description="How long a job may take that brings no `policy.executionTimeout`, in seconds; RunPod ends it "
        "after 600 unless the endpoint allows more: raise both",
    )
    api_nodes: bool = Field(
        False,
        alias="API_NODES",
        description="Whether ComfyUI loads nodes that call the paid services of comfy.org",
    )
    comfy_org_api_key: SecretStr | None = Field(
        None,
        alias="COMFY_ORG_API_KEY",
        description="Key that pays for such nodes where a request brings none; the bill is yours",
    )
    refresh_worker: bool = Field(
        False,
        alias="REFRESH_WORKER",
        description="Whether RunPod is to replace the worker after every job; it then takes one job at a time",
    )
    min_free_disk_mb: float = Field(
        500,
        alias="MIN_FREE_DISK_MB",
        ge=0,
        description="How much disk must be free before a job starts, in megabytes",
    )
    min_free_memory_mb: float = Field(
        250,
        alias="MIN_FREE_MEMORY_MB",
        ge=0,
        description="How much host memory must be free before a job starts, in megabytes; models go first",
    )
    concurrency: int | None = Field(
        None,
        alias="WORKER_CONCURRENCY",
        ge=1,
        le=32,
        description="Jobs that a worker takes at once; not set: one, and the next when the GPU is about to be "
        "free",
    )
    prefetch_s: float = Field(
        2.0,
        alias="PREFETCH_S",
        ge=0,
        description="How long before the GPU is free the next job is taken and prepared, in seconds, as far as "
        "that can be foreseen",
    )
    log_level: LogLevel = Field("INFO", alias="LOG_LEVEL", description="How much of the worker's log is written")
    sd_model: str = Field(
        "",
        alias="SD_MODEL",
        description="Checkpoint that stands in where a template's own is not installed: a file in `checkpoints`, "
        "or a hub id that docs/settings.md lists",
    )
    response_format: ResponseFormat = Field(
        "images",
        alias="RESPONSE_FORMAT",
        description="Shape of the answer where a request does not name one by `response`",
    )
    max_batch_size: int = Field(
        4,
        alias="MAX_BATCH_SIZE",
        ge=1,
        description="The most pictures that a request or its graph may ask for at once",
    )
    precision: Annotated[Literal["", "fp16", "bf16", "fp32", "fp8"], BeforeValidator(_lower)] = Field(
        "",
        alias="PRECISION",
        description="fp16, bf16, fp32 or fp8: what the diffusion model and the text encoder run in; not set: "
        "ComfyUI chooses by model and GPU",
    )
    enable_xformers: bool | None = Field(
        None,
        alias="ENABLE_XFORMERS",
        description="false: ComfyUI does without xformers; true: a warning at start where it is not installed; "
        "not set: it is used where it is installed",
    )
    hf_token: SecretStr | None = Field(
        None, alias="HF_TOKEN", description="Token for models that Hugging Face gives only to those who have one"
    )
    bucket_endpoint_url: str = Field(
        "",
        alias="BUCKET_ENDPOINT_URL",
        description="S3-compatible storage that results are put into; the URL may name the bucket too",
    )
    bucket_access_key_id: str = Field("", alias="BUCKET_ACCESS_KEY_ID", description="Its access key")
    bucket_secret_access_key: SecretStr | None = Field(
        None, alias="BUCKET_SECRET_ACCESS_KEY", description="Its secret key"
    )
    bucket_name: str = Field(
        "", alias="BUCKET_NAME", description="Its bucket; needed where the endpoint URL names none"
    )
    bucket_prefix: str = Field("", alias="BUCKET_PREFIX", description="What every key in the bucket begins with")
    bucket_url_expiry_s: int = Field(
        EXPIRY_LIMIT_S,
        alias="BUCKET_URL_EXPIRY_S",
        ge=1,
        le=EXPIRY_LIMIT_S,
        description="How long the links to results are good, in seconds, at most seven days",
    )
    bucket_public_url: str = Field(
        "",
        alias="BUCKET_PUBLIC_URL",
        pattern="^https?://",
        description="Where the bucket is open to all; links are then not signed, and do not expire",
    )
    result_limit_mb: float | None = Field(
        None,
        alias="RESULT_LIMIT_MB",
        gt=0,
        description="How large a result may be, base64 counted; otherwise RunPod's 10, and 20 for `/runsync`",
    )
    streaming: bool = Field(
        False,
        alias="STREAMING",
        description="Whether every job is a stream of its progress, its finished outputs and its result",
    )
    max_input_mb: float = Field(
        64, alias="MAX_INPUT_MB", gt=0, description="How large a file that a client sends may be, in megabytes"
    )
    max_input_pixels: int = Field(
        64_000_000,
        alias="MAX_INPUT_PIXELS",
        gt=0,
        le=178_956_970,  # Pillow's own
        description="How many pixels such a picture, or a frame of such a video, may have; all pictures of a job "
        "four times as many",
    )
    max_inputs: int = Field(
        32, alias="MAX_INPUTS", ge=1, description="How many pictures, videos and sounds a job may send"
    )
    input_timeout_s: float = Field(
        30.0,
        alias="INPUT_TIMEOUT_S",
        gt=0,
        description="How long all files that a job names by URL may take to arrive, in seconds",
    )
    allowed_url_hosts: Annotated[tuple[str, ...], BeforeValidator(_hosts)] = Field(
        (),
        alias="ALLOWED_URL_HOSTS",
        description="The hosts that such a URL may name, `.example.com` for all below it; empty: every host",
    )
    allow_private_urls: bool = Field(
        False,
        alias="ALLOW_PRIVATE_URLS",
        description="Whether such a URL, or a job's `s3Config`, may lead to addresses that are not public, such "
        "as those of your network",
    )
    comfyui_dir: Path = Field(
        default_factory=lambda: paths.comfyui_dir({}),
        alias="COMFYUI_DIR",
        description="A ComfyUI that is already there, used as it is; otherwise `.comfyui`",
    )
    models_dir: Path = Field(
        default_factory=lambda: paths.models_dir({}),
        alias="MODELS_DIR",
        description="A folder with `checkpoints`, `loras` ... of its own; the network volume's are found anyway",
    )

    volume: Path = Field(
        default_factory=lambda: paths.volume_dir({}),
        alias="VOLUME_DIR",
        description="Where the network volume is mounted; otherwise RunPod's `/runpod-volume`",
    )
    models_cache_dir: Path = Field(
        default_factory=lambda: paths.models_cache_dir({}),
        alias="MODELS_CACHE_DIR",
        description="Where models are kept that were fetched because a job asked; otherwise `.cache/models`",
    )
    models_cache_gb: float = Field(
        20,
        alias="MODELS_CACHE_GB",
        gt=0,
        description="How many gigabytes of them are kept; the least recently used go first",
    )
    models_on_demand: bool = Field(
        False,
        alias="MODELS_ON_DEMAND",
        description="Whether models are fetched that a template lacks and that its params or `models.txt` name",
    )
    models_allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_hosts)] = Field(
        ("huggingface.co", "civitai.com"),
        alias="MODELS_ALLOWED_HOSTS",
        description="The hosts a job may bring models from, `.example.com` for all below it; `none` for none",
    )
    models_safetensors_only: bool = Field(
        True,
        alias="MODELS_SAFETENSORS_ONLY",
        description="Whether a job may bring no other formats; a `.ckpt` or `.pt` file may hold programs",
    )
    civitai_token: SecretStr | None = Field(
        None,
        alias="CIVITAI_TOKEN",
        description="Token for what civitai.com gives only to those who have one",
    )
    hf_endpoint: str = Field(
        HUB,
        alias="HF_ENDPOINT",
        pattern="^https?://",
        description="Where the Hugging Face hub is, for a mirror",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Args:
            environ: usually ``os.environ``; an empty value counts as not set.

        Raises:
            InvalidSettings: names every variable that makes no sense, all together.
        """
        known = {field.alias for field in cls.model_fields.values()}
        values: dict[str, object] = {
            key: value for key, value in environ.items() if key in known and value.strip()
        }
        values["COMFYUI_DIR"] = paths.comfyui_dir(environ)
        values["MODELS_DIR"] = paths.models_dir(environ)
        values["VOLUME_DIR"] = paths.volume_dir(environ)
        values["MODELS_CACHE_DIR"] = paths.models_cache_dir(environ)
        details = _storage_problems(values)
        try:
            settings = cls.model_validate(values)
            if not details:
                return settings
        except ValidationError as error:
            details += [
                {"setting": str(e["loc"][0]), "given": environ.get(str(e["loc"][0])), "problem": e["msg"]}
                for e in error.errors()
            ]
        listed = "; ".join(f"{detail['setting']}: {detail['problem']}" for detail in details)
        raise InvalidSettings(f"set these environment variables right, or unset them: {listed}", details)

    @property
    def model_roots(self) -> tuple[Path, ...]:
        """The folders that hold models, searched in order after ComfyUI's own.

        Looks at the network volume, which may hang: the main thread must not ask for it at start.
        """
        volume = paths.volume_model_roots(self.volume)
        return (self.models_dir, *volume, self.models_cache_dir)

    @property
    def secrets(self) -> list[str]:
        """The values that nobody may see."""
        given = (getattr(self, name) for name in type(self).model_fields)
        return [value.get_secret_value() for value in given if isinstance(value, SecretStr)]

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
        """The storage that is configured."""
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
    """What is wrong with the ``BUCKET_`` variables together: storage is configured in full, or not at all."""
    # How long links are good says nothing of whether there is storage; RunPod's Hub always sets it.
    if not any(name.startswith("BUCKET_") for name in values.keys() - {"BUCKET_URL_EXPIRY_S"}):
        return []
    needed = ("BUCKET_ENDPOINT_URL", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY")
    problem = "is missing, while other BUCKET_ variables are set"
    missing: list[dict[str, object]] = [
        {"setting": name, "given": None, "problem": problem} for name in needed if name not in values
    ]
    url = str(values.get("BUCKET_ENDPOINT_URL", ""))
    try:
        if url:
            parse_endpoint(url, str(values.get("BUCKET_NAME", "")))
    except ValueError as error:
        missing.append({"setting": "BUCKET_ENDPOINT_URL", "given": url, "problem": str(error)})
    return missing
