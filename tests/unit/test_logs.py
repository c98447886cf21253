"""What the log never shows."""

from __future__ import annotations

import logging

import pytest

from comfy_worker import logs
from comfy_worker.error_response import secrets_of


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", {})


def test_a_key_is_blotted_out_of_every_line_whoever_wrote_it() -> None:
    logs.conceal("comfyui-0123", "short", "")
    line = logging.LogRecord("comfy_worker", logging.INFO, "", 0, "key %s, %s", ("comfyui-0123", "short"), None)
    with logs.bound(job_id="comfyui-0123"):
        told = logs._Formatter("%(message)s").format(line)
    assert told == "key [hidden], short job_id=[hidden]"


def test_the_keys_of_a_job_are_found_whatever_their_type() -> None:
    job = {"input": {"comfy_org_api_key": 1234567890}, "s3Config": {"accessSecret": "abc"}}
    assert secrets_of(job) == ["1234567890", "abc"]
    assert secrets_of({"input": [], "s3Config": None}) == []


def test_the_newest_secrets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_SECRETS", 2)
    for secret in ("secret-one", "secret-two", "secret-one", "secret-three"):
        logs.conceal(secret)
    assert logs.without_secrets("secret-one secret-two secret-three") == "[hidden] secret-two [hidden]"
