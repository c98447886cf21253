"""What a worker of the local endpoint finds in its environment."""

from __future__ import annotations

from comfy_local.endpoint.workers import worker_environ

BASE_URL = "http://127.0.0.1:8000/v2/local"


def test_the_sdk_finds_the_endpoint() -> None:
    environ = worker_environ({}, BASE_URL, "w1")
    assert environ["RUNPOD_WEBHOOK_GET_JOB"] == f"{BASE_URL}/job-take/$ID?gpu=local"
    assert (
        environ["RUNPOD_WEBHOOK_POST_OUTPUT"] == f"{BASE_URL}/job-done/$RUNPOD_POD_ID/$ID?gpu=local"
    )
    assert environ["RUNPOD_POD_ID"] == "w1"


def test_callers_variables_survive_except_the_endpoints_own() -> None:
    variables = {
        "SD_MODEL": "x.safetensors",
        "RUNPOD_DEBUG_LEVEL": "ERROR",
        "RUNPOD_SKIP_GPU_CHECK": "false",
        "RUNPOD_POD_ID": "someone else's",
    }
    environ = worker_environ(variables, BASE_URL, "w1")
    assert environ["SD_MODEL"] == "x.safetensors"
    assert environ["RUNPOD_DEBUG_LEVEL"] == "ERROR"
    assert environ["RUNPOD_SKIP_GPU_CHECK"] == "false"
    assert environ["RUNPOD_POD_ID"] == "w1"


def test_a_proxy_is_not_asked_for_this_machine() -> None:
    environ = worker_environ({"NO_PROXY": "example.org"}, BASE_URL, "w1")
    assert environ["NO_PROXY"] == environ["no_proxy"] == "example.org,127.0.0.1"
