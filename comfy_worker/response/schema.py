"""What a finished job answers."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    Field,
)


class Media(BaseModel):
    """One file that a workflow made."""

    filename: str = Field(description="as ComfyUI named it")
    type: str = Field(description="`base64` or `s3_url`")
    data: str = Field(description="the file as base64, or a link to it")
    mime_type: str = Field(description="by content, such as `image/png`")
    node_id: str = Field(description="the node that saved it")
    bytes: int = Field(description="size of the file")
    width: int | None = Field(None, description="of an image, in pixels")
    height: int | None = Field(None, description="of an image, in pixels")
    seed: int | None = Field(None, description="the seed that it was made with")


class Text(BaseModel):
    """One text that a node showed."""

    type: str = Field("text", description="`text`")
    data: str = Field(description="the text itself")
    mime_type: str = Field("text/plain", description="`text/plain`")
    node_id: str = Field(description="the node that showed it")
    bytes: int = Field(description="its size in UTF-8")


class Timings(BaseModel):
    """Where the time of a job went, in milliseconds."""

    stages: dict[str, int] = Field(
        description="wait (for ComfyUI to be up), prepare, execute (ComfyUI's queue included), total"
    )
    nodes: dict[str, int] = Field(description="by node id; a cached node does not run and is left out")


class Result(BaseModel):
    """What a finished job answers; kinds of output that there are none of are left out, but for ``images``."""

    images: list[Media] = Field(description="pictures, animations included")
    videos: list[Media] | None = Field(None, description="MP4, WebM")
    audio: list[Media] | None = Field(None, description="FLAC, MP3, Opus, WAV")
    files: list[Media] | None = Field(None, description="whatever else was saved: 3D models, latents ...")
    texts: list[Text] | None = Field(None, description="what nodes such as PreviewAny showed")
    workflow: str = Field(description="the template's name, or `custom`")
    seed: int | None = Field(None, description="the one given, the one that was drawn, or a custom graph's own")
    parameters: dict[str, Any] = Field(description="what the graph's parameters were in the end")
    timings: Timings = Field(description="where the time went")
    warnings: list[str] = Field(description="what was done otherwise than one might think")


class Validation(BaseModel):
    """What ``validate_only`` answers."""

    workflow: dict[str, Any] = Field(description="the graph as it would be queued, in API format")
    name: str = Field(description="the template's name, or `custom`")
    seed: int | None = Field(description="the one given, one that was drawn, or a custom graph's own")
    parameters: dict[str, Any] = Field(description="what the graph's parameters are")
    roles: dict[str, Any] = Field(
        description="`samplers`, `outputs`: node ids; `places`, `ambiguous`, `left`: inputs by parameter"
    )
    needs: list[dict[str, Any]] = Field(
        description="model files: `folder`, `file`, `url` where it is known, `installed`"
    )
    findings: list[dict[str, Any]] = Field(
        description="why it cannot run, as in an error's details; empty if it can"
    )
    warnings: list[str] = Field(description="as in a result")
