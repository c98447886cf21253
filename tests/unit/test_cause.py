"""Why a ComfyUI ended, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_worker.comfyui.cause import ending, log_cause, oom_kills


@pytest.mark.parametrize(
    ("status", "out_of_memory", "words"),
    [
        (None, False, "ended"),
        (0, True, "ended"),
        (3, True, "ended with exit status 3"),
        (137, False, "was killed by SIGKILL"),
        (137, True, "was killed since the machine's memory ran out"),
        (139, True, "was killed by SIGSEGV"),
        (255, False, "ended with exit status 255"),
    ],
)
def test_an_exit_status_is_told_in_words(
    status: int | None, out_of_memory: bool, words: str
) -> None:
    assert ending(status, out_of_memory=out_of_memory) == words


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ([], ""),
        (["got prompt", "Prompt executed in 0.10 seconds"], ""),
        (
            ["RuntimeError: CUDA error: an illegal memory access was encountered", "bye"],
            "RuntimeError: CUDA error: an illegal memory access was encountered",
        ),
        (["ModuleNotFoundError: No module named 'x'", "ValueError: y"], "ValueError: y"),
        (["    raise SystemExit(1)", "SystemExit: 1"], "SystemExit: 1"),
        (["my_pack.errors.LoadError: no weights"], "my_pack.errors.LoadError: no weights"),
        (
            ["main.py: error: unrecognized arguments: --x"],
            "main.py: error: unrecognized arguments: --x",
        ),
        (
            ["OSError: [Errno 28] No space left on device"],
            "OSError: [Errno 28] No space left on device",
        ),
        (["an Error in the middle of a line"], ""),
        (["ImportError: " + "x" * 300], "ImportError: " + "x" * 187 + "..."),
    ],
)
def test_the_last_cause_in_the_log_counts(lines: list[str], cause: str) -> None:
    assert log_cause(lines) == cause


@pytest.mark.parametrize(
    ("file", "text", "count"),
    [
        ("memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 0\n", 3),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", 2),
        ("memory/memory.oom_control", "oom_kill_disable 0\n", 0),
        ("other", "", 0),
    ],
)
def test_memory_kills_are_counted_as_the_kernel_does(
    tmp_path: Path, file: str, text: str, count: int
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert oom_kills(tmp_path) == count
