"""A job is read once from RunPod's envelope."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from comfy_worker.errors import InvalidInput, InvalidValue, JobCancelled
from comfy_worker.job import Job, secrets_in
from comfy_worker.settings import Settings

S3_CONFIG = {
    "accessId": "id",
    "accessSecret": "a-secret",
    "bucketName": "mine",
    "endpointUrl": "https://s3.eu-central-1.amazonaws.com",
}


def parse(job_input: Any, cancelled: bool = False, **changes: Any) -> Job:
    event = threading.Event()
    if cancelled:
        event.set()
    settings = changes.pop("settings", Settings())
    return Job.parse({"id": "job-1", "input": job_input, **changes}, settings, event)


def test_the_envelope_becomes_typed() -> None:
    job = parse({"prompt": "a fox", "num_inference_steps": 3}, s3Config=S3_CONFIG)
    assert (job.id, job.input.prompt, job.input.steps) == ("job-1", "a fox", 3)
    assert job.client_words["steps"] == "num_inference_steps"
    assert job.storage is not None
    assert job.storage.name == "mine"
    assert (job.response, job.is_stream, job.options_call) == ("images", False, None)


@pytest.mark.parametrize("s3_config", [None, {}])
def test_an_empty_s3_config_is_none(s3_config: Any) -> None:
    assert parse({}, s3Config=s3_config).storage is None


def test_the_request_chooses_the_response_first() -> None:
    settings = Settings(response_format="image_url", streaming=True)
    assert parse({}, settings=settings).response == "image_url"
    assert parse({}, settings=settings).is_stream
    assert parse({"api_name": "txt2img"}, settings=settings).response == "a1111"
    assert parse({"api_name": "txt2img", "response": "image_list"}).response == "image_list"


def test_an_options_call_has_no_request() -> None:
    job = parse({"api_name": "setOptions", "sd_model_checkpoint": "x"})
    assert job.options_call == "setOptions"
    assert job.raw_input == {"sd_model_checkpoint": "x"}


def test_a_wrong_envelope_is_refused() -> None:
    with pytest.raises(InvalidInput, match="input must be an object"):
        parse([1])
    with pytest.raises(InvalidValue, match="s3Config"):
        parse({}, s3Config={"accessId": "x"})
    with pytest.raises(InvalidValue, match="num_images must be at most 4, not 5"):
        parse({"num_images": 5})


def test_a_cancelled_job_ends_at_its_deadline() -> None:
    with pytest.raises(JobCancelled):
        parse({}, cancelled=True).deadline.check()


def test_secrets_are_found_in_a_wrong_input() -> None:
    envelope = {"input": [{"comfy_org_api_key": "x"}], "s3Config": S3_CONFIG}
    assert secrets_in(envelope) == ["a-secret"]
    wrapped = {"input": {"input": {"comfy_org_api_key": "key-for-comfy"}}}
    assert secrets_in(wrapped) == ["key-for-comfy"]
