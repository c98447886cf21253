"""Whose last words a dead ComfyUI's are: an error holds what its own prompt wrote, and nothing of another's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comfy_worker import logs
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.process import ComfyUIProcess
from comfy_worker.errors import ComfyUIUnavailable

# Stands for the mark that the process chose, as our nodes find it in their environment.
MARK = "<mark>"


@contextmanager
def died(folder: Path, *lines: str) -> Iterator[ComfyUIProcess]:
    """A ComfyUI that wrote these lines and ended; a script stands in for it."""
    mark = f"replace({MARK!r}, os.environ['COMFY_WORKER_LOG_MARK'])"
    (folder / "main.py").write_text(
        f"import os; print({chr(10).join(lines)!r}.{mark}); raise SystemExit(3)"
    )
    process = ComfyUIProcess(LaunchOptions(folder))
    try:
        process.start()
        with pytest.raises(
            ComfyUIUnavailable, match="ended with exit status 3 while it was starting"
        ):
            process.wait_ready(threading.Event())
        yield process
    finally:
        process.stop()


def test_a_boot_that_lacks_packages_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("packaging\nnot-there>=1\n")
    with died(tmp_path, "ModuleNotFoundError: No module named 'not_there'") as process:
        failure = process.failure("while it was starting")
    assert failure is not None
    assert "missing or of another version: not-there>=1 (not installed): call " in failure.sentence
    assert f"`python3 -m comfy_setup install --comfyui-dir {tmp_path}`" in failure.sentence


def last_words(process: ComfyUIProcess, prompt_id: str) -> tuple[list[str], str]:
    failure = process.failure("while the workflow ran", prompt_id)
    assert failure is not None
    return failure.details[0]["log"], failure.sentence


def test_last_log_lines_go_to_their_client(tmp_path: Path) -> None:
    lines = ["boot", f"{MARK} a", "of a", MARK, f"{MARK} b", "ValueError: of b"]
    with died(tmp_path, *lines) as process:
        assert last_words(process, "b") == (
            ["ValueError: of b"],
            "ComfyUI ended with exit status 3 while the workflow ran and its log says 'ValueError: of b'; "
            "its last log lines are in the details",
        )
        log, sentence = last_words(process, "a")
        assert log == []
        assert "of b" not in sentence


def test_what_was_written_between_prompts_is_nobodys_secret(tmp_path: Path) -> None:
    with died(tmp_path, f"{MARK} a", "of a", MARK, "idle") as process:
        assert last_words(process, "b")[0] == ["idle"]


def test_a_key_is_not_among_the_last_words(tmp_path: Path) -> None:
    with (
        logs.job_secrets("comfyui-0123456789"),
        died(tmp_path, "the key is comfyui-0123456789") as process,
    ):
        assert last_words(process, "")[0] == ["the key is [hidden]"]


def test_a_prompt_hides_its_own_key_alone(tmp_path: Path) -> None:
    lines = ["key-of-prompt-a, key-of-prompt-b"]
    with logs.job_secrets("key-of-prompt-a"), logs.job_secrets("key-of-prompt-b"):
        (tmp_path / "main.py").write_text("")
        process = ComfyUIProcess(LaunchOptions(tmp_path))
    process.redact_prompt("a", ("key-of-prompt-a",))
    process._read_line(f"{process._mark} a")
    process._read_line(lines[0])
    try:
        assert list(process._tail) == ["[hidden], key-of-prompt-b"]
    finally:
        process.stop()


@pytest.mark.parametrize("mark", ["comfy_worker: prompt 1111", "comfy_worker: prompt"])
def test_a_client_cannot_write_the_mark(tmp_path: Path, mark: str) -> None:
    with died(tmp_path, f"{MARK} a", "of a", mark, "more of a") as process:
        assert last_words(process, "a")[0] == ["of a", mark, "more of a"]
        assert last_words(process, "1111")[0] == []


PUBLIC = [
    "got prompt",
    "Prompt executed in 3.25 seconds",
    "Requested to load SDXLClipModel",
    "model_type EPS",
]
PRIVATE = [
    "WARNING: shape mismatch when trying to apply embedding, embedding will be ignored a fox",
    "warning, embedding:a fox does not exist, ignoring",
    "got prompt a fox",
    "Prompt executed in 3.25 seconds a fox",
    "my_pack: rendering 'a fox'",
    "loaded completely 'a fox'",
    "Exception: a fox",
]


@pytest.mark.parametrize("line", PUBLIC + PRIVATE)
def test_what_a_node_writes_is_for_debugging(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str
) -> None:
    process = ComfyUIProcess(LaunchOptions(tmp_path))
    process._booted = True
    with caplog.at_level("DEBUG", "comfy_worker"):
        process._read_line(line)
    process.stop()
    (record,) = caplog.records
    assert record.levelname == ("INFO" if line in PUBLIC else "DEBUG")
