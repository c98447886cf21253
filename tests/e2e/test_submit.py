"""`submit` as a process, against an endpoint that is unkind to its clients; jobs need no ComfyUI."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_common.paths import REPO
from tests.e2e.test_job_loop import StubWorker, stub_worker, wait_until

pytestmark = pytest.mark.e2e

JOBS = 50


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubWorker]:
    with stub_worker(tmp_path_factory.mktemp("submit"), WORKER_CONCURRENCY="4") as worker:
        yield worker


def content(number: int) -> bytes:
    return f"picture {number}".encode() * 100


def job_input(number: int, **more: Any) -> dict[str, Any]:
    """What the stub worker shall answer: one file with this number."""
    data = base64.b64encode(content(number)).decode()
    image = {"filename": "a.png", "type": "base64", "data": data}
    return {"echo": number, "answer": {"images": [image], "warnings": ["a warning"]}, **more}


def submit(worker: StubWorker, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "comfy_setup", "submit", "--url", worker.endpoint.url]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=REPO,
        env=os.environ | {"RUNPOD_API_KEY": "any"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background ignores Ctrl-C for them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def jobs_of(worker: StubWorker) -> list[dict[str, Any]]:
    answer = requests.get(f"{worker.endpoint.url}/requests", timeout=30).json()
    jobs: list[dict[str, Any]] = answer["requests"]
    return jobs


def test_files_have_the_bytes_of_the_answer(worker: StubWorker, tmp_path: Path) -> None:
    worker.unkind.expect("run", 429, "drop", "html")
    worker.unkind.expect("status", 503, "lost", "html", 502)
    folder = tmp_path / "new"
    value = json.dumps(job_input(1, updates=3))
    arguments = ["--input", value, "--folder", str(folder), "--set", "output.quality=9"]
    code, out, err = finished(submit(worker, *arguments))
    assert (code, out) == (0, f"{folder}/a.png\n"), err
    assert (folder / "a.png").read_bytes() == content(1)
    assert "Warning: a warning" in err
    code, out, err = finished(submit(worker, *arguments, "--quiet", "--json"))
    report = json.loads(out)
    assert (code, report["status"], report["files"]) == (0, "COMPLETED", [f"{folder}/a-2.png"])
    assert report["output"]["images"] == [{"filename": "a.png", "type": "base64"}]


def test_the_exit_code_follows_the_outcome(worker: StubWorker, tmp_path: Path) -> None:
    folder = ["--folder", str(tmp_path)]
    code, out, err = finished(submit(worker, "--input", '{"raise": "broken"}', *folder))
    assert (code, out) == (1, "")
    assert "Error: " in err
    process = submit(worker, "--input", '{"sleep_s": 100, "echo": "cancelled"}', *folder)
    job = wait_until(
        lambda: next((j for j in jobs_of(worker) if j["status"] == "IN_PROGRESS"), None)
    )
    worker.cancel(job["id"])
    code, _, err = finished(process)
    assert (code, "ended as CANCELLED" in err) == (4, True)


def test_ctrl_c_cancels_the_job(worker: StubWorker, tmp_path: Path) -> None:
    process = submit(worker, "--input", '{"sleep_s": 100}', "--folder", str(tmp_path))
    job = wait_until(
        lambda: next((j for j in jobs_of(worker) if j["status"] == "IN_PROGRESS"), None)
    )
    worker.unkind.expect("cancel", 503)
    process.send_signal(signal.SIGINT)
    code, _, err = finished(process)
    assert code == 130
    assert "Traceback" not in err
    assert worker.status(job["id"])["status"] == "CANCELLED"


def test_an_absent_endpoint_has_its_code(worker: StubWorker, tmp_path: Path) -> None:
    gone = submit(worker, "--folder", str(tmp_path), "--url", "ftp://nowhere")
    assert finished(gone)[0] == 3


def test_a_list_is_taken_up_after_a_kill(worker: StubWorker, tmp_path: Path) -> None:
    rows = tmp_path / "list.jsonl"
    text = [json.dumps(job_input(number, sleep_s=0.05)) for number in range(1, JOBS + 1)]
    rows.write_text("\n".join(text))
    folder = tmp_path / "out"
    arguments = ["--list", str(rows), "--folder", str(folder), "--at-once", "4"]
    worker.unkind.client_share = 0.1
    before = len(jobs_of(worker))
    try:
        process = submit(worker, *arguments)
        wait_until(lambda: len(list(folder.glob("0*.png"))) >= JOBS // 3, 60)
        process.kill()
        finished(process)
        half = {path.name: path.stat().st_mtime_ns for path in folder.glob("0*.png")}
        assert len(half) < JOBS
        code, out, err = finished(submit(worker, *arguments))
    finally:
        worker.unkind.client_share = 0.0
    assert code == 0, err
    files = sorted(folder.glob("*.png"))
    names = [f"{number:04}-a.png" for number in range(1, JOBS + 1)]
    assert [path.name for path in files] == names
    assert [path.read_bytes() for path in files] == [content(n) for n in range(1, JOBS + 1)]
    assert sorted(out.splitlines()) == [str(path) for path in files]
    rewritten = [name for name, at in half.items() if (folder / name).stat().st_mtime_ns != at]
    # Only a file whose state was not recorded before the kill is written again.
    assert len(rewritten) <= 4
    # A request whose answer was lost, or that the kill interrupted, may have started a second job.
    assert len(jobs_of(worker)) - before <= JOBS + 20
    sent = len(jobs_of(worker))
    assert finished(submit(worker, *arguments))[0] == 0
    assert len(jobs_of(worker)) == sent


def test_ctrl_c_cancels_a_list(worker: StubWorker, tmp_path: Path) -> None:
    rows = tmp_path / "list.csv"
    rows.write_text("parameters.a,prompt\n" + "".join(f"{n},text\n" for n in range(5)))
    arguments = ["--list", str(rows), "--folder", str(tmp_path / "out"), "--at-once", "2"]
    process = submit(worker, *arguments, "--input", '{"sleep_s": 100}')

    def running() -> list[str]:
        return [job["id"] for job in jobs_of(worker) if job["status"] == "IN_PROGRESS"]

    wait_until(lambda: len(running()) == 2)
    ids = running()
    process.send_signal(signal.SIGINT)
    code, _, err = finished(process)
    assert code == 130, err
    assert [worker.status(job_id)["status"] for job_id in ids] == ["CANCELLED"] * 2
    state = (tmp_path / "out" / "list.csv.state.jsonl").read_text().splitlines()
    assert [json.loads(line)["state"] for line in state] == ["SENT"] * 2 + ["CANCELLED"] * 2


def test_a_list_has_one_bad_job(worker: StubWorker, tmp_path: Path) -> None:
    rows = tmp_path / "list.jsonl"
    rows.write_text('{"raise": "broken"}\n' + json.dumps(job_input(1)))
    arguments = ["--list", str(rows), "--folder", str(tmp_path / "out"), "--json"]
    code, out, err = finished(submit(worker, *arguments))
    reports = sorted((json.loads(line) for line in out.splitlines()), key=lambda r: r["row"])
    assert [report["status"] for report in reports] == ["FAILED", "COMPLETED"]
    assert code == 1
    assert "not all jobs completed: 1 COMPLETED, 1 FAILED" in err
