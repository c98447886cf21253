"""The end of a job that may come early."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future

import pytest

from comfy_worker.deadline import Deadline
from comfy_worker.errors import JobCancelled, JobTimedOut
from comfy_worker.job import time_limit_s


def test_a_stop_by_itself_never_comes() -> None:
    stop = Deadline()
    stop.check()
    assert not stop.is_due


def test_a_cancel_is_told() -> None:
    cancelled = threading.Event()
    stop = Deadline(cancelled, 60)
    cancelled.set()
    assert stop.is_due
    with pytest.raises(JobCancelled):
        stop.check()


def test_a_timeout_says_what_would_help() -> None:
    stop = Deadline(timeout_s=0.01)
    time.sleep(0.02)
    assert stop.is_due
    with pytest.raises(
        JobTimedOut, match=r"not done after 0\.01 s.*executionTimeout or JOB_TIMEOUT_S"
    ):
        stop.check()


def test_other_threads_are_waited_for_until_the_stop() -> None:
    done: Future[int] = Future()
    done.set_result(7)
    assert Deadline().wait_for(done) == 7
    failed: Future[int] = Future()
    failed.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        Deadline().wait_for(failed)
    with pytest.raises(JobTimedOut):
        Deadline(timeout_s=0.01).wait_for(Future())


@pytest.mark.parametrize(
    ("policy", "limit_s"),
    [
        (None, 50.0),
        ({}, 50.0),
        ({"executionTimeout": 600_000}, 590.0),
        ({"executionTimeout": 10_000}, 9.0),
        ({"executionTimeout": -1}, 50.0),
        ({"executionTimeout": "soon"}, 50.0),
        ({"executionTimeout": True}, 50.0),
        ({"executionTimeout": math.nan}, 50.0),
        ({"executionTimeout": math.inf}, 50.0),
        ({"executionTimeout": 10**400}, 50.0),
        ("none", 50.0),
    ],
)
def test_the_policy_limits_a_job_with_margin(policy: object, limit_s: float) -> None:
    assert time_limit_s({"policy": policy}, default_s=50) == pytest.approx(limit_s)
