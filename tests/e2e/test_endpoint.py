"""The local endpoint under the SDK's real job loop, RunPod's own client and curl; no ComfyUI.

The handlers are small scripts that the tests write: one coroutine that does what its input says, one generator.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from comfy_local.endpoint import Address, LocalEndpoint, webhooks
from comfy_local.endpoint.workers import STOP_GRACE_S
from tests.file_server import ClosingServer, serving
from tests.tools import require

pytestmark = pytest.mark.e2e

REPO = Path(__file__).resolve().parents[2]

HANDLER = """
import asyncio, os, pathlib, sys, time
import runpod

async def handler(job):
    given = job["input"]
    if "progress" in given:
        runpod.serverless.progress_update(job, given["progress"])
    if "sleep_s" in given:
        try:
            await asyncio.sleep(given["sleep_s"])
        except asyncio.CancelledError:
            pathlib.Path(given.get("cancelled_file", os.devnull)).write_text("cancelled")
            raise
    if "block_s" in given:
        time.sleep(given["block_s"])
    if "bytes" in given:
        return "x" * given["bytes"]
    if "raise" in given:
        raise ValueError(given["raise"])
    return {"pid": os.getpid(), "input": given} | given.get("answer", {})

print("action=comfyui.ready", file=sys.stderr, flush=True)
slots = int(os.environ.get("TEST_SLOTS", "8"))
runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _now: slots})
"""

GENERATOR = """
import asyncio, runpod

async def handler(job):
    for index in range(job["input"]["count"]):
        yield {"index": index, "data": "x" * job["input"].get("bytes", 0)}
        await asyncio.sleep(0.05)

runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
"""

CLIENT = """
import json, sys, time
import runpod

runpod.api_key = "any"
endpoint = runpod.Endpoint("any-endpoint")
seen = {"run_sync": endpoint.run_sync({"input": {"n": 1}}, timeout=30)["input"]}
job = endpoint.run({"n": 2})
seen["run"] = job.output(timeout=30)["input"]
seen["status"] = job.status()
slow = endpoint.run({"sleep_s": 60})
while slow.status() != "IN_PROGRESS":
    time.sleep(0.1)
seen["cancel"] = slow.cancel()["status"]
seen["health"] = sorted(endpoint.health())
seen["purge"] = endpoint.purge_queue()
runpod.endpoint_url_base = sys.argv[1]
seen["stream"] = list(runpod.Endpoint("other").run({"count": 3}).stream())
print(json.dumps(seen))
"""

HOLDER = """
import sys, time
from pathlib import Path
from comfy_local.endpoint import LocalEndpoint
from comfy_local.endpoint.workers import STOP_GRACE_S

endpoint = LocalEndpoint(handler=Path(sys.argv[1]), log_path=Path(sys.argv[2]))
endpoint.start()
endpoint.wait_ready(60)
print("ready", flush=True)
time.sleep(600)
"""

QUIET = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("action=comfyui.ready", flush=True)
time.sleep(600)
"""

SERVE = """
import sys
from pathlib import Path
from comfy_local.endpoint import Address, serve

sys.exit(serve(Address(port=int(sys.argv[1])), 1, handler=Path(sys.argv[2])))
"""

SERVE_QUIETLY = SERVE.replace(
    "sys.exit(serve(Address(port=int(sys.argv[1])), 1, handler=Path(sys.argv[2])))",
    """
from comfy_common.closed_pipe import quiet_on_closed_pipe

sys.exit(quiet_on_closed_pipe(lambda: serve(Address(port=int(sys.argv[1])), 1, handler=Path(sys.argv[2]))))
""",
)


def wait_until(look: Callable[[], Any], timeout_s: float = 20) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.05)
    return found


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def assert_gone(processes: list[psutil.Process]) -> None:
    def left() -> list[psutil.Process]:
        return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    wait_until(lambda: not left(), 30)


