"""Runs a program as a step of the installation, and explains its failure in one line.

The program's output goes to a log. The known errors of pip, uv and git are listed here.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from comfy_common import offline
from comfy_common.console import Step
from comfy_common.errors import SetupError
from comfy_common.fault_patterns import DISK_FULL
from comfy_common.parent_death import end_with_parent

TAIL_LINES = 60
END_WITHIN_S = 5.0

# `explain` adds what to check: the host, the proxy and a mirror.
NO_NETWORK = "no network, or the server does not answer"
NO_REPOSITORY = "there is no Git repository at that address"
NO_ACCESS = "the server refuses access: check the address, the user and the password"
FULL_DISK = "the disk is full: free some space (doctor shows how much is free) and run this again"
# Patterns in a failing program's output, and what they mean for the user. The first match wins.
REASONS = [
    (DISK_FULL.pattern, FULL_DISK),
    (
        r"[Hh]ash mismatch|DO NOT MATCH THE HASHES",
        "a downloaded file is not the locked one (sha256 differs): the package index or a proxy "
        "has changed it; run this again, and use another index if the error stays",
    ),
    (
        r"certificate verify failed|invalid peer certificate|UnknownIssuer|SSL certificate problem",
        "this machine does not trust the server's certificate: set SSL_CERT_FILE to the file with "
        "your organisation's certificates",
    ),
    (
        r"\b(401 Unauthorized|403 Forbidden|407 Proxy Auth)|status code: 40[137]"
        r"|Authentication failed|could not read Username",
        NO_ACCESS,
    ),
    # Git also prints "early EOF" then, as for a broken connection.
    (
        r"unable to read [0-9a-f]{40}|missing blob|promisor remote|bad object"
        r"|did not receive expected object",
        "that repository lacks some of the files of this version: name a complete one",
    ),
    (
        r"dns error|Connection refused|failed to lookup address"
        r"|Failed to establish a new connection|NewConnectionError|Name or service not known"
        r"|name resolution|Network is unreachable|No route to host|Could not resolve host"
        r"|[Cc]ould not connect|Failed to connect|timed out|tcp connect error"
        r"|ConnectionResetError|Connection reset|network connectivity is disabled"
        r"|error sending request|Operation too slow|early EOF|RPC failed",
        NO_NETWORK,
    ),
    (
        r"detected dubious ownership",
        "Git does not trust that repository, since it belongs to another user: run "
        "`git config --global --add safe.directory FOLDER` with its folder",
    ),
    (
        r"does not appear to be a git repository|not a git repository|repository '.*' not found",
        f"{NO_REPOSITORY}: name one with --comfyui-source, or use a folder of files with "
        "--comfyui-dir",
    ),
    (
        r"No matching distribution|No solution found|was not found in the package registry",
        "the package index cannot be reached, or has no packages that fit together: check pip's "
        "index settings",
    ),
]


class ProgramFailed(SetupError):
    """A program failed.

    Args:
        sentence: which step failed, why, and where the full output is.
        output: the last lines of the program's output.
    """

    def __init__(self, sentence: str, output: str) -> None:
        super().__init__(sentence)
        self.output = output


class Unreachable(ProgramFailed):
    """A server does not answer, or refuses access."""

    def __init__(self, sentence: str, output: str = "") -> None:
        super().__init__(sentence, output)


def explain(output: str, environ: Mapping[str, str] | None = None) -> str:
    """Say why a program failed.

    Args:
        output: the last lines of the program's output.
        environ: the program's environment, which may name a proxy; ours if absent.

    Returns:
        What is wrong and what to do, or the last line of the output if the reason is not known.
    """
    reason = _known_reason(output)
    if not reason:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        return lines[-1] if lines else "it printed nothing"
    if reason == NO_NETWORK:
        host = offline.host_in(output)
        advice = offline.advice(host, os.environ if environ is None else environ)
        return f"{reason}: {advice}; then run this again, finished downloads are kept"
    # uv says which requirements contradict each other.
    because = re.search(r"Because .*?(?:unsatisfiable|cannot be used)\.", output, re.DOTALL)
    return f"{reason} ({' '.join(because[0].split())})" if because else reason


def _known_reason(output: str) -> str:
    for pattern, reason in REASONS:
        if re.search(pattern, output):
            return reason
    return ""


@dataclass(frozen=True)
class Runner:
    """Runs programs under the lock of one install.

    Args:
        lock: the open file with the install's lock. It is the standard input of every program, so
            that the lock stays until the last program and its children have ended, even if this
            process is killed.
        log: the file for all output.
        environ: the programs' environment.
    """

    lock: IO[bytes]
    log: Path
    environ: Mapping[str, str]

    def run(
        self,
        step: Step,
        command: Sequence[str | Path],
        on_line: Callable[[str], object] | None = None,
        settings: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> str:
        """Run a program to its end.

        Args:
            step: shows that the program is running.
            command: the program and its arguments.
            on_line: receives each line of its output (of both streams).
            settings: further environment variables.
            folder: the working directory; None for the current one.

        Returns:
            The last lines of its output.

        Raises:
            Unreachable: it failed because of a server.
            ProgramFailed: it failed. The sentence says why and names the log.
        """
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(str(part) for part in command)}\n")
            log.flush()
            child = subprocess.Popen(
                [str(part) for part in command],
                stdin=self.lock,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**self.environ, **(settings or {})},
                cwd=folder,
                preexec_fn=end_with_parent,
            )
            try:
                for line in _lines(child, step):
                    log.write(f"{line}\n")
                    tail.append(line)
                    if on_line:
                        on_line(line)
                code = child.wait()
            finally:
                _end(child)
        output = "\n".join(tail)
        if code:
            why = explain(output, self.environ)
            failure = Unreachable if why.startswith((NO_NETWORK, NO_ACCESS)) else ProgramFailed
            raise failure(f"{step.title} failed: {why}. Full output: {self.log}", output)
        return output


def _lines(child: subprocess.Popen[bytes], step: Step) -> Iterator[str]:
    """Yield the lines of the child's output at once, and update the step between them."""
    assert child.stdout
    with child.stdout as pipe:
        rest = b""
        while True:
            if not select.select([pipe], [], [], 0.25)[0]:
                step.tick()
                continue
            read = os.read(pipe.fileno(), 65536)
            *lines, rest = re.split(rb"[\r\n]+", rest + read)
            if not read and rest:
                lines.append(rest)
            yield from (line.decode(errors="replace") for line in lines if line.strip())
            if not read:
                return


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
