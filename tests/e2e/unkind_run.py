"""Many jobs behind an endpoint that misbehaves: each must end with its own picture or one coded error.

On the way the endpoint is cut off for a while, a job is cancelled, and a worker gets SIGTERM.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import requests

from comfy_local.endpoint import LocalEndpoint, Unkind
from tests.e2e.conftest import pictures
from tests.graphs import node

__all__ = ["UnkindRun"]

CODED = re.compile(r"[A-Z0-9_]+: .+")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
MOST_WAITING = 60
FIRST_COLOUR = 0x010203


class UnkindRun:
    """One run.

    Args:
        endpoint: with one worker that is ready.
        unkind: how the endpoint misbehaves.
        share: the share of requests that get a fault.

    Attributes:
        outcomes: how many jobs ended in which way.
        cancel_s: how long a cancel took.
        problems: what must not happen.
    """

    def __init__(self, endpoint: LocalEndpoint, unkind: Unkind, share: float) -> None:
        self._endpoint = endpoint
        self._unkind = unkind
        self._share = share
        self._colours: dict[str, int] = {}
        self.outcomes: Counter[str] = Counter()
        self.cancel_s = 0.0
        self.problems: list[str] = []

    def run(self, jobs: int, outage_s: float) -> None:
        """Run all jobs.

        Args:
            jobs: how many, 4 or more.
            outage_s: for how long the worker reaches nobody.
        """
        self._unkind.share = self._share
        for number in range(jobs):
            if number == jobs // 4:
                self._unkind.cut_off(outage_s)
            if number == jobs // 2:
                self._cancel_one()
            if number == jobs * 3 // 4:
                os.kill(self._endpoint.workers[0].pid, signal.SIGTERM)
            self._submit(FIRST_COLOUR + number)
            while len(self._colours) >= MOST_WAITING:
                self._collect()
        _wait_until(self._is_done, 600 + jobs)

    def _submit(self, colour: int) -> None:
        graph = {
            "1": node("EmptyImage", width=64, height=64, batch_size=1, color=colour),
            "2": node("SaveImage", images=["1", 0], filename_prefix="unkind"),
        }
        self._colours[self._post({"workflow": graph})] = colour

    def _post(self, job_input: dict[str, Any]) -> str:
        body = {"input": job_input}
        answer = requests.post(f"{self._endpoint.url}/run", json=body, timeout=30)
        return str(answer.json()["id"])

    def _status(self, job_id: str) -> dict[str, Any]:
        status: dict[str, Any] = requests.get(
            f"{self._endpoint.url}/status/{job_id}", timeout=30
        ).json()
        return status

    def _is_done(self) -> bool:
        self._collect()
        return not self._colours

    def _collect(self) -> None:
        """Look at the oldest jobs that have not ended, and judge those that have."""
        for job_id in list(self._colours)[:10]:
            job = self._status(job_id)
            if job["status"] in ENDED:
                self._judge(job_id, job, self._colours.pop(job_id))
        time.sleep(0.05)

    def _judge(self, job_id: str, job: dict[str, Any], colour: int) -> None:
        if job["status"] == "COMPLETED":
            (picture,) = pictures(job["output"])
            rgb = (colour >> 16, colour >> 8 & 255, colour & 255)
            if picture.convert("RGB").getcolors() == [(64 * 64, rgb)]:
                self.outcomes["own picture"] += 1
            else:
                self.problems.append(f"{job_id} got another picture")
        elif job["status"] == "FAILED" and CODED.fullmatch(str(job.get("error"))):
            self.outcomes[str(job["error"]).partition(":")[0]] += 1
        else:
            self.problems.append(f"{job_id} ended as {job['status']}: {job.get('error')}")

    def _cancel_one(self) -> None:
        """Cancel a long job, and measure how long the next one waits for the GPU."""
        self._unkind.share = 0.0  # a refused request for cancels is repeated seconds later
        _wait_until(self._is_done, 600)
        size = {"width": 64, "height": 64, "steps": 9000, "prompt": "x"}
        long_job = self._post({"workflow": "txt2img", **size})
        _wait_until(lambda: self._status(long_job).get("output"), 120)
        requests.post(f"{self._endpoint.url}/cancel/{long_job}", timeout=30)
        began = time.monotonic()
        self._submit(FIRST_COLOUR - 1)
        _wait_until(self._is_done, 120)
        self.cancel_s = time.monotonic() - began
        self._unkind.share = self._share


def _wait_until(look: Callable[[], Any], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)
