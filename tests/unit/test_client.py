"""The client: what it repeats, what it gives up, how it names files and reads lists."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from comfy_common.errors import SetupError
from comfy_setup import cli
from comfy_worker.client import (
    BadTarget,
    Endpoint,
    EndpointUnreachable,
    Folder,
    JobStatus,
    JobUnknown,
    RequestRejected,
    SaveFailed,
    Stopped,
    Transport,
    Unauthorized,
    WaitTimeout,
    endpoint,
    read_rows,
    save_files,
    transport,
)
from comfy_worker.client.batch import RowState, StateFile
from comfy_worker.client.files import safe_name
from tests.file_server import ClosingServer, serving

Answer = tuple[int, dict[str, str], bytes]
RETRY: dict[str, str] = {}


def answer(value: Any, status: int = 200, **headers: str) -> Answer:
    return (
        status,
        {name.replace("_", "-"): text for name, text in headers.items()},
        (value if isinstance(value, bytes) else json.dumps(value).encode()),
    )


class Script:
    """A server that gives its answers in order; the last one for ever."""

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = dict(self.headers)
                script.requests.append((self.command, self.path, headers, body))
                answers = script.answers
                chosen = answers.pop(0) if len(answers) > 1 else answers[0]
                if chosen is None:
                    self.connection.close()
                    return
                status, sent, content = chosen
                self.send_response(status)
                for name, text in {**sent, "Content-Length": str(len(content))}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.handler = Handler


Serve = Callable[..., tuple[Endpoint, Script]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a scripted endpoint; pauses are short."""
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr(endpoint, "FIRST_POLL_S", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_POLL_S", 0.02)
    monkeypatch.setattr(endpoint, "MOVING_POLL_S", 0.01)
    servers = []

    def start(*answers: Answer | None, **options: Any) -> tuple[Endpoint, Script]:
        script = Script(*answers)
        server = ClosingServer(("127.0.0.1", 0), script.handler)
        context = serving(server)
        context.__enter__()
        servers.append(context)
        url = f"http://127.0.0.1:{server.server_address[1]}/v2/x"
        return Endpoint(Transport(url, **options)), script

    yield start
    for context in servers:
        context.__exit__(None, None, None)


DONE = answer({"id": "j", "status": "COMPLETED", "output": {"images": []}})


def test_a_job_survives_every_fault(serve: Serve) -> None:
    at, script = serve(
        *(answer({}, 429, Retry_After="0"), answer({}, 503), answer(b"<html>"), None),
        *(answer({"id": "j", "status": "IN_QUEUE"}), answer(b"{}", 502), None),
        answer({"id": "j", "status": "IN_PROGRESS", "output": {"percent": 40, "eta_s": 3}}),
        DONE,
        api_key="secret",
    )
    seen: list[JobStatus] = []
    status = at.run({"prompt": "a"}).wait(seen.append)
    assert status.is_completed
    assert [entry.state for entry in seen] == ["IN_PROGRESS", "COMPLETED"]
    assert seen[0].progress is not None
    assert (seen[0].progress.percent, seen[0].progress.eta_s) == (40, 3)
    methods = [method for method, *_ in script.requests]
    assert methods == ["POST"] * 5 + ["GET"] * 4
    assert {headers["Authorization"] for _, _, headers, _ in script.requests} == {"Bearer secret"}
    assert json.loads(script.requests[0][3]) == {"input": {"prompt": "a"}}


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (answer({"error": "no key"}, 401), Unauthorized, "rejects the API key .*: no key"),
        (answer({"detail": "x"}, 403), Unauthorized, "HTTP 403"),
        (answer(b"<html>", 404), JobUnknown, r"HTTP 404\)$"),
        (answer({"error": "bad"}, 400), RequestRejected, "HTTP 400.: bad"),
        (answer(b"", 302, Location="http://127.0.0.1:1/"), RequestRejected, "HTTP 302"),
    ],
)
def test_a_refusal_is_not_repeated(
    serve: Serve, reply: Answer, error: type[Exception], words: str
) -> None:
    at, script = serve(reply)
    with pytest.raises(error, match=words):
        at.run({})
    assert len(script.requests) == 1


