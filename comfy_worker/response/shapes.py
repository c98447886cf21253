"""Gives a result the shape of answer that a client expects.

Every shape but ``images`` carries pictures only. If a picture was put into storage, its link takes
the place of the base64 or the data URI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from comfy_worker.errors import NoOutput
from comfy_worker.response.a1111_answer import a1111_answer
from comfy_worker.response.schema import Media, Result
from comfy_worker.response_formats import ResponseFormat

__all__ = ["shape"]


def shape(result: Result, response: ResponseFormat, raw_input: Mapping[str, Any]) -> Any:
    """Give a result its shape.

    Args:
        result: what the job made.
        response: the name of the shape.
        raw_input: ``job["input"]`` as the client sent it.

    Raises:
        NoOutput: there is no picture, and the shape carries nothing else.
    """
    if response == "images":
        return result.model_dump(exclude_none=True)
    if not result.images:
        raise NoOutput(
            f"the workflow made no picture, and response '{response}' can contain nothing else; "
            "ask for response 'images'"
        )
    if response == "a1111":
        return a1111_answer(result, raw_input)
    return _SHAPES[response](result)


def _image_base64(result: Result) -> dict[str, Any]:
    return {"image_base64": result.images[0].data, "seed": result.seed}


def _image_list(result: Result) -> list[dict[str, Any]]:
    return [{"image": picture.data, "seed": picture.seed} for picture in result.images]


def _base64_list(result: Result) -> list[str]:
    return [picture.data for picture in result.images]


def _image_url(result: Result) -> dict[str, Any]:
    urls = [_url(picture) for picture in result.images]
    return {"image_url": urls[0], "images": urls, "seed": result.seed}


def _image_url_list(result: Result) -> list[dict[str, Any]]:
    return [{"image_url": _url(picture), "seed": picture.seed} for picture in result.images]


def _url(picture: Media) -> str:
    """Return a picture's link, or its data URI."""
    if picture.type == "base64":
        return f"data:{picture.mime_type};base64,{picture.data}"
    return picture.data


_SHAPES: dict[str, Callable[[Result], Any]] = {
    "image_base64": _image_base64,
    "image_list": _image_list,
    "base64_list": _base64_list,
    "image_url": _image_url,
    "image_url_list": _image_url_list,
}