class Client:
    """The public API by plain HTTP."""

    def __init__(self, endpoint: LocalEndpoint) -> None:
        self.url = endpoint.url

    def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(f"{self.url}/{path}", timeout=30).json()
        return answer

    def post(self, path: str, body: object = None) -> dict[str, Any]:
        answer: dict[str, Any] = requests.post(f"{self.url}/{path}", json=body, timeout=30).json()
        return answer

    def run(self, job_input: dict[str, Any], **more: Any) -> str:
        answer = self.post("run", {"input": job_input, **more})
        assert answer == {"id": answer["id"], "status": "IN_QUEUE"}
        return str(answer["id"])

    def runsync(self, job_input: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.post("runsync", {"input": job_input, **more})

    def wait_for(self, job_id: str, *status: str) -> dict[str, Any]:
        def shown() -> dict[str, Any] | None:
            job = self.get(f"status/{job_id}")
            return job if job["status"] in status else None

        found: dict[str, Any] = wait_until(shown)
        return found


def write(folder: Path, name: str, code: str) -> Path:
    path = folder / name
    path.write_text(code)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("endpoint")


@pytest.fixture(scope="module")
def handler(folder: Path) -> Path:
    return write(folder, "handler.py", HANDLER)


@pytest.fixture(scope="module")
def endpoint(handler: Path, folder: Path) -> Iterator[LocalEndpoint]:
    """Two workers of eight slots each."""
    with LocalEndpoint(handler=handler, workers=2, log_path=folder / "two.log") as endpoint:
        wait_until(lambda: all(worker.ready for worker in endpoint.workers))
        yield endpoint


@pytest.fixture(scope="module")
def client(endpoint: LocalEndpoint) -> Client:
    return Client(endpoint)


@pytest.fixture(scope="module")
def narrow(handler: Path, folder: Path) -> Iterator[LocalEndpoint]:
    """One worker that does one job at a time."""
    environ = {**os.environ, "TEST_SLOTS": "1"}
    with LocalEndpoint(
        handler=handler, environ=environ, log_path=folder / "narrow.log"
    ) as endpoint:
        assert endpoint.wait_ready(30)
        yield endpoint


@pytest.fixture(scope="module")
def generator(folder: Path) -> Iterator[LocalEndpoint]:
    path = write(folder, "generator.py", GENERATOR)
    with LocalEndpoint(handler=path, log_path=folder / "generator.log") as endpoint:
        yield endpoint


def test_runsync_returns_the_finished_job(client: Client) -> None:
    job = client.runsync({"word": "hello"})
    assert job["status"] == "COMPLETED"
    assert job["id"].startswith("sync-")
    assert job["output"]["input"] == {"word": "hello"}
    assert isinstance(job["delayTime"], int)
    assert isinstance(job["executionTime"], int)
    assert job["workerId"]


def test_run_and_status_by_get_and_post(client: Client) -> None:
    job_id = client.run({"word": "hello", "sleep_s": 0.3})
    job = client.wait_for(job_id, "COMPLETED")
    assert not job_id.startswith("sync-")
    assert 300 <= job["executionTime"] < 3000
    assert client.post(f"status/{job_id}") == job


def test_runsync_returns_the_unfinished_job_after_waiting(client: Client) -> None:
    job = client.post("runsync?wait=1000", {"input": {"sleep_s": 1.5}})
    assert job["status"] == "IN_PROGRESS"
    assert client.wait_for(job["id"], "COMPLETED")["output"]["input"] == {"sleep_s": 1.5}


def test_a_failed_job_keeps_the_other_output(client: Client) -> None:
    job = client.runsync({"answer": {"error": "CODE: why", "details": [1]}})
    assert (job["status"], job["error"], job["output"]["details"]) == ("FAILED", "CODE: why", [1])


def test_an_exception_of_the_handler_fails_the_job(client: Client) -> None:
    job = client.runsync({"raise": "broken"})
    assert job["status"] == "FAILED"
    assert json.loads(job["error"])["error_message"] == "broken"


def test_a_running_jobs_output_is_its_progress(client: Client) -> None:
    job_id = client.run({"progress": {"percent": 50}, "sleep_s": 1})
    shown = wait_until(lambda: client.get(f"status/{job_id}").get("output"))
    assert shown == {"percent": 50}
    assert client.wait_for(job_id, "COMPLETED")["output"]["input"]["sleep_s"] == 1


def test_two_workers_share_the_jobs(client: Client, endpoint: LocalEndpoint) -> None:
    ids = [client.run({"sleep_s": 0.5}) for _ in range(4)]
    pids = {client.wait_for(job_id, "COMPLETED")["output"]["pid"] for job_id in ids}
    assert pids == {worker.pid for worker in endpoint.workers}


def test_cancel_reaches_the_handler_within_two_seconds(client: Client, tmp_path: Path) -> None:
    cancelled = tmp_path / "cancelled"
    job_id = client.run({"sleep_s": 60, "cancelled_file": str(cancelled)})
    client.wait_for(job_id, "IN_PROGRESS")
    assert client.post(f"cancel/{job_id}") == {"id": job_id, "status": "CANCELLED"}
    wait_until(cancelled.exists, 2)
    assert client.get(f"status/{job_id}")["status"] == "CANCELLED"
    assert client.runsync({})["status"] == "COMPLETED"


def test_a_job_past_its_execution_timeout_is_stopped(client: Client, tmp_path: Path) -> None:
    cancelled = tmp_path / "cancelled"
    job = client.runsync(
        {"sleep_s": 60, "cancelled_file": str(cancelled)}, policy={"executionTimeout": 500}
    )
    assert (job["status"], job["error"]) == ("TIMED_OUT", "executionTimeout exceeded")
    assert 500 <= job["executionTime"] < 2000
    wait_until(cancelled.exists, 2)


def test_queued_jobs_can_be_cancelled_and_purged(narrow: LocalEndpoint) -> None:
    client = Client(narrow)
    running = client.run({"sleep_s": 60})
    client.wait_for(running, "IN_PROGRESS")
    waiting = [client.run({}) for _ in range(3)]
    expiring = client.run({}, policy={"ttl": 100})
    wait_until(lambda: "there is no job" in client.get(f"status/{expiring}").get("error", ""))
    assert client.post(f"cancel/{waiting[0]}")["status"] == "CANCELLED"
    assert client.get("health")["jobs"]["inQueue"] == 2
    assert client.post("purge-queue") == {"removed": 2, "status": "completed"}
    assert client.get(f"status/{waiting[2]}")["status"] == "CANCELLED"
    assert client.get(f"status/{running}")["status"] == "IN_PROGRESS"
    client.post(f"cancel/{running}")
    assert client.runsync({})["status"] == "COMPLETED"


def test_health_has_runpods_names(client: Client) -> None:
    client.runsync({})
    health = client.get("health")
    assert set(health["jobs"]) == {"completed", "failed", "inProgress", "inQueue", "retried"}
    assert health["jobs"]["completed"] >= 1
    assert health["workers"] == {
        "idle": 2, "initializing": 0, "ready": 2, "running": 0, "throttled": 0, "unhealthy": 0,
    }  # fmt: skip


def test_a_generator_streams_and_returns_its_values(generator: LocalEndpoint) -> None:
    client = Client(generator)
    job_id = client.run({"count": 4})
    chunks: list[Any] = []

    def streamed_to_the_end() -> bool:
        answer = client.get(f"stream/{job_id}")
        chunks.extend(answer["stream"])
        return bool(answer["status"] == "COMPLETED")

    wait_until(streamed_to_the_end)
    assert chunks == [{"output": {"index": index, "data": ""}} for index in range(4)]
    assert client.get(f"status/{job_id}")["output"] == [chunk["output"] for chunk in chunks]


def test_streamed_values_over_1_mb_are_refused(generator: LocalEndpoint) -> None:
    client = Client(generator)
    job_id = client.run({"count": 1, "bytes": 1_000_000})
    job = client.wait_for(job_id, "COMPLETED")
    assert len(job["output"][0]["data"]) == 1_000_000
    assert client.get(f"stream/{job_id}")["stream"] == []


@pytest.mark.parametrize(("operation", "limit_mb"), [("run", 10), ("runsync", 20)])
def test_a_request_larger_than_runpod_takes_gets_413(
    client: Client, operation: str, limit_mb: int
) -> None:
    for extra_bytes, status in ((-100, 200), (1, 413)):
        body = {"input": {"x": "x" * (limit_mb * 1_000_000 + extra_bytes), "answer": {"input": 0}}}
        answer = requests.post(f"{client.url}/{operation}", json=body, timeout=30)
        assert answer.status_code == status
    assert f"RunPod accepts at most {limit_mb},000,000" in answer.json()["error"]


def test_an_oversized_result_fails_its_job(client: Client) -> None:
    job_input = {"bytes": 10_000_000}
    refused = client.wait_for(client.run(job_input), "FAILED")
    assert refused["error"].startswith("the result was refused: the body has 10,000,")
    assert "output" not in refused
    assert len(client.runsync(job_input)["output"]) == 10_000_000
    assert client.runsync({"bytes": 20_000_000})["status"] == "FAILED"


def test_jobs_beyond_max_queue_size_get_429(handler: Path, folder: Path) -> None:
    environ = {**os.environ, "TEST_SLOTS": "1", "MAX_QUEUE_SIZE": "2"}
    with LocalEndpoint(handler=handler, environ=environ, log_path=folder / "full.log") as endpoint:
        client = Client(endpoint)
        client.wait_for(client.run({"sleep_s": 60}), "IN_PROGRESS")
        client.run({})
        client.run({})
        answer = requests.post(f"{client.url}/run", json={"input": {}}, timeout=30)
        assert answer.status_code == 429
        assert "MAX_QUEUE_SIZE" in answer.json()["error"]
        assert int(answer.headers["Retry-After"]) > 0
        client.post("purge-queue")
        client.run({})


@pytest.mark.parametrize("size", ["0", "many", "-1"])
def test_an_invalid_max_queue_size_is_reported(handler: Path, size: str) -> None:
    with pytest.raises(ValueError, match="MAX_QUEUE_SIZE must be a whole number"):
        LocalEndpoint(handler=handler, environ={"MAX_QUEUE_SIZE": size}).start()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "not JSON"),
        (b'{"input": {"x": NaN}}', "NaN"),
        (b"\xff", "not JSON"),
        (b'{"input": {"prompt": "\\ud800"}}', "not JSON"),
        (b'{"input": {"cfg": 1e400}}', "not JSON"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b"[]", "object"),
        (b'{"prompt": "x"}', '"input"'),
        (b'{"input": {}, "policy": {"ttl": "soon"}}', '"policy.ttl"'),
    ],
)
@pytest.mark.parametrize("operation", ["run", "runsync"])
def test_a_malformed_request_gets_400_and_a_reason(
    client: Client, operation: str, body: bytes, named: str
) -> None:
    answer = requests.post(f"{client.url}/{operation}", data=body, timeout=30)
    assert answer.status_code == 400
    assert named in answer.json()["error"]


