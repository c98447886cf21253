"""Replaces a picture in a request's ``workflow`` by the workflow that ComfyUI stored in it."""

from __future__ import annotations

from comfy_worker.inputs.embedded_workflow import is_picture_source, workflow_of_source
from comfy_worker.request.schema import JobInput

__all__ = ["with_embedded_workflow"]


def with_embedded_workflow(request: JobInput) -> JobInput:
    """Read the workflow of a picture in ``workflow``; other requests are returned unchanged.

    Raises:
        InvalidMedia: the text is a data URI, but its data is not base64.
        InvalidWorkflow: the text is not base64, the data is not a picture, or contains no workflow.
    """
    text = request.workflow
    if not isinstance(text, str) or not is_picture_source(text):
        return request
    return request.model_copy(update={"workflow": workflow_of_source(text)})
