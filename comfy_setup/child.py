"""Running a program as a step: its output goes to the log, its lines to whoever counts, its failure into one line.

It knows pip's, uv's and git's ways of failing, and nothing of what they are called for.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from comfy_common import offline
from comfy_common.console import Step
from comfy_common.errors import SetupError
from comfy_common.fault_patterns import DISK_FULL

TAIL_LINES = 60
END_WITHIN_S = 5.0
PR_SET_PDEATHSIG = 1

# Said in front of what to check; `explain` adds the host, the proxy and how a mirror is set.
NO_NETWORK = "no network, or the server does not answer"
NO_ACCESS = "the server refuses access: check the address, the user and the password"
FULL_DISK = "the disk is full: make room (doctor shows what is free) and call again"
# What a failing program says, and what that means for the user.  The first that fits wins.
REASONS = [
    (DISK_FULL.pattern, FULL_DISK),
    (
        r"[Hh]ash mismatch|DO NOT MATCH THE HASHES",
        "a downloaded file is not the one that was locked (sha256 differs): the package index or a proxy changed "
        "it; call again, and try another index if it stays so",
    ),
    (
        r"certificate verify failed|invalid peer certificate|UnknownIssuer|SSL certificate problem",
        "the server's certificate is not trusted here: point SSL_CERT_FILE at your organisation's certificates",
    ),
    (
        r"\b(401 Unauthorized|403 Forbidden|407 Proxy Auth)|status code: 40[137]|Authentication failed"
        r"|could not read Username",
        NO_ACCESS,
    ),
    (
        r"dns error|Connection refused|failed to lookup address|Failed to establish a new connection"
        r"|NewConnectionError|Name or service not known|name resolution|Network is unreachable|No route to host"
        r"|Could not resolve host|[Cc]ould not connect|Failed to connect|timed out|tcp connect error"
        r"|ConnectionResetError|Connection reset|network connectivity is disabled|error sending request"
        r"|Operation too slow|early EOF|RPC failed",
        NO_NETWORK,
    ),
    (
        r"detected dubious ownership",
        "Git does not trust that repository, as it belongs to another user: call `git config --global --add "
        "safe.directory FOLDER` with its folder",
    ),
    (
        r"does not appear to be a git repository|not a git repository|repository '.*' not found",
        "there is no Git repository at that address: name one with --comfyui-source, or use a folder of files as "
        "it is with --comfyui-dir",
    ),
    (
        r"unable to read [0-9a-f]{40}|missing blob|promisor remote|bad object|did not receive expected object",
        "that repository lacks some of the files of this version: name a complete one",
    ),
    (
        r"No matching distribution|No solution found|was not found in the package registry",
        "the package index cannot be reached or has no packages that fit together: check pip's index settings",
    ),
]


class ProgramFailed(SetupError):
    """A program failed.

    Args:
        sentence: what it was called for, why it failed, and where its full output is.
        output: the last lines that it printed.
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
        output: the last lines that it printed.
        environ: its environment, which may name a proxy; ours if absent.

    Returns:
        What is wrong and what to do, or the last line of the output if the reason is not a known one.
    """
    for pattern, reason in REASONS:
        if re.search(pattern, output):
            if reason == NO_NETWORK:
                what = offline.advice(offline.host_in(output), os.environ if environ is None else environ)
                return f"{reason}: {what}; then call again, what is already downloaded is kept"
            # uv says which requirements contradict each other.
            because = re.search(r"Because .*?(?:unsatisfiable|cannot be used)\.", output, re.DOTALL)
            return f"{reason} ({' '.join(because[0].split())})" if because else reason
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


@dataclass(frozen=True)
class Runner:
    """Runs programs under the lock of one install.

    Args:
        lock: an open file that holds the install's lock.  It is the standard input of every program, so the lock
            is not free before the last of them (and of their own children) has ended, even if we are killed.
        log: the file that keeps all output.
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
            step: what is being done; it is kept moving meanwhile.
            command: the program and its arguments.
            on_line: gets each line of its output (both streams).
            settings: environment variables on top.
            folder: where it runs, None for where we do.

        Returns:
            The last lines of its output.

        Raises:
            ProgramFailed: it failed; the line says why and names the log. `Unreachable` where a server is why.
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
                preexec_fn=_die_with_parent(),
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
    """Yield the lines of the child's output as they come, and let the step tick between them."""
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


def _die_with_parent() -> Callable[[], None] | None:
    """Give what a child must call so that a kill of ours is its own end too (Linux alone can)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
