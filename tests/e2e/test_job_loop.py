"""Our job loop under the real SDK, behind an endpoint that misbehaves; jobs need no ComfyUI."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from comfy_common.paths import REPO
from comfy_local.endpoint import LocalEndpoint, Unkind, app

pytestmark = pytest.mark.e2e

HANDLER = Path(__file__).with_name("stub_worker.py")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


def wait_until(look: Callable[[], Any], timeout_s: float = 20) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)
    return found


class StubWorker:
    """The endpoint with one worker, its log, and how it misbehaves."""

    def __init__(self, endpoint: LocalEndpoint, unkind: Unkind, log_path: Path) -> None:
        self.endpoint = endpoint
        self.unkind = unkind
        self.log_path = log_path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self.endpoint.workers[0].pid

    def submit(self, policy: dict[str, Any] | None = None, **job_input: Any) -> str:
        body = {"input": job_input, **({"policy": policy} if policy else {})}
        return str(requests.post(f"{self.endpoint.url}/run", json=body, timeout=30).json()["id"])

    def status(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = requests.get(
            f"{self.endpoint.url}/status/{job_id}", timeout=30
        ).json()
        return job

    def cancel(self, job_id: str) -> None:
        requests.post(f"{self.endpoint.url}/cancel/{job_id}", timeout=30)

    def wait_for(self, job_id: str, *statuses: str, timeout_s: float = 20) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.status(job_id)
            return job if job["status"] in (statuses or ENDED) else None

        found: dict[str, Any] = wait_until(look, timeout_s)
        return found

    def output(self, **job_input: Any) -> Any:
        job = self.wait_for(self.submit(**job_input))
        assert job["status"] == "COMPLETED", job
        return job["output"]

    def result_of(self, job_id: str, timeout_s: float = 20) -> dict[str, Any]:
        """What the worker posted for a job that the endpoint need not know."""
        found: dict[str, Any] = wait_until(lambda: self.unkind.results_of(job_id), timeout_s)[-1]
        return found


@contextmanager
def stub_worker(
    folder: Path, share: float = 0.0, workers: int = 1, **environ: str
) -> Iterator[StubWorker]:
    unkind = Unkind(share=share, slow_s=0.3)
    everything = {**os.environ, "PYTHONPATH": str(REPO), "TEST_TRY_S": "1.5", **environ}
    endpoint = LocalEndpoint(
        handler=HANDLER,
        environ=everything,
        log_path=folder / "log",
        unkind=unkind,
        workers=workers,
    )
    with pytest.MonkeyPatch.context() as patch, endpoint:
        patch.setattr(app, "POLL_HOLD_S", 1.0)  # a worker leaves when its polls return
        assert endpoint.wait_ready(60)
        yield StubWorker(endpoint, unkind, folder / "log")


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubWorker]:
    """The worker that most tests share, with the settings as they are by themselves."""
    with stub_worker(tmp_path_factory.mktemp("stub")) as worker:
        yield worker


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubWorker]:
    """A worker that takes several jobs at once, in batches."""
    with stub_worker(tmp_path_factory.mktemp("wide"), WORKER_CONCURRENCY="4") as worker:
        yield worker


# Results


@pytest.mark.parametrize(
    "habit", ["drop", "html", "slow", "lost", 302, 401, 404, 408, 425, 429, 500, 503]
)
def test_a_result_survives_an_unkind_answer(worker: StubWorker, habit: str | int) -> None:
    worker.unkind.expect("done", habit)
    assert worker.output(echo="kept")["echo"] == "kept"
    assert not worker.unkind.left("done")


@pytest.mark.parametrize(("status", "code"), [(400, "DELIVERY_FAILED"), (413, "RESULT_TOO_LARGE")])
def test_a_refused_result_becomes_a_short_error(worker: StubWorker, status: int, code: str) -> None:
    worker.unkind.expect("done", status)
    job = worker.wait_for(worker.submit(bytes=300_000))
    assert job["error"].startswith(f"{code}: RunPod refused the result of 0.3 MB")
    assert job["output"]["code"] == code


@pytest.mark.parametrize(
    ("entry", "is_text"),
    [
        ({"type": "text", "data": "a" * 9000}, True),
        ({"type": "base64", "data": "AAAA" * 3000}, False),
    ],
)
def test_the_advice_for_413_names_its_cause(
    worker: StubWorker, entry: dict[str, str], is_text: bool
) -> None:
    worker.unkind.expect("done", 413)
    error = worker.wait_for(worker.submit(echo={"texts": [entry]}))["error"]
    assert ("show less text" in error) == is_text
    assert ("BUCKET_ENDPOINT_URL" in error) != is_text


def test_a_post_that_hangs_holds_up_no_job(worker: StubWorker) -> None:
    worker.unkind.expect("done", "hang")
    first = worker.submit(echo="first")
    wait_until(lambda: not worker.unkind.left("done"))
    assert worker.output(echo="second")["echo"] == "second"
    assert worker.wait_for(first)["output"]["echo"] == "first"


def test_results_survive_an_outage_while_jobs_go_on(worker: StubWorker) -> None:
    worker.unkind.expect("done", *["drop"] * 12)
    jobs = [worker.submit(echo=number) for number in range(6)]
    assert [worker.wait_for(job)["output"]["echo"] for job in jobs] == list(range(6))


def test_an_answer_without_json_form_is_made_safe(worker: StubWorker) -> None:
    assert worker.output(odd=True) == {"odd\ufffd": ["\ufffd", None, "{1}"]}


def test_an_oversized_answer_is_an_error(worker: StubWorker) -> None:
    job = worker.wait_for(worker.submit(bytes=10_000_001))
    assert job["error"].startswith(
        "RESULT_TOO_LARGE: the answer is 10 MB, but RunPod accepts at most 10 MB"
    )


def test_a_fault_in_a_job_is_answered(worker: StubWorker) -> None:
    assert worker.wait_for(worker.submit(**{"raise": "x"}))["error"].startswith("INTERNAL_ERROR: ")


# What RunPod hands out

ODD_IDS = [5, None, {"a": 1}, "", "a/../b?x=1", "a\r\nX-Evil: 1", "a,b", "x" * 300]
NO_JOBS = [
    None,
    "x",
    5,
    [],
    {},
    {"input": {}},
    *({"id": job_id, "input": {}} for job_id in ODD_IDS),
]


@pytest.mark.parametrize("entry", NO_JOBS, ids=lambda entry: json.dumps(entry)[:30])
def test_entries_that_are_not_jobs_are_dropped(worker: StubWorker, entry: Any) -> None:
    pid = worker.pid
    worker.unkind.hand_out(entry if isinstance(entry, dict) else [entry])
    assert worker.output(echo=1)["pid"] == pid
    assert "action=job.dropped" in worker.log


@pytest.mark.parametrize("job_input", [None, "deep", "very deep"])
def test_an_entry_with_an_id_gets_an_error(worker: StubWorker, job_input: str | None) -> None:
    job_id = f"odd-{job_input}".replace(" ", "-")
    depth = {"deep": 900, "very deep": 100_000}.get(job_input or "", 0)
    entry = b'{"id": "%s", "input": %s}' % (job_id.encode(), b"[" * depth + b"]" * depth or b"null")
    worker.unkind.hand_out(entry)
    assert worker.result_of(job_id)["error"].startswith("INVALID_INPUT: ")
    assert worker.output(echo=1)["echo"] == 1


def test_the_job_beside_an_odd_entry_is_done(wide: StubWorker) -> None:
    wide.unkind.hand_out([None, {"id": "beside", "input": {"echo": 3}}, {"id": "no-input"}, 5])
    assert wide.result_of("beside")["output"]["echo"] == 3
    assert wide.result_of("no-input")["output"]["code"] == "INVALID_INPUT"


def test_a_job_handed_out_twice_runs_once(wide: StubWorker) -> None:
    job = {"id": "twice", "input": {"sleep_s": 0.5}}
    wide.unkind.hand_out([job, job])
    wide.result_of("twice")
    assert wide.output(echo=1)["echo"] == 1
    assert len(wide.unkind.results_of("twice")) == 1


def test_more_jobs_than_wanted_are_all_done(wide: StubWorker) -> None:
    wide.unkind.hand_out(
        [{"id": f"many-{number}", "input": {"echo": number}} for number in range(9)]
    )
    echoes = [wide.result_of(f"many-{number}")["output"]["echo"] for number in range(9)]
    assert echoes == list(range(9))


@pytest.mark.parametrize("habit", ["drop", "html", "slow", 400, 401, 500, 502])
def test_jobs_come_after_an_unkind_answer(worker: StubWorker, habit: str | int) -> None:
    pid = worker.pid
    worker.unkind.expect("take", habit)
    assert worker.output(echo=1)["pid"] == pid


@pytest.mark.parametrize("answer", [b"[]", b"{{{", b"null", b'"x"', b"5", b"", b"\xff"])
def test_jobs_come_after_an_odd_answer(worker: StubWorker, answer: bytes) -> None:
    pid = worker.pid
    worker.unkind.hand_out(answer)
    assert worker.output(echo=1)["pid"] == pid


# When jobs are taken, and how they end


def test_jobs_follow_each_other_without_a_sleep(worker: StubWorker) -> None:
    began = time.monotonic()
    for number in range(20):
        assert worker.output(echo=number)["echo"] == number
    assert time.monotonic() - began < 19, "the SDK's loop sleeps a second after each job"


def test_a_long_job_holds_no_second_one(worker: StubWorker) -> None:
    first = worker.submit(sleep_s=60)
    worker.wait_for(first, "IN_PROGRESS")
    second = worker.submit(echo=2)
    time.sleep(1)
    assert worker.status(second)["status"] == "IN_QUEUE"
    worker.cancel(first)
    assert worker.wait_for(second)["output"]["echo"] == 2


def test_jobs_never_wait_behind_a_long_one(tmp_path: Path) -> None:
    with stub_worker(tmp_path, workers=2) as worker:
        wait_until(lambda: worker.log.count("action=comfyui.ready") == 2, 60)
        long_job = worker.submit(sleep_s=600)
        busy = worker.wait_for(long_job, "IN_PROGRESS")["workerId"]
        for number in range(20):
            job = worker.wait_for(worker.submit(echo=number))
            assert job["output"]["echo"] == number
            assert job["workerId"] != busy
        assert worker.status(long_job)["status"] == "IN_PROGRESS"
        worker.cancel(long_job)


def test_two_long_jobs_complete_within_their_policy(worker: StubWorker) -> None:
    policy = {"executionTimeout": 5000}
    jobs = [worker.submit(policy=policy, sleep_s=3, echo=number) for number in range(2)]
    assert [worker.wait_for(job)["output"]["echo"] for job in jobs] == [0, 1]


def test_the_sdks_log_names_the_batch(worker: StubWorker) -> None:
    job_input = {"sdk_log": "a line of the SDK", "echo": 1}
    worker.unkind.hand_out({"id": "of-a-batch", "batchId": "batch-7", "input": job_input})
    assert worker.result_of("of-a-batch")["output"]["echo"] == 1
    wait_until(lambda: "[batchId=batch-7] a line of the SDK" in worker.log)
    assert worker.output(sdk_log="another line")
    wait_until(lambda: "another line" in worker.log)
    assert "[batchId=batch-7] another line" not in worker.log


def test_the_next_job_waits_for_the_gpu(worker: StubWorker) -> None:
    first = worker.submit(release=True, sleep_s=60)
    assert worker.output(echo=2)["echo"] == 2
    assert worker.status(first)["status"] == "IN_PROGRESS"
    worker.cancel(first)


def test_jobs_that_were_released_are_bounded(worker: StubWorker) -> None:
    jobs = [worker.submit(release=True, sleep_s=60) for _ in range(6)]
    wait_until(lambda: worker.status(jobs[3])["status"] == "IN_PROGRESS")
    time.sleep(0.5)
    assert [worker.status(job)["status"] for job in jobs[4:]] == ["IN_QUEUE"] * 2
    for job in reversed(jobs):
        worker.cancel(job)


def test_a_cancel_reaches_its_job_alone(wide: StubWorker) -> None:
    first, second = wide.submit(sleep_s=60), wide.submit(sleep_s=2, echo=2)
    wide.wait_for(second, "IN_PROGRESS")
    wide.cancel(first)
    wait_until(lambda: f"cancelled {first}" in wide.log, 5)
    assert wide.wait_for(second)["output"]["echo"] == 2


@pytest.mark.parametrize("habit", ["drop", "html", 429, 500])
def test_a_cancel_comes_after_an_unkind_stop_answer(wide: StubWorker, habit: str | int) -> None:
    wide.unkind.expect("stop", habit)
    job_id = wide.submit(sleep_s=60)
    wide.wait_for(job_id, "IN_PROGRESS")
    wait_until(lambda: not wide.unkind.left("stop"), 30)
    wide.cancel(job_id)
    wait_until(lambda: f"cancelled {job_id}" in wide.log, 15)


def test_progress_that_hangs_holds_no_result_back(worker: StubWorker) -> None:
    worker.unkind.expect("progress", *["hang"] * 5)
    began = time.monotonic()
    assert worker.output(updates=3, echo=1)["echo"] == 1
    assert time.monotonic() - began < 4
    worker.unkind._habits["progress"].clear()


@pytest.mark.parametrize("habit", ["drop", "hang", 500])
def test_a_refused_stream_delays_no_result(tmp_path: Path, habit: str | int) -> None:
    with stub_worker(tmp_path, STREAMING="true") as worker:
        worker.unkind.expect("stream", *[habit] * 100)
        began = time.monotonic()
        output = worker.output(updates=20, echo=1)
        assert output[-1]["echo"] == 1
        assert time.monotonic() - began < 15
        worker.unkind._habits["stream"].clear()
        assert worker.output(updates=2)[-1]["echo"] is None


# The worker's end


def test_a_fresh_worker_waits_for_the_job_beside(tmp_path: Path) -> None:
    with stub_worker(tmp_path, WORKER_CONCURRENCY="2") as worker:
        first = worker.submit(sleep_s=2, echo=1)
        worker.wait_for(first, "IN_PROGRESS")
        second = worker.submit(answer={"error": "X: worn", "refresh_worker": True})
        old = worker.wait_for(second)["workerId"]
        third = worker.submit(echo=3)
        assert worker.wait_for(first)["output"]["echo"] == 1
        assert "stopPod" not in worker.unkind.results_of(second)[0]
        assert worker.unkind.results_of(first)[0]["stopPod"] is True
        done = worker.wait_for(third)
        assert done["output"]["echo"] == 3
        assert done["workerId"] != old


def test_refresh_worker_gives_each_job_its_own(tmp_path: Path) -> None:
    with stub_worker(tmp_path, REFRESH_WORKER="true", WORKER_CONCURRENCY="4") as worker:
        jobs = [worker.submit(release=True) for _ in range(2)]
        ids = {worker.wait_for(job)["workerId"] for job in jobs}
    assert len(ids) == 2


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def test_sigterm_lets_jobs_finish_and_take_no_other(tmp_path: Path) -> None:
    with stub_worker(tmp_path) as worker:
        first = worker.submit(sleep_s=2, echo=1)
        worker.wait_for(first, "IN_PROGRESS")
        second = worker.submit(echo=2)
        worker.unkind.expect("done", "drop", "drop")
        os.kill(worker.pid, signal.SIGTERM)
        done = worker.wait_for(first)
        assert done["output"]["echo"] == 1
        assert worker.wait_for(second)["workerId"] != done["workerId"]


def test_a_second_signal_ends_the_worker_at_once(tmp_path: Path) -> None:
    with stub_worker(tmp_path) as worker:
        job_id = worker.submit(sleep_s=600)
        worker.wait_for(job_id, "IN_PROGRESS")
        processes = family(worker.pid)
        os.kill(processes[0].pid, signal.SIGTERM)
        wait_until(lambda: "action=worker.leaving" in worker.log)
        os.kill(processes[0].pid, signal.SIGTERM)
        _gone, left = psutil.wait_procs(processes, timeout=5)
        assert left == []


def test_the_heartbeat_ends_with_a_killed_worker(tmp_path: Path) -> None:
    with stub_worker(tmp_path) as worker:
        worker.output(echo=1)
        process, *children = family(worker.pid)
        assert children, "the SDK's heartbeat is a process"
        process.kill()
        _gone, left = psutil.wait_procs(children, timeout=5)
        assert left == []


def test_every_job_is_answered_on_a_bad_day(tmp_path: Path) -> None:
    with stub_worker(tmp_path, share=0.25) as worker:
        jobs = [worker.submit(echo=number, updates=1) for number in range(40)]
        echoes = [worker.wait_for(job, timeout_s=90)["output"]["echo"] for job in jobs]
    assert echoes == list(range(40))


def test_an_unknown_sdk_runs_its_own_loop(tmp_path: Path) -> None:
    with stub_worker(tmp_path, TEST_OTHER_SDK="1") as worker:
        assert worker.output(echo=1)["echo"] == 1
        assert "action=worker.sdk_loop" in worker.log
        assert "JobScaler.stop_job" in worker.log


def test_a_retried_job_runs_again_at_once(worker: StubWorker) -> None:
    job_id = worker.submit(answer={"error": "EXECUTION_FAILED: no"})
    for _ in range(5):
        assert worker.wait_for(job_id)["status"] == "FAILED"
        # The worker has asked for its next job while it still had this one.
        retried = requests.post(f"{worker.endpoint.url}/retry/{job_id}", timeout=30).json()
        assert retried["status"] == "IN_QUEUE"
    assert worker.wait_for(job_id)["status"] == "FAILED"
