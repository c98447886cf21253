"""The state machine of the local endpoint, with a clock that the test moves."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from comfy_local.endpoint.job import (
    EXECUTION_TIMEOUT_MS,
    KEEP_RUN_S,
    KEEP_RUNSYNC_S,
    TTL_MS,
    BadRequest,
)
from comfy_local.endpoint.jobs import KEEP_FINISHED, STOP_NOT_BEFORE_S, Jobs, QueueFull, UnknownJob
from comfy_local.endpoint.local import Address, _listening
from comfy_local.endpoint.outputs import OutputStore, StoredOutput
from comfy_local.endpoint.unkind import Unkind, unkind_from


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(clock: Clock) -> Jobs:
    return Jobs(clock)


def queued(jobs: Jobs, value: Any = 1, *, sync: bool = False, **more: Any) -> str:
    return jobs.submit({"input": {"value": value}, **more}, sync=sync).job_id


def started(jobs: Jobs, worker_id: str = "w", **more: Any) -> str:
    job_id = queued(jobs, **more)
    assert [job["id"] for job in jobs.take(worker_id, 1)] == [job_id]
    return job_id


def status(jobs: Jobs, job_id: str) -> str:
    return jobs.get(job_id).status


def test_ids_look_like_runpods(jobs: Jobs) -> None:
    run, runsync = queued(jobs), queued(jobs, sync=True)
    assert run.endswith("-u1")
    assert len(run) == 39
    assert runsync.startswith("sync-")
    assert runsync.endswith("-u1")


def test_a_job_completes_and_reports_its_times(jobs: Jobs, clock: Clock) -> None:
    job_id = queued(jobs, "a")
    assert jobs.get(job_id).describe() == {"id": job_id, "status": "IN_QUEUE"}
    clock.now_s += 1.5
    assert jobs.take("w", 1) == [{"id": job_id, "input": {"value": "a"}}]
    assert jobs.get(job_id).describe() == {
        "id": job_id, "status": "IN_PROGRESS", "delayTime": 1500, "workerId": "w",
    }  # fmt: skip
    clock.now_s += 2.25
    jobs.post_result("w", job_id, {"output": {"x": 1}})
    assert jobs.get(job_id).describe() == {
        "id": job_id, "status": "COMPLETED", "delayTime": 1500, "executionTime": 2250, "workerId": "w",
        "output": {"x": 1},
    }  # fmt: skip


def test_the_worker_gets_only_what_runpod_sends(jobs: Jobs) -> None:
    handed: dict[str, Any] = {
        "s3Config": {"bucketName": "b"},
        "policy": {"ttl": 60000},
        "webhook": "http://127.0.0.1/hook",
    }
    queued(jobs, 1, **handed, self="no", id="no")
    (job,) = jobs.take("w", 1)
    assert job.pop("id") != "no"
    assert job == {"input": {"value": 1}, **handed}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ([], "object"),
        ({}, '"input"'),
        ({"input": None}, '"input"'),
        ({"input": {}, "policy": 5}, '"policy"'),
        ({"input": {}, "policy": {"executionTimeout": "5000"}}, '"policy.executionTimeout"'),
        ({"input": {}, "policy": {"executionTimeout": True}}, '"policy.executionTimeout"'),
        ({"input": {}, "policy": {"ttl": 0}}, '"policy.ttl"'),
    ],
)
def test_a_malformed_body_is_refused(jobs: Jobs, body: object, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        jobs.submit(body, sync=False)
    assert jobs.counts()["inQueue"] == 0


def test_an_empty_input_is_an_input(jobs: Jobs) -> None:
    jobs.submit({"input": {}}, sync=False)
    assert jobs.counts()["inQueue"] == 1


def test_progress_is_shown_only_while_running(jobs: Jobs) -> None:
    job_id = started(jobs)
    jobs.post_result("w", job_id, {"status": "IN_PROGRESS", "output": "half"})
    assert jobs.get(job_id).describe()["output"] == "half"
    jobs.post_result("w", job_id, {"output": "whole"})
    jobs.post_result("w", job_id, {"status": "IN_PROGRESS", "output": "late"})
    assert jobs.get(job_id).describe()["output"] == "whole"
    assert status(jobs, job_id) == "COMPLETED"


def test_a_failed_job_keeps_its_output(jobs: Jobs) -> None:
    job_id = started(jobs)
    jobs.post_result("w", job_id, {"error": "CODE: why", "output": {"details": [1]}})
    shown = jobs.get(job_id).describe()
    assert (shown["status"], shown["error"], shown["output"]) == (
        "FAILED",
        "CODE: why",
        {"details": [1]},
    )


def test_errors_of_other_types_become_text(jobs: Jobs) -> None:
    job_id = started(jobs)
    jobs.post_result("w", job_id, {"error": {"code": 7}})
    assert jobs.get(job_id).describe()["error"] == '{"code": 7}'


def test_another_workers_result_is_dropped(jobs: Jobs) -> None:
    job_id = started(jobs)
    jobs.post_result("other", job_id, {"output": "stolen"})
    jobs.post_stream("other", job_id, {"output": "stolen"})
    jobs.post_result("w", "no-such-job", {"output": "lost"})
    assert status(jobs, job_id) == "IN_PROGRESS"
    assert jobs.take_stream(job_id)["stream"] == []


def test_a_cancelled_queued_job_never_runs(jobs: Jobs) -> None:
    job_id = queued(jobs)
    assert jobs.cancel(job_id).status == "CANCELLED"
    assert jobs.take("w", 1) == []
    assert not jobs.has_stops()


def test_a_cancel_reaches_the_worker_once(jobs: Jobs, clock: Clock) -> None:
    job_id = started(jobs)
    clock.now_s += 60
    assert jobs.cancel(job_id).status == "CANCELLED"
    assert jobs.take_stops("other") == []
    assert jobs.take_stops("w") == [job_id]
    assert jobs.take_stops("w") == []
    jobs.post_result("w", job_id, {"output": "late"})
    assert "output" not in jobs.get(job_id).describe()


def test_a_stop_waits_for_the_job_start(jobs: Jobs, clock: Clock) -> None:
    job_id = started(jobs)
    jobs.cancel(job_id)
    assert jobs.take_stops("w") == []
    clock.now_s += STOP_NOT_BEFORE_S
    assert jobs.take_stops("w") == [job_id]


def test_cancelling_a_finished_job_changes_nothing(jobs: Jobs) -> None:
    job_id = started(jobs)
    jobs.post_result("w", job_id, {"output": 1})
    assert jobs.cancel(job_id).status == "COMPLETED"


def test_purge_removes_only_queued_jobs(jobs: Jobs) -> None:
    running, waiting = started(jobs), [queued(jobs), queued(jobs)]
    assert jobs.purge() == 2
    assert status(jobs, running) == "IN_PROGRESS"
    assert [status(jobs, job_id) for job_id in waiting] == ["CANCELLED", "CANCELLED"]


def test_cancel_all_ends_queued_and_running_jobs(jobs: Jobs) -> None:
    ids = [started(jobs), queued(jobs)]
    jobs.cancel_all()
    assert [status(jobs, job_id) for job_id in ids] == ["CANCELLED", "CANCELLED"]
    assert jobs.has_stops()


@pytest.mark.parametrize("policy", [None, {"executionTimeout": 9000}])
def test_the_execution_timeout_stops_a_job(
    jobs: Jobs, clock: Clock, policy: dict[str, int] | None
) -> None:
    job_id = started(jobs, policy=policy)
    limit_s = (9000 if policy else EXECUTION_TIMEOUT_MS) / 1000
    clock.now_s += limit_s - 0.01
    jobs.tick()
    assert status(jobs, job_id) == "IN_PROGRESS"
    clock.now_s += 0.01
    jobs.tick()
    shown = jobs.get(job_id).describe()
    assert (shown["status"], shown["error"]) == ("TIMED_OUT", "executionTimeout exceeded")
    assert shown["executionTime"] == limit_s * 1000
    assert jobs.take_stops("w") == [job_id]


@pytest.mark.parametrize("policy", [None, {"ttl": 10000}])
def test_the_ttl_times_out_a_queued_job(
    jobs: Jobs, clock: Clock, policy: dict[str, int] | None
) -> None:
    job = jobs.get(queued(jobs, policy=policy))
    clock.now_s += (10000 if policy else TTL_MS) / 1000
    jobs.tick()
    assert job.describe() == {"id": job.job_id, "status": "TIMED_OUT", "error": "ttl exceeded"}
    with pytest.raises(UnknownJob):  # RunPod removes it
        jobs.get(job.job_id)
    assert jobs.take("w", 1) == []


@pytest.mark.parametrize(("sync", "keep_s"), [(True, KEEP_RUNSYNC_S), (False, KEEP_RUN_S)])
def test_a_finished_job_is_dropped_after_its_time(
    jobs: Jobs, clock: Clock, sync: bool, keep_s: float
) -> None:
    job_id = started(jobs, sync=sync)
    jobs.post_result("w", job_id, {"output": 1})
    clock.now_s += keep_s - 1
    jobs.tick()
    assert status(jobs, job_id) == "COMPLETED"
    clock.now_s += 1
    jobs.tick()
    with pytest.raises(UnknownJob, match=job_id):
        jobs.get(job_id)


def test_too_many_finished_jobs_drop_the_oldest(clock: Clock) -> None:
    jobs = Jobs(clock, max_queue_size=2 * KEEP_FINISHED)
    ids = [queued(jobs) for _ in range(KEEP_FINISHED + 2)]
    jobs.purge()
    jobs.tick()
    with pytest.raises(UnknownJob):
        jobs.get(ids[1])
    assert status(jobs, ids[2]) == "CANCELLED"


def test_no_more_jobs_wait_than_may(clock: Clock) -> None:
    jobs = Jobs(clock, max_queue_size=2)
    started(jobs)
    queued(jobs)
    queued(jobs)
    with pytest.raises(QueueFull, match="2 jobs wait"):
        queued(jobs)
    jobs.take("w", 1)
    queued(jobs)


def test_a_job_whose_result_is_refused_fails(jobs: Jobs) -> None:
    job_id = started(jobs)
    jobs.refuse_result("another", job_id, "why")
    assert status(jobs, job_id) == "IN_PROGRESS"
    jobs.refuse_result("w", job_id, "why")
    assert (status(jobs, job_id), jobs.get(job_id).error) == ("FAILED", "why")


def test_a_lost_workers_job_runs_once_more(jobs: Jobs, clock: Clock) -> None:
    job_id = started(jobs, "first")
    jobs.post_result("first", job_id, {"status": "IN_PROGRESS", "output": "half"})
    later = queued(jobs)
    jobs.worker_gone("first")
    assert jobs.get(job_id).describe() == {"id": job_id, "status": "IN_QUEUE", "retries": 1}
    assert jobs.counts()["retried"] == 1
    clock.now_s += 3
    assert [job["id"] for job in jobs.take("second", 2)] == [job_id, later]
    jobs.worker_gone("second")
    shown = jobs.get(job_id).describe()
    assert (shown["status"], shown["error"]) == ("FAILED", "job timed out after 1 retries")
    assert (shown["retries"], shown["delayTime"]) == (1, 3000)
    assert status(jobs, later) == "IN_QUEUE"


def test_jobs_of_an_ended_worker_keep_their_order(jobs: Jobs) -> None:
    ids = [queued(jobs) for _ in range(3)]
    jobs.take("w", 3)
    jobs.worker_gone("w")
    assert [job["id"] for job in jobs.take("other", 3)] == ids


def test_a_leaving_worker_only_finishes_its_jobs(jobs: Jobs) -> None:
    held = started(jobs)
    queued(jobs)
    jobs.leave("w")
    assert jobs.is_leaving("w")
    assert jobs.take("w", 1) == []
    jobs.post_result("w", held, {"output": 1})
    assert status(jobs, held) == "COMPLETED"


def test_a_batch_leaves_jobs_for_idle_workers(jobs: Jobs) -> None:
    for _ in range(2):
        queued(jobs)
    with jobs.polling("a"), jobs.polling("b"):
        assert len(jobs.take("a", 4)) == 1
        assert jobs.load("a") == 1
        assert len(jobs.take("b", 4)) == 1


def test_a_lone_worker_takes_its_whole_batch(jobs: Jobs) -> None:
    for _ in range(3):
        queued(jobs)
    with jobs.polling("b"):
        pass
    with jobs.polling("a"):
        assert len(jobs.take("a", 2)) == 2


def test_stream_chunks_are_given_out_once(jobs: Jobs) -> None:
    job_id = started(jobs)
    jobs.post_stream("w", job_id, {"output": 1})
    jobs.post_stream("w", job_id, {"output": 2})
    assert jobs.take_stream(job_id) == {
        "status": "IN_PROGRESS",
        "stream": [{"output": 1}, {"output": 2}],
    }
    jobs.post_result("w", job_id, {"output": []})
    assert jobs.take_stream(job_id) == {"status": "COMPLETED", "stream": []}


def test_counts_tell_every_state(jobs: Jobs, clock: Clock) -> None:
    done, failed, late = started(jobs), started(jobs), started(jobs, policy={"executionTimeout": 1})
    jobs.post_result("w", done, {"output": 1})
    jobs.post_result("w", failed, {"error": "E"})
    clock.now_s += 1
    jobs.tick()
    started(jobs)
    queued(jobs)
    assert status(jobs, late) == "TIMED_OUT"
    assert jobs.counts() == {
        "completed": 1,
        "failed": 2,
        "inProgress": 1,
        "inQueue": 1,
        "retried": 0,
    }


def test_what_a_finished_job_was_given_is_forgotten(jobs: Jobs) -> None:
    job_id = started(jobs)
    jobs.post_result("w", job_id, {"output": 1})
    assert jobs.get(job_id).request == {}


def test_large_outputs_stay_on_disk_until_dropped() -> None:
    clock, outputs = Clock(), OutputStore()
    jobs = Jobs(clock, outputs=outputs)
    job = jobs.submit({"input": {}}, sync=True)
    jobs.take("w", 1)
    large = {"data": "x" * 100_000}
    jobs.post_result("w", job.job_id, {"output": large})
    assert isinstance(job.output, StoredOutput)
    path = job.output.path
    assert jobs.get(job.job_id).describe()["output"] == large
    clock.now_s += KEEP_RUNSYNC_S + 1
    jobs.tick()
    assert not path.exists()
    outputs.close()
    assert not path.parent.exists()


def test_a_small_output_stays_in_memory() -> None:
    outputs = OutputStore()
    assert outputs.keep({"a": 1}) == {"a": 1}
    outputs.close()


def test_the_listening_socket_names_tcp() -> None:
    with _listening(Address()) as listener:
        assert listener.proto == socket.IPPROTO_TCP, "else asyncio leaves Nagle's algorithm on"


@pytest.mark.parametrize("text", ["much", "2", "-1", "nan"])
def test_an_unkindness_that_makes_no_sense_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="UNKIND must be a number between 0 and 1"):
        unkind_from(text)


def test_a_habit_that_is_not_known_is_told() -> None:
    assert unkind_from(" ") is None
    with pytest.raises(ValueError, match="'droop' is not a habit"):
        Unkind({"done": ["droop"]})


@pytest.mark.parametrize("outcome", ["failed", "timed out", "failed, with a large input"])
def test_retry_queues_the_same_input_again(jobs: Jobs, clock: Clock, outcome: str) -> None:
    given_input = {"prompt": "a" * (100_000 if "large" in outcome else 3)}
    job = jobs.submit({"input": given_input, "policy": {"executionTimeout": 9000}}, sync=False)
    jobs.take("w", 1)
    if outcome == "timed out":
        clock.now_s += 9
        jobs.tick()
    else:
        jobs.post_result("w", job.job_id, {"error": "E", "output": {"a": 1}})
    assert job.finished
    assert jobs.retry(job.job_id) is job
    assert job.describe() == {"id": job.job_id, "status": "IN_QUEUE"}
    taken = jobs.take("w", 1)
    assert taken == [{"id": job.job_id, "input": given_input, "policy": {"executionTimeout": 9000}}]
    clock.now_s += KEEP_RUN_S + 1  # the first result's time does not count any more
    jobs.post_result("w", job.job_id, {"output": 2})
    jobs.tick()
    assert jobs.get(job.job_id).describe()["output"] == 2


@pytest.mark.parametrize("state", ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "CANCELLED"])
def test_only_a_failed_job_can_be_retried(jobs: Jobs, state: str) -> None:
    job_id = queued(jobs) if state == "IN_QUEUE" else started(jobs)
    if state == "COMPLETED":
        jobs.post_result("w", job_id, {"output": 1})
    if state == "CANCELLED":
        jobs.cancel(job_id)
    with pytest.raises(BadRequest, match=f"this one is {state}"):
        jobs.retry(job_id)
    with pytest.raises(UnknownJob):
        jobs.retry("none")


def test_a_client_can_shorten_a_result(jobs: Jobs, clock: Clock) -> None:
    job = jobs.get(started(jobs))
    jobs.keep_for(job, 1)  # ignored: it runs
    jobs.post_result("w", job.job_id, {"output": 1})
    jobs.keep_for(job, 5)
    clock.now_s += 4
    jobs.tick()
    assert jobs.get(job.job_id) is job
    clock.now_s += 1
    jobs.tick()
    assert job not in jobs.all()


def test_webhooks_are_due_when_jobs_end(jobs: Jobs) -> None:
    plain, with_hook = (
        jobs.submit({"input": {}, **more}, sync=False)
        for more in ({}, {"webhook": "http://host/hook"})
    )
    assert not jobs.webhooks
    for job in (plain, with_hook):
        jobs.take("w", 1)
        jobs.post_result("w", job.job_id, {"output": 1})
    assert list(jobs.webhooks) == [with_hook]
    assert with_hook.webhook == "http://host/hook"
    with pytest.raises(BadRequest, match="webhook"):
        jobs.submit({"input": {}, "webhook": "file:///etc/passwd"}, sync=False)
