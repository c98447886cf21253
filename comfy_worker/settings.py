"""Every environment variable of the worker, read once at start and handed down.

One declaration: the reading, its errors and ``docs/settings.md`` all follow from :class:`Settings`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from comfy_setup import paths
from comfy_worker.errors import InvalidSettings

__all__ = ["Settings"]

LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda v: str(v).upper())]


def _words(text: object) -> object:
    return tuple(shlex.split(text)) if isinstance(text, str) else text


class Settings(BaseModel):
    """What the operator of an endpoint can set; each field's alias is the environment variable."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    comfy_args: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        (), alias="COMFY_ARGS", description="Further command line flags for ComfyUI, quoted as in a shell"
    )
    comfy_log_level: LogLevel = Field(
        "INFO", alias="COMFY_LOG_LEVEL", description="How much of ComfyUI's own log is written"
    )
    comfy_boot_timeout_s: float = Field(
        300.0, alias="COMFY_BOOT_TIMEOUT_S", gt=0, description="How long ComfyUI may take to start, in seconds"
    )
    api_nodes: bool = Field(
        False,
        alias="API_NODES",
        description="Whether ComfyUI loads nodes that call the paid services of comfy.org",
    )
    concurrency: int = Field(
        2,
        alias="WORKER_CONCURRENCY",
        ge=1,
        le=32,
        description="Jobs that a worker takes at once; the next one is fetched and prepared while one runs",
    )
    log_level: LogLevel = Field("INFO", alias="LOG_LEVEL", description="How much of the worker's log is written")
    sd_model: str = Field(
        "",
        alias="SD_MODEL",
        description="Checkpoint that stands in where a template's own is not installed: a file in `checkpoints`",
    )
    comfyui_dir: Path = Field(
        default_factory=lambda: paths.comfyui_dir({}),
        alias="COMFYUI_DIR",
        description="A ComfyUI that is already there, used as it is; otherwise `.comfyui`",
    )
    model_roots: tuple[Path, ...] = Field(
        default_factory=lambda: tuple(paths.model_roots({})),
        alias="MODELS_DIR",
        description="A folder with `checkpoints`, `loras` ... of its own; the network volume's are found anyway",
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
        values["MODELS_DIR"] = tuple(paths.model_roots(environ))
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            details = [
                {"setting": str(e["loc"][0]), "given": environ.get(str(e["loc"][0])), "problem": e["msg"]}
                for e in error.errors()
            ]
        listed = "; ".join(f"{detail['setting']}: {detail['problem']}" for detail in details)
        raise InvalidSettings(f"set these environment variables right, or unset them: {listed}", details)
