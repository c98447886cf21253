"""What the log never shows, and that one client hides nothing from another."""

from __future__ import annotations

import gc
import json
import logging
import tracemalloc
from collections import Counter

import pytest

from comfy_worker import logs
from comfy_worker.error_response import error_response
from comfy_worker.errors import (
    ExecutionFailed,
    InvalidInput,
    NodeNotInstalled,
    OutOfMemory,
    WorkerError,
)
from comfy_worker.job import secrets_of
from comfy_worker.job_record import JobRecord


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_own", Counter())


def written(message: str, *args: object, action: str = "") -> str:
    record = logging.LogRecord("comfy_worker", logging.INFO, "", 0, message, args, None)
    if action:
        record.action = action
    return logs._TextFormatter("%(levelname)s %(message)s").format(record)


def test_a_key_is_redacted_whoever_wrote_it() -> None:
    logs.add_secret("comfyui-0123", "short", "")
    with logs.bound(job_id="comfyui-0123"):
        line = written("key %s, %s", "comfyui-0123", "short")
    assert line == "INFO key [hidden], short job_id=[hidden]"


def test_the_keys_of_a_job_are_found() -> None:
    job = {"input": {"comfy_org_api_key": 1234567890}, "s3Config": {"accessSecret": "abc"}}
    assert secrets_of(job) == ["1234567890", "abc"]
    assert secrets_of({"input": [], "s3Config": None}) == []


def test_a_key_is_hidden_in_its_job_only() -> None:
    with logs.job_secrets("the node pack"):
        assert logs.redact("install the node pack") == "install [hidden]"
    assert logs.redact("install the node pack") == "install the node pack"


def test_a_job_beside_it_reads_its_whole_error() -> None:
    pool = logs.ContextThreadPool(1)
    with pool, logs.job_secrets("the node pack"):
        inside = pool.submit(logs.redact, "install the node pack").result()
        other = logs.redact_job("install the node pack", ())
    assert (inside, other) == ("install [hidden]", "install the node pack")


def test_a_line_of_no_job_hides_every_key() -> None:
    with logs.job_secrets("key-of-job-a"), logs.job_secrets("key-of-job-b"):
        assert logs.redact_job("key-of-job-a key-of-job-b", None) == "[hidden] [hidden]"
    assert logs.redact_job("key-of-job-a", None) == "key-of-job-a"


def test_two_jobs_may_share_a_key() -> None:
    with logs.job_secrets("one and the same"):
        with logs.job_secrets("one and the same"):
            pass
        assert logs.redact_job("one and the same", None) == "[hidden]"


def test_a_longer_key_hides_its_beginning_too() -> None:
    with logs.job_secrets("comfyui-", "comfyui-0123456789"):
        assert logs.redact("comfyui-0123456789") == "[hidden]"


@pytest.mark.parametrize("key", ["NODE_NOT_INSTALLED", "x" * 9_000_000])
def test_an_error_keeps_its_code_whatever_the_key(key: str) -> None:
    with logs.job_secrets(key):
        answer = error_response(NodeNotInstalled("node 1 (NODE_NOT_INSTALLED) is missing"))
    assert answer["error"].startswith("NODE_NOT_INSTALLED: node 1 (")


def test_keys_of_megabytes_are_not_kept() -> None:
    tracemalloc.start()
    try:
        for number in range(5):
            with logs.job_secrets(f"{number:06}" + "k" * 9_000_000):
                pass
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()
    assert not logs._of_jobs


def test_worker_names_stay_hidden_from_their_job() -> None:
    with logs.job_secrets():
        with logs.temporary_secrets("folder-of-a"):
            assert logs.redact_job("folder-of-a", ()) == "[hidden]"
        assert logs.redact("folder-of-a") == "[hidden]"
        assert logs.redact_job("folder-of-a", ()) == "folder-of-a"
    assert logs.redact("folder-of-a") == "folder-of-a"


def test_threads_of_a_pool_keep_the_job_id() -> None:
    with logs.ContextThreadPool(2) as pool:
        with logs.bound(job_id="a"):
            first = pool.submit(written, "x")
            rows = list(pool.map(written, ["y", "z"]))
        with logs.bound(job_id="b"):
            second = pool.submit(written, "x")
    assert first.result() == "INFO x job_id=a"
    assert rows == ["INFO y job_id=a", "INFO z job_id=a"]
    assert second.result() == "INFO x job_id=b"


BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("line_break", BREAKS)
def test_no_text_begins_a_line(line_break: str) -> None:
    with logs.bound(job_id=f"x{line_break}FORGED"):
        text = written("%s", f"x{line_break}FORGED {line_break}{line_break}FORGED")
    assert text.count("FORGED") == 3
    assert not [line for line in text.splitlines()[1:] if not line.startswith("    ")]


def test_no_text_moves_the_cursor() -> None:
    assert written("%s", "a\x1b[2K\x00b\u202ec\td") == "INFO a\\x1b[2K\\x00b\\u202ec\td"


@pytest.mark.parametrize("error", [InvalidInput("a fox"), ExecutionFailed("node 1 said a fox")])
def test_a_clients_words_are_not_logged(
    error: WorkerError, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "comfy_worker"):
        assert "a fox" in error_response(error)["error"]
    assert [record.getMessage() for record in caplog.records] == [error.code]


def test_the_workers_own_words_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "comfy_worker"):
        error_response(OutOfMemory("node 1 (KSampler) ran out of GPU memory"))
    assert caplog.messages == ["OUT_OF_MEMORY: node 1 (KSampler) ran out of GPU memory"]


def test_a_json_line_holds_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    logs.add_secret("hf_0123456789")
    record = logging.LogRecord(
        "comfy_worker", logging.INFO, "", 0, "a\nb %s \ud800", ("hf_0123456789",), None
    )
    record.action = "job.done"
    record.fields = {"bytes": 5, "code": "X"}
    with logs.bound(job_id="j"):
        line = logs._JsonFormatter().format(record)
    assert "\n" not in line
    shown = json.loads(line)
    assert shown.pop("time").endswith("+00:00")
    assert shown == {
        "level": "INFO", "logger": "comfy_worker", "message": "a\nb [hidden] \ud800",
        "action": "job.done", "bytes": 5, "code": "X", "job_id": "j",
    }  # fmt: skip


def test_a_json_line_holds_the_traceback() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("comfy_worker", logging.ERROR, "", 0, "fault", None, info)
    assert "ValueError: no" in json.loads(logs._JsonFormatter().format(record))["traceback"]


def test_a_job_has_one_line_of_facts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "comfy_worker"):
        JobRecord("txt2img", {"prepare": 3}, 20, 1, 500, 2).write(12.6)
        JobRecord(code="INVALID_INPUT").write(1)
    done, failed = caplog.records
    assert done.fields == {
        "duration_ms": 13, "workflow": "txt2img", "prepare_ms": 3, "steps": 20, "files": 1,
        "bytes": 500, "warnings": 2,
    }  # fmt: skip
    assert failed.fields["code"] == "INVALID_INPUT"
    assert [record.getMessage() for record in caplog.records] == ["job done", "job failed"]
