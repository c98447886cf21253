"""Programs run as steps: their output, their failures, and that none outlives its lock unseen."""

from __future__ import annotations

import fcntl
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_common.console import Step
from comfy_common.errors import SetupError
from comfy_setup.child import FULL_DISK, Runner, explain


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with (tmp_path / "lock").open("a+b") as lock:
        yield Runner(lock, tmp_path / "log", {**os.environ, "COLOUR": "blue"})


@pytest.fixture
def step() -> Step:
    return Step("Testing", io.StringIO())


UV_REFUSED = "error: Failed to fetch: `x`\n  cause: tcp connect error\n  cause: Connection refused (os error 111)"
UV_HASH = "error: Failed to download `x==1`\n  cause: Hash mismatch for `x==1`"
PIP_HASH = (
    "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated"
)
PIP_REFUSED = "NewConnectionError('<...>: Failed to establish a new connection: [Errno 111] Connection refused')"
UV_UNFIT = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because you require torch==2.10.0 and torch<2.10, we can
      conclude that your requirements are unsatisfiable.
"""
GIT_INCOMPLETE = (
    "remote: fatal: unable to read 99f23954b4bade407d4f3a18892f21f80b412d68\nfatal: early EOF"
)
GIT_DNS = "fatal: unable to access 'https://h/x/': Could not resolve host: h"


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (UV_REFUSED, "no network"),
        (PIP_REFUSED, "no network"),
        (GIT_DNS, "no network"),
        (GIT_INCOMPLETE, "lacks some of the files"),
        ("fatal: early EOF", "no network"),
        (UV_HASH, "sha256 differs"),
        (PIP_HASH, "sha256 differs"),
        ("OSError: [Errno 28] No space left on device: 'x'\nConnection refused", FULL_DISK),
        ("error: failed to write\n  cause: No space left on device (os error 28)", FULL_DISK),
        ("cause: invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
        ("HTTP status client error (401 Unauthorized) for url (https://h/)", "refuses access"),
        ("ERROR: No matching distribution found for x==1", "has no packages that fit"),
        (
            UV_UNFIT,
            "fit together: check pip's index settings (Because you require torch==2.10.0 and torch<2.10,",
        ),
        ("first\nlast words\n\n", "last words"),
        ("", "it printed nothing"),
    ],
)
def test_a_failure_is_explained_in_one_line(output: str, cause: str) -> None:
    assert cause in explain(output)
    assert "\n" not in explain(output)


@pytest.mark.parametrize(
    ("output", "environ", "words"),
    [
        (GIT_DNS, {}, ["check the connection to h;", "set HTTPS_PROXY", "set PIP_INDEX_URL"]),
        (
            "fatal: unable to access 'https://github.com/x/': Could not resolve host: github.com",
            {"HTTPS_PROXY": "http://me:secret@proxy.example:3128"},
            [
                "connection to github.com;",
                "the proxy proxy.example:3128",
                "--comfyui-source git+URL",
            ],
        ),
        (
            "HTTPSConnectionPool(host='pypi.org', port=443): Max retries: NewConnectionError",
            {"https_proxy": "proxy.example"},
            ["connection to pypi.org;", "the proxy proxy.example;", "set PIP_INDEX_URL"],
        ),
        (UV_REFUSED, {}, ["connection to the package index;", "finished downloads are kept"]),
        (
            "Connection refused (https://user:word@api.comfy.org/x)",
            {},
            ["to api.comfy.org;", "COMFY_REGISTRY_URL"],
        ),
    ],
)
def test_no_network_names_host_proxy_and_mirror(
    output: str, environ: dict[str, str], words: list[str]
) -> None:
    message = explain(output, environ)
    for word in words:
        assert word in message
    assert "secret" not in message


def test_both_streams_are_read_and_logged(runner: Runner, step: Step) -> None:
    program = "import os, sys; os.write(1, b'one\\rtwo\\n\\n'); os.write(2, os.environ['COLOUR'].encode())"
    lines: list[str] = []
    output = runner.run(step, [sys.executable, "-c", program], lines.append)
    assert lines == ["one", "two", "blue"]
    assert output == "one\ntwo\nblue"
    assert runner.log.read_text().endswith("one\ntwo\nblue\n")


def test_settings_come_on_top_of_the_environment(runner: Runner, step: Step) -> None:
    program = "import os; print(os.environ['COLOUR'])"
    assert runner.run(step, [sys.executable, "-c", program], settings={"COLOUR": "red"}) == "red"


def test_a_failing_programs_error_names_the_log(runner: Runner, step: Step) -> None:
    with pytest.raises(SetupError) as caught:
        runner.run(step, [sys.executable, "-c", "import sys; sys.exit('the reason')"])
    assert str(caught.value) == f"Testing failed: the reason. Full output: {runner.log}"


def test_an_interrupt_ends_the_program(runner: Runner, step: Step) -> None:
    seen: list[int] = []

    def interrupt(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        runner.run(step, [sys.executable, "-c", program], interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_a_program_and_its_children_hold_the_lock(
    runner: Runner, step: Step, tmp_path: Path
) -> None:
    fcntl.flock(runner.lock, fcntl.LOCK_EX)
    # A grandchild that outlives the child for a moment, as ensurepip under a killed venv.
    grandchild = "import sys, time; sys.stdin.read(); time.sleep(0.3)"
    command = f"[sys.executable, '-c', {grandchild!r}]"
    program = f"import subprocess, sys; subprocess.Popen({command}, stdout=-3, stderr=-3)"
    runner.run(step, [sys.executable, "-c", program])
    runner.lock.close()
    with (tmp_path / "lock").open("a+b") as second:
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX)
