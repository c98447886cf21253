"""Declares the fields of a job's result."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    Field,
)


class Media(BaseModel):
    """One file that a workflow made."""

    filename: str = Field(description="ComfyUI's file name")
    type: str = Field(description="`base64` or `s3_url`")
    data: str = Field(description="the file as base64, or a link to it")
    mime_type: str = Field(description="detected from the content, such as `image/png`")
    node_id: str = Field(description="the node that saved the file")
    bytes: int = Field(description="size of the file")
    width: int | None = Field(None, description="width of an image, in pixels")
    height: int | None = Field(None, description="height of an image, in pixels")
    seed: int | None = Field(None, description="the seed that the image was made with")


class Text(BaseModel):
    """One text that a node showed."""

    type: str = Field("text", description="`text`")
    data: str = Field(description="the text")
    mime_type: str = Field("text/plain", description="`text/plain`")
    node_id: str = Field(description="the node that showed the text")
    bytes: int = Field(description="size of the text in UTF-8")


class Timings(BaseModel):
    """The durations of a job's stages and nodes, in milliseconds."""

    stages: dict[str, int] = Field(
        description="milliseconds per stage: `wait` (for ComfyUI to start), `prepare`, `execute` "
        "(including ComfyUI's queue), `total`"
    )
    nodes: dict[str, int] = Field(
        description="milliseconds per node id; cached nodes do not run and are not listed"
    )


class Result(BaseModel):
    """The result of a finished job. Empty lists are left out, except ``images``."""

    images: list[Media] = Field(description="images and animations")
    videos: list[Media] | None = Field(None, description="MP4, WebM")
    audio: list[Media] | None = Field(None, description="FLAC, MP3, Opus, WAV")
    files: list[Media] | None = Field(
        None, description="all other saved files: 3D models, latents ..."
    )
    texts: list[Text] | None = Field(None, description="texts that nodes such as PreviewAny showed")
    workflow: str = Field(description="the template's name, or `custom`")
    seed: int | None = Field(
        None,
        description="the seed that was used: sent, drawn at random, or the custom workflow's own",
    )
    parameters: dict[str, Any] = Field(
        description="the values of all parameters of the workflow that ran"
    )
    timings: Timings = Field(description="how long each stage and each node took")
    warnings: list[str] = Field(description="what the worker changed, ignored or could not do")


class Validation(BaseModel):
    """The answer to ``validate_only``."""

    workflow: dict[str, Any] = Field(description="the workflow that would be queued, in API format")
    name: str = Field(description="the template's name, or `custom`")
    seed: int | None = Field(
        description="the seed that would be used: sent, drawn at random, or the custom "
        "workflow's own"
    )
    parameters: dict[str, Any] = Field(description="the values of all parameters of the workflow")
    roles: dict[str, Any] = Field(
        description="what the worker found in the workflow. `samplers` and `outputs`: node ids; "
        "`places`, `ambiguous`, `left`: inputs by parameter"
    )
    needs: list[dict[str, Any]] = Field(
        description="model files: `folder`, `file`, `installed`, and `url` if it is known"
    )
    findings: list[dict[str, Any]] = Field(
        description="why the workflow cannot run, like an error's `details`; empty if it can"
    )
    warnings: list[str] = Field(description="same as in a result")