def test_a_wait_that_is_no_number_gets_400(client: Client) -> None:
    answer = requests.post(f"{client.url}/runsync?wait=long", json={"input": {}}, timeout=30)
    assert answer.status_code == 400
    assert '"wait"' in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "operation"),
    [("GET", "status"), ("POST", "status"), ("GET", "stream"), ("POST", "cancel")],
)
def test_an_unknown_job_gets_404(client: Client, method: str, operation: str) -> None:
    answer = requests.request(method, f"{client.url}/{operation}/no-such-job", timeout=30)
    assert answer.status_code == 404
    assert "no-such-job" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"not json", b"[1]", b'{"output": NaN}'])
def test_results_must_be_json_objects(client: Client, body: bytes) -> None:
    answer = requests.post(
        f"{client.url}/job-done/some-worker/some-job?gpu=x", data=body, timeout=30
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("key", [None, "KEY", "Bearer KEY"])
def test_any_endpoint_id_and_any_key_will_do(client: Client, key: str | None) -> None:
    url = client.url.replace("/local", "/abc123xyz") + "/health"
    assert (
        requests.get(url, headers={"Authorization": key} if key else {}, timeout=30).status_code
        == 200
    )


def test_it_listens_on_loopback_only(endpoint: LocalEndpoint) -> None:
    listening = [
        c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"
    ]
    assert set(listening) == {"127.0.0.1"}


def test_curl_as_runpod_documents_it(client: Client) -> None:
    require("curl")
    url = client.url.replace("/local", "/YOUR_ENDPOINT")
    done = subprocess.run(
        ["curl", "-sS", "--request", "POST", "--url", f"{url}/runsync", "-H", "accept: application/json",
         "-H", "authorization: KEY", "-H", "content-type: application/json",
         "-d", '{"input": {"prompt": "Hello, world!"}}'],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["output"]["input"] == {"prompt": "Hello, world!"}


def test_runpods_python_client_works_but_for_the_host(
    client: Client, generator: LocalEndpoint, tmp_path: Path
) -> None:
    base, other = client.url.removesuffix("/local"), generator.url.removesuffix("/local")
    done = subprocess.run(
        [sys.executable, str(write(tmp_path, "client.py", CLIENT)), other],
        env={**os.environ, "RUNPOD_ENDPOINT_BASE_URL": base}, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout) == {
        "run_sync": {"n": 1},
        "run": {"n": 2},
        "status": "COMPLETED",
        "cancel": "CANCELLED",
        "health": ["jobs", "workers"],
        "purge": {"removed": 0, "status": "completed"},
        "stream": [{"index": index, "data": ""} for index in range(3)],
    }


def test_refresh_worker_replaces_the_worker(
    narrow: LocalEndpoint,
) -> None:
    client = Client(narrow)
    (before,) = narrow.workers
    job = client.runsync({"answer": {"refresh_worker": True}})
    assert job["status"] == "COMPLETED"
    wait_until(lambda: before.process.returncode is not None)
    assert before.process.returncode == 0
    after = client.runsync({})
    assert after["status"] == "COMPLETED"
    assert after["workerId"] != job["workerId"]


def test_a_killed_workers_job_runs_once_more(narrow: LocalEndpoint) -> None:
    client = Client(narrow)
    retried_before = client.get("health")["jobs"]["retried"]
    job_id = client.run({"sleep_s": 60})
    for status_after_the_kill in ("IN_QUEUE", "FAILED"):
        job = client.wait_for(job_id, "IN_PROGRESS")
        (worker,) = narrow.workers
        assert worker.worker_id == job["workerId"]
        processes = family(worker.pid)
        worker.process.kill()
        assert_gone(processes)
        client.wait_for(job_id, status_after_the_kill)
    shown = client.get(f"status/{job_id}")
    assert (shown["status"], shown["retries"]) == ("FAILED", 1)
    assert shown["error"] == "job timed out after 1 retries"
    assert client.get("health")["jobs"]["retried"] == retried_before + 1
    assert client.runsync({})["status"] == "COMPLETED"


def test_close_stops_running_jobs_and_leaves_no_process(handler: Path, tmp_path: Path) -> None:
    cancelled, log = tmp_path / "cancelled", tmp_path / "log"
    with LocalEndpoint(handler=handler, log_path=log) as endpoint:
        job_id = Client(endpoint).run({"sleep_s": 60, "cancelled_file": str(cancelled)})
        Client(endpoint).wait_for(job_id, "IN_PROGRESS")
        processes = psutil.Process().children(recursive=True)
        mine = [p for worker in endpoint.workers for p in family(worker.pid)]
        start_s = time.monotonic()
    assert time.monotonic() - start_s < STOP_GRACE_S
    assert cancelled.exists()
    assert all(process in processes for process in mine)
    assert not any(process.is_running() for process in mine)
    assert f"{job_id} | Started." in log.read_text()
    endpoint.close()
    with pytest.raises(requests.ConnectionError):
        Client(endpoint).get("health")


def test_a_worker_that_does_not_end_is_killed(
    handler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_local.endpoint.workers.STOP_GRACE_S", 0.5)
    with LocalEndpoint(handler=handler, log_path=tmp_path / "log") as endpoint:
        job_id = Client(endpoint).run({"block_s": 60})
        Client(endpoint).wait_for(job_id, "IN_PROGRESS")
        (worker,) = endpoint.workers
        processes = family(worker.pid)
    assert worker.process.returncode == -signal.SIGKILL
    assert_gone(processes)


def test_a_failing_handler_restarts_ever_more_slowly(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    code = f"open({str(starts)!r}, 'a').write('x'); raise SystemExit(3)"
    with LocalEndpoint(
        handler=write(tmp_path, "broken.py", code), log_path=tmp_path / "log"
    ) as endpoint:
        wait_until(lambda: starts.exists() and len(starts.read_text()) == 2)
        assert wait_until(lambda: Client(endpoint).get("health")["workers"]["unhealthy"]) == 1
        assert not endpoint.wait_ready(0)
        time.sleep(0.5)
        assert len(starts.read_text()) == 2


def test_a_missing_handler_or_interpreter_raises_at_start(
    handler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="no handler at"):
        LocalEndpoint(handler=tmp_path / "none.py").start()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(FileNotFoundError, match="no-python"):
        LocalEndpoint(handler=handler).start()


@contextmanager
def program(
    code: str, *arguments: str, folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """A process of its own with this code; yields it and the files that get its output and its errors."""
    out, err = folder / "out", folder / "err"
    command = [sys.executable, "-c", code, *arguments]
    with out.open("wb") as out_file, err.open("wb") as err_file:
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(REPO)}, stdout=out_file, stderr=err_file
        )
    try:
        yield process, out, err
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("code", [HANDLER, QUIET], ids=["sdk", "quiet"])
def test_the_workers_of_a_killed_process_end_too(tmp_path: Path, code: str) -> None:
    handler, log = write(tmp_path, "handler.py", code), tmp_path / "log"
    with program(HOLDER, str(handler), str(log), folder=tmp_path) as (holder, out, _):
        wait_until(lambda: "ready" in out.read_text())
        # The guard, the worker, and its child: the SDK's heartbeat, or what stands for it.
        processes = wait_until(
            lambda: len(found := psutil.Process(holder.pid).children(True)) >= 3 and found
        )
    assert_gone(processes)


def test_serve_reports_ready_and_ends_on_ctrl_c(handler: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with program(SERVE, str(port), str(handler), folder=tmp_path) as (served, out, err):
        wait_until(lambda: "page" in out.read_text())  # the last line
        processes = psutil.Process(served.pid).children(recursive=True)
        printed = out.read_text().splitlines()
        assert "for development and tests" in printed[0]
        (ready,) = [line for line in printed if line.startswith("ready: ")]
        assert ready.startswith(f"ready: http://127.0.0.1:{port}/v2/local")
        assert "action=comfyui.ready" in err.read_text()
        served.send_signal(signal.SIGINT)
        assert served.wait(20) == 0
    assert_gone(processes)


def test_serve_ends_when_its_reader_ends(tmp_path: Path) -> None:
    handler = write(tmp_path, "handler.py", HANDLER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # As in `serve | head -1`: the reader takes one line and ends.
    command = [sys.executable, "-c", SERVE_QUIETLY, str(port), str(handler)]
    with (tmp_path / "err").open("wb") as err:
        served = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=err)
    try:
        assert served.stdout is not None
        assert b"for development and tests" in served.stdout.readline()
        served.stdout.close()
        assert served.wait(60) == 141
    finally:
        served.kill()
        served.wait()
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert [command for command in commands if str(handler) in command] == []
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_serve_reports_a_taken_port_in_one_line(
    endpoint: LocalEndpoint, handler: Path, tmp_path: Path
) -> None:
    port = endpoint.url.split(":")[2].split("/")[0]
    with program(SERVE, port, str(handler), folder=tmp_path) as (served, _, err):
        assert served.wait(20) == 1
    assert (
        err.read_text()
        == f"The endpoint could not start: port {port} is taken; choose another with --port.\n"
    )


def test_status_sync_waits_for_the_result(client: Client) -> None:
    job_id = client.run({"sleep_s": 1})
    job = client.get(f"status-sync/{job_id}?wait=30000")
    assert (job["id"], job["status"]) == (job_id, "COMPLETED")
    slow = client.run({"sleep_s": 60})
    waiting = client.post(f"status-sync/{slow}?wait=1")  # RunPod waits for a second at least
    assert waiting["status"] in ("IN_QUEUE", "IN_PROGRESS")
    client.post(f"cancel/{slow}")


def test_a_stream_is_held_until_something_comes(generator: LocalEndpoint) -> None:
    client = Client(generator)
    job_id = client.run({"count": 3})
    answers = []
    while not answers or answers[-1]["status"] != "COMPLETED":
        answers.append(client.get(f"stream/{job_id}?wait=30000"))
    assert sum(len(answer["stream"]) for answer in answers) == 3
    assert all(answer["stream"] or answer["status"] == "COMPLETED" for answer in answers)


def test_a_stream_is_not_held_longer_than_asked(client: Client) -> None:
    slow = client.run({"sleep_s": 60})
    assert client.get(f"stream/{slow}?wait=1")["stream"] == []
    client.post(f"cancel/{slow}")
    answer = requests.get(f"{client.url}/stream/{slow}?wait=soon", timeout=30)
    assert (answer.status_code, "milliseconds" in answer.json()["error"]) == (400, True)


def test_a_failed_job_runs_again_under_its_id(client: Client) -> None:
    job_id = client.run({"raise": "no"})
    client.wait_for(job_id, "FAILED")
    assert client.post(f"retry/{job_id}") == {"id": job_id, "status": "IN_QUEUE"}
    assert "no" in client.wait_for(job_id, "FAILED")["error"]
    done = client.run({})
    client.wait_for(done, "COMPLETED")
    assert "this one is COMPLETED" in client.post(f"retry/{done}")["error"]


def test_requests_lists_jobs_without_outputs(client: Client) -> None:
    job_id = client.run({"word": "a"})
    client.wait_for(job_id, "COMPLETED")
    newest = client.get("requests")["requests"][0]
    assert (newest["id"], newest["status"]) == (job_id, "COMPLETED")
    assert "output" not in newest


@contextmanager
def listener(statuses: list[int]) -> Iterator[tuple[str, list[Any]]]:
    """Yields the URL of a webhook and the bodies posted to it; `statuses` are its answers."""
    bodies: list[Any] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            bodies.append(json.loads(self.rfile.read(length)))
            self.send_response(statuses.pop(0) if statuses else 200)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Nothing."""

    with serving(ClosingServer(("127.0.0.1", 0), Hook)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", bodies


def test_a_webhook_gets_the_result_after_refusals(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "RETRY_PAUSE_S", 0.01)
    with listener([500, 404]) as (url, bodies):
        job_id = client.run({"word": "a"}, webhook=url)
        wait_until(lambda: len(bodies) == 3)
    shown = client.get(f"status/{job_id}")
    assert bodies == [shown] * 3


def test_a_webhook_is_given_up_after_two_retries(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "RETRY_PAUSE_S", 0.01)
    client.run({}, webhook="http://127.0.0.1:1/hook")
    wait_until(lambda: "attempt=3 of=3 reason=ConnectionError" in caplog.text)
    assert "attempt=4" not in caplog.text


@pytest.mark.parametrize(
    ("origin", "allowed"), [("http://localhost:3000", True), ("https://example.com", False)]
)
def test_only_pages_of_this_machine_may_call(client: Client, origin: str, allowed: bool) -> None:
    request_headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    preflight = requests.options(f"{client.url}/run", headers=request_headers, timeout=30)
    answer = requests.get(f"{client.url}/health", headers={"Origin": origin}, timeout=30)
    expected = origin if allowed else None
    for headers in (preflight.headers, answer.headers):
        assert headers.get("Access-Control-Allow-Origin") == expected
    assert preflight.ok == allowed
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"].lower()


def test_clients_need_the_api_key(handler: Path, folder: Path) -> None:
    address = Address(api_key="secret")
    with LocalEndpoint(address=address, handler=handler, log_path=folder / "key.log") as endpoint:
        url = f"{endpoint.url}/runsync"
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "secret"}):
            answer = requests.post(url, json={"input": {}}, headers=headers, timeout=30)
            assert (answer.status_code, "Bearer KEY" in answer.json()["error"]) == (401, True)
        metrics = endpoint.page_url + "metrics"
        assert requests.get(metrics, timeout=30).status_code == 401
        right = {"Authorization": "Bearer secret"}
        assert (
            "comfy_endpoint_jobs_waiting 0" in requests.get(metrics, headers=right, timeout=30).text
        )
        answer = requests.post(url, json={"input": {}}, headers=right, timeout=30)
        assert answer.json()["status"] == "COMPLETED"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "none", 404), ("GET", "run", 405)])
def test_unknown_routes_answer_with_an_error(
    client: Client, method: str, path: str, status: int
) -> None:
    answer = requests.request(method, f"{client.url}/{path}", timeout=30)
    assert answer.status_code == status
    assert path in answer.json()["error"]