def test_patience_ends(serve: Serve) -> None:
    at, _ = serve(answer({}, 500), patience_s=0.05)
    with pytest.raises(EndpointUnreachable, match="HTTP 500"):
        at.run({})
    with pytest.raises(EndpointUnreachable, match="nothing listens there"):
        Endpoint(Transport("http://127.0.0.1:9/v2/x", patience_s=0.05)).health()


def test_a_busy_endpoint_outlasts_the_patience(serve: Serve) -> None:
    busy = answer({}, 429, Retry_After="0.1")
    at, script = serve(*[busy] * 10, answer({"id": "j"}), patience_s=0.0)
    assert at.run({}).job_id == "j"
    assert len(script.requests) == 11


def test_retry_after_is_a_number_or_a_date() -> None:
    assert transport._seconds("7") == 7
    assert transport._seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert transport._seconds("Wed, 21 Oct 2099 07:28:00 GMT") > 1e6
    assert transport._seconds("soon") == transport._seconds("") == 0
    assert transport._pause_s(0, 7) == 7
    assert transport._pause_s(0, 1e9) == transport.LONGEST_RETRY_AFTER_S
    assert transport._pause_s(50, 0) <= transport.LONGEST_PAUSE_S


def test_stop_ends_a_wait(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_POLL_S", 60.0)
    monkeypatch.setattr(endpoint, "LONGEST_POLL_S", 60.0)
    at, _ = serve(answer({"id": "j", "status": "IN_QUEUE"}))
    job = at.run({})
    threading.Timer(0.1, at.transport.stop.set).start()
    with pytest.raises(Stopped):
        job.wait()
    job.cancel()


def test_waiting_has_a_limit(serve: Serve) -> None:
    at, _ = serve(answer({"id": "j", "status": "IN_QUEUE"}))
    with pytest.raises(WaitTimeout, match=r"IN_QUEUE after 0\.05 s"):
        at.run({}).wait(timeout_s=0.05)


def test_a_new_job_may_be_unseen_at_first(serve: Serve) -> None:
    at, _ = serve(answer({"id": "j"}), answer({}, 404), DONE)
    assert at.run({}).wait().is_completed
    with pytest.raises(JobUnknown):
        serve(answer({}, 404))[0].job("old").status()


def test_a_large_request_is_refused_here() -> None:
    with pytest.raises(RequestRejected, match=r"10\.0 MB, and endpoints accept at most 10 MB"):
        Endpoint.at("http://127.0.0.1:9/v2/x").run({"image": "x" * 10_000_000})
    with pytest.raises(RequestRejected, match="not JSON"):
        Endpoint.at("http://127.0.0.1:9/v2/x").run({"cfg": float("nan")})


@pytest.mark.parametrize("url", ["ftp://host/v2/x", "nonsense", "http://"])
def test_a_wrong_url_is_named(url: str) -> None:
    with pytest.raises(BadTarget, match="is not a URL"):
        Endpoint.at(url).health()


def test_the_environment_names_the_endpoint() -> None:
    local = Endpoint.from_env({"RUNPOD_API_KEY": "k", "SERVE_API_KEY": "s"}).transport
    assert (local.base_url, local.api_key) == ("http://127.0.0.1:8000/v2/local", "s")
    cloud = Endpoint.from_env({"RUNPOD_API_KEY": "k"}, "abc").transport
    assert (cloud.base_url, cloud.api_key) == ("https://api.runpod.ai/v2/abc", "k")
    base = {"RUNPOD_ENDPOINT_BASE_URL": "http://10.0.0.1:8000/v2/", "RUNPOD_API_KEY": "k"}
    other = Endpoint.from_env(base, "abc").transport
    assert (other.base_url, other.api_key) == ("http://10.0.0.1:8000/v2/abc", "k")
    assert "secret" not in repr(Endpoint.at("http://host", "secret").transport)
    with pytest.raises(BadTarget, match="RUNPOD_API_KEY is not set"):
        Endpoint.from_env({}, "abc")


@pytest.mark.parametrize("endpoint_id", ["http://host/v2/local", "abc/run", "a b", "../x"])
def test_an_id_is_no_url(endpoint_id: str) -> None:
    with pytest.raises(BadTarget, match="is no id of an endpoint"):
        Endpoint.from_env({"RUNPOD_API_KEY": "k"}, endpoint_id)


def test_a_stream_has_progress_and_a_result() -> None:
    values = [{"percent": 10}, {"images": ["x"]}]
    running = JobStatus.read({"status": "IN_PROGRESS", "output": values})
    assert running.progress is not None
    assert running.progress.percent == 10
    result = {"images": [], "timings": {}}
    done = JobStatus.read({"status": "COMPLETED", "output": [*values, result, {"percent": 1}]})
    assert done.output == result


def media(name: str, content: bytes) -> dict[str, Any]:
    return {"filename": name, "type": "base64", "data": base64.b64encode(content).decode()}


def test_files_get_free_names(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    result = {"images": [media("a.png", b"1"), media("../a.png", b"2")], "videos": None}
    written = save_files(result, tmp_path)
    assert [path.name for path in written] == ["a-2.png", "a-3.png"]
    assert [path.read_bytes() for path in written] == [b"1", b"2"]
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.png", "a-3.png", "a.png"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\a.png", "a.png"),
        ("a\n:b.png", "a__b.png"),
        ("..", "file"),
        ("", "file"),
        (".png", "png"),
        ("é" * 200 + ".png", "é" * 75 + ".png"),
    ],
)
def test_names_stay_in_their_folder(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_unknown_outputs_are_kept_as_json(tmp_path: Path) -> None:
    (path,) = save_files({"images": ["aGk="], "cost": 1}, tmp_path)
    assert path.name == "output.json"
    assert json.loads(path.read_text()) == {"images": ["aGk="], "cost": 1}
    assert save_files({"images": [], "texts": [{"data": "hi"}]}, tmp_path) == []
    assert save_files(None, tmp_path) == []


def test_a_broken_file_leaves_nothing(tmp_path: Path) -> None:
    broken = {"filename": "a.png", "type": "base64", "data": "%%%"}
    with pytest.raises(SaveFailed, match="not valid base64"):
        save_files({"images": [broken]}, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SaveFailed, match="cannot be written"):
        save_files({"images": [media("a.png", b"1")]}, tmp_path / "file" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_links_are_downloaded_whole(serve: Serve, tmp_path: Path) -> None:
    at, script = serve(answer({}, 503), None, answer(b"content"), api_key="secret")
    link = {"filename": "a.png", "type": "s3_url", "data": f"{at.transport.base_url}/a?sign=1"}
    (path,) = save_files({"images": [link]}, tmp_path)
    assert path.read_bytes() == b"content"
    assert all("Authorization" not in headers for _, _, headers, _ in script.requests)
    at, _ = serve(answer({}, 403))
    link["data"] = f"{at.transport.base_url}/a"
    with pytest.raises(SaveFailed, match="HTTP 403"):
        save_files({"images": [link]}, tmp_path)


def test_lists_are_jsonl_or_csv(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"p")
    jsonl = tmp_path / "list.jsonl"
    jsonl.write_text(
        '\n{"prompt": "a\u2028b", "image": "p.png"}\n{"input": {"seed": 1}, "policy": {"ttl": 9}}\n'
    )
    first, second = read_rows(jsonl, {"seed": 7, "steps": 2})
    assert first.job_input() == {
        "seed": 7,
        "steps": 2,
        "prompt": "a\u2028b",
        "image": "data:image/png;base64,cA==",
    }
    assert (second.source, second.values, second.policy) == (
        f"{jsonl}:3",
        {"seed": 1, "steps": 2},
        {"ttl": 9},
    )
    table = tmp_path / "list.csv"
    table.write_text('\ufeffprompt;steps;output.quality;12.text\n"a;b";8;;x\n7;;80;"y\nz"\n')
    rows = [row.values for row in read_rows(table, {})]
    assert rows == [
        {"prompt": "a;b", "steps": 8, "overrides": {"12.text": "x"}},
        {"prompt": "7", "output": {"quality": 80}, "overrides": {"12.text": "y\nz"}},
    ]


def test_keys_follow_content_not_order(tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    file.write_text('{"seed": 1}\n{"seed": 2}\n{"seed": 1}\n')
    before = [row.key for row in read_rows(file, {})]
    assert len(set(before)) == 3
    file.write_text('{"seed": 3}\n{"seed": 2}\n{"seed": 1}\n')
    assert [row.key for row in read_rows(file, {})][1:] == [before[1], before[0]]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", "", "has no job in it"),
        ("a.jsonl", "{}\n{", ":2 is not JSON"),
        ("a.jsonl", '{"cfg": NaN}', ":1 is not JSON"),
        ("a.jsonl", "[1]", ":1 must be a JSON object"),
        ("a.jsonl", '{"image": "gone.png"}', ":1: .*gone.png cannot be read"),
        ("a.csv", "prompt,\na,b", ":1 must name every column"),
        ("a.csv", "prompt\na,b", ":2 has 2 cells, but the header has 1"),
        ("a.csv", 'prompt\n"a', "is not CSV"),
    ],
)
def test_wrong_lists_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SetupError, match=words):
        read_rows(tmp_path / name, {})


