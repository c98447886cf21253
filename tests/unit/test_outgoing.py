"""What leaves the worker can be sent, and is not larger than it may be."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from comfy_worker.error_response import error_response
from comfy_worker.errors import InvalidWorkflow
from comfy_worker.logs import add_secret
from comfy_worker.outgoing import posted_size, safe, to_json_bytes, within
from comfy_worker.runpod_worker.results import envelope, with_stop_pod, within_limit


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ({"a\ud800": "\udc00b"}, {"a\ufffd": "\ufffdb"}),
        ("\ud83d\ude00", "\U0001f600"),
        ([math.nan, math.inf, 1.5, 10**400], [None, None, 1.5, 10**400]),
        ({1: (2, {3})}, {"1": [2, "{3}"]}),
        (b"x", "b'x'"),
        ("ä\U0001f600", "ä\U0001f600"),
    ],
)
def test_a_value_without_json_form_is_made_safe(value: Any, sent: Any) -> None:
    assert json.loads(to_json_bytes(value)) == sent


def test_deep_nesting_is_cut() -> None:
    value: Any = 1
    for _ in range(5_000):
        value = [value]
    assert b"(nested too deep)" in to_json_bytes(value)


def test_a_size_is_that_of_the_sdks_json() -> None:
    value = {"images": [{"data": "x", "seed": number} for number in range(1000)], "ä": None}
    assert posted_size(value) == len(json.dumps(value, ensure_ascii=False).encode())


def test_many_findings_are_counted() -> None:
    findings = [{"node_id": str(number), "problem": "x" * 5_000} for number in range(5_000)]
    kept = within(findings)
    assert len(json.dumps(kept)) < 60_000
    assert kept[0]["problem"].endswith("... (5,000 characters)")
    assert kept[-1]["left_out"] == 5_000 - len(kept) + 1


def test_one_finding_may_be_too_large() -> None:
    huge = {str(number): ["x" * 900] * 200 for number in range(200)}
    assert within([huge]) == [{"left_out": 1, "problem": "1 more would make the answer too large"}]


def test_an_error_is_bounded_whatever_it_says() -> None:
    title = "t" * 2_000_000
    answer = error_response(InvalidWorkflow(f"{title} is wrong", [{"title": title}] * 10))
    assert posted_size(answer) < 100_000
    assert answer["error"].startswith("INVALID_WORKFLOW: ttt")
    assert (answer["code"], answer["message"][:3]) == ("INVALID_WORKFLOW", "ttt")
    assert answer["details"][9]["title"].endswith("(2,000,000 characters)")


def test_no_secret_is_cut_in_half() -> None:
    secret = "SECRET-" + "s" * 50
    add_secret(secret)
    answer = error_response(InvalidWorkflow("x" * 1_990 + secret, [{"a": "x" * 990 + secret}]))
    assert "SECRET" not in json.dumps(answer)


def test_a_surrogate_in_an_error_is_sent() -> None:
    answer = error_response(InvalidWorkflow("class \ud800", [{"\ud800": "\udfff"}]))
    assert json.loads(to_json_bytes(answer))["details"] == [{"\ufffd": "\ufffd"}]


@pytest.mark.parametrize(
    ("answer", "posted"),
    [
        ({"error": "X: y", "code": "X"}, {"output": {"code": "X"}, "error": "X: y"}),
        ({"images": [], "refresh_worker": True}, {"output": {"images": []}}),
        (["a"], {"output": ["a"]}),
        ("a", {"output": "a"}),
        ({"error": "X"}, {"error": "X"}),
    ],
)
def test_an_answer_is_posted_as_the_sdk_does(answer: Any, posted: Any) -> None:
    assert envelope(answer) == posted


def test_a_body_is_measured_as_it_is_posted() -> None:
    posted = {"output": [1] * 1000}
    size = len(json.dumps(posted))
    assert len(within_limit(posted, size)) == size
    assert json.loads(within_limit(posted, size - 1))["output"]["code"] == "RESULT_TOO_LARGE"


FILE = "iVBORw0K" * 1000
TEXT_ENTRY = {"type": "text", "data": "a" * 8000}


@pytest.mark.parametrize(
    "output",
    [
        {"images": [{"filename": "a.png", "type": "base64", "data": FILE}], "texts": None},
        {"videos": [{"filename": "a.mp4", "type": "base64", "data": FILE}], "warnings": ["a"]},
        {"image_base64": FILE, "seed": 7},
        [{"image": FILE, "seed": 7}],
        [FILE],
        {"image_url": f"data:image/png;base64,{FILE}", "images": [], "seed": 7},
        [{"image_url": f"data:image/png;base64,{FILE}"}],
        {"images": [FILE], "parameters": {}, "info": "{}"},
    ],
)
def test_too_many_files_advise_storage(output: Any) -> None:
    answer = json.loads(within_limit({"output": output}, 1000))
    assert "BUCKET_ENDPOINT_URL" in answer["error"]
    assert "text" not in answer["error"]


@pytest.mark.parametrize(
    "output",
    [
        {"images": [], "texts": [TEXT_ENTRY]},
        {"images": [{"type": "base64", "data": FILE}], "texts": [TEXT_ENTRY]},
        {
            "images": [{"type": "s3_url", "data": "https://example.com/a.png"}],
            "texts": [TEXT_ENTRY],
        },
        [{"images": []}, {"texts": [TEXT_ENTRY]}],
        {"images": [FILE], "parameters": {"prompt": "a" * 8000}, "info": "{}"},
        {"": "a" * 8000},
    ],
)
def test_too_much_text_does_not_advise_storage(output: Any) -> None:
    answer = json.loads(within_limit({"output": output}, 1000))
    assert "show less text" in answer["error"]
    assert "BUCKET" not in answer["error"]


def test_stop_pod_goes_with_the_body() -> None:
    assert json.loads(with_stop_pod(b'{"output": 1}')) == {"output": 1, "stopPod": True}


def test_safe_leaves_plain_json_alone() -> None:
    value = {"a": [1, 2.5, "x", None, True, {"b": {}}]}
    assert safe(value) == value