def test_states_survive_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    states = StateFile(path)
    with states.opened():
        states.record(RowState("a", "SENT", "1", "u"))
        states.record(RowState("a", "COMPLETED", "1", "u", ("x.png",)))
        with pytest.raises(SetupError, match="another submit"), StateFile(path).opened():
            pass
    with path.open("a") as file:
        file.write('{"key": "b", "sta')
    again = StateFile(path)
    with again.opened():
        again.record(RowState("c", "SENT", "2", "u"))
    last = StateFile(path)
    with last.opened():
        assert last.get("a") == RowState("a", "COMPLETED", "1", "u", ("x.png",))
        assert last.get("b") is None
        assert last.get("c") == RowState("c", "SENT", "2", "u")


def test_reserved_names_are_not_given_twice(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert [path.name for path in folder.reserve(["a.png", "a.png"])] == ["a.png", "a-2.png"]
    assert [path.name for path in folder.reserve(["a.png"])] == ["a-3.png"]


def test_an_endpoint_is_not_polled_wildly(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    at, _ = serve(*[answer({"id": "j", "status": "IN_QUEUE"})] * 12, DONE)
    monkeypatch.undo()
    monkeypatch.setattr(at.transport.stop, "wait", lambda pause_s: pauses.append(pause_s))
    began = time.monotonic()
    assert at.job("j").wait().is_completed
    assert time.monotonic() - began < 60
    assert pauses == sorted(pauses)
    assert pauses[0] == endpoint.FIRST_POLL_S
    assert pauses[-1] == endpoint.LONGEST_POLL_S


def test_a_missing_local_endpoint_has_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transport, "FIRST_PATIENCE_S", 0.0)
    monkeypatch.setattr(endpoint, "LOCAL_URL", "http://127.0.0.1:9/v2/local")
    monkeypatch.delenv("RUNPOD_ENDPOINT_BASE_URL", raising=False)
    assert cli.main(["submit"]) == 3
    assert "nothing listens there; `serve` starts the local endpoint" in capsys.readouterr().err
