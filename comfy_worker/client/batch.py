"""Runs many jobs, a few at a time, and remembers in a file how far each of them is.

A process that is killed can be started again: jobs that are done are left out, and jobs that run
on the endpoint are taken up.
"""

from __future__ import annotations

import fcntl
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from comfy_common.errors import SetupError
from comfy_worker.client.endpoint import Endpoint, Job, JobStatus
from comfy_worker.client.errors import (
    BadTarget,
    ClientError,
    EndpointUnreachable,
    JobUnknown,
    Stopped,
    Unauthorized,
)
from comfy_worker.client.files import Folder, SaveFailed, file_names, result_files
from comfy_worker.client.job_list import Row

__all__ = ["Batch", "RowState", "StateFile", "as_report", "state_path"]

JOIN_S = 0.2
# None of these is a single job's fault.
FATAL = (Unauthorized, BadTarget, EndpointUnreachable)


@dataclass(frozen=True)
class RowState:
    """How far a row is.

    Attributes:
        key: the row's key.
        state: SENT, SAVING, COMPLETED, FAILED, CANCELLED or TIMED_OUT.
        job_id: the endpoint's id of its job.
        endpoint: the URL of the endpoint.
        files: the names of its files in the folder.
        error: why it failed.
    """

    key: str
    state: str
    job_id: str = ""
    endpoint: str = ""
    files: tuple[str, ...] = ()
    error: str = ""


@dataclass
class StateFile:
    """The states of all rows: one JSON object a line, the newest last.

    Args:
        path: created when the first state is recorded.
    """

    path: Path
    _states: dict[str, RowState] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _file: IO[str] | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Read the states, and keep other processes from using the file until the block ends.

        Raises:
            SetupError: another process uses it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SetupError(f"another submit works on this list: it has {self.path}") from None
            file.seek(0)
            text = file.read()
            for line in text.split("\n"):
                self._read(line)
            if text and not text.endswith("\n"):
                file.write("\n")  # the last line was cut off by a kill
            self._file = file
            try:
                yield
            finally:
                self._file = None

    def get(self, key: str) -> RowState | None:
        """Return the state of a row; None if it has not begun."""
        with self._lock:
            return self._states.get(key)

    def record(self, state: RowState) -> None:
        """Record the state of a row. It survives a kill of this process."""
        with self._lock:
            self._states[state.key] = state
            if self._file is not None:
                self._file.write(json.dumps(asdict(state)) + "\n")
                self._file.flush()

    def _read(self, line: str) -> None:
        # A line that a kill cut off is not JSON.
        with suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            state = RowState(**{**entry, "files": tuple(entry["files"])})
            self._states[state.key] = state


@dataclass
class Batch:
    """Runs the rows of a list.

    Args:
        endpoint: runs the jobs.
        folder: for their files.
        states: where the states are recorded; it must be open.
        concurrency: how many jobs are sent at once.
        on_update: gets a row and its job's status, from any thread.
        on_end: gets a row and its final state, from any thread; also for rows that were done
            before.
    """

    endpoint: Endpoint
    folder: Folder
    states: StateFile
    concurrency: int = 4
    on_update: Callable[[Row, JobStatus], None] = lambda _row, _status: None
    on_end: Callable[[Row, RowState], None] = lambda _row, _state: None
    _fatal: ClientError | None = None
    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, rows: Sequence[Row]) -> Counter[str]:
        """Run all rows that are not done.

        Args:
            rows: the list.

        Returns:
            How many rows ended in which state.

        Raises:
            KeyboardInterrupt: after Ctrl-C, when the running jobs are cancelled.
            ClientError: the endpoint cannot be used. Rows that have begun stay as they are.
        """
        left = iter(rows)
        ends = [threading.Event() for _ in range(min(self.concurrency, len(rows)))]
        for end in ends:
            threading.Thread(
                target=self._run_thread, args=(left, end), name="submit", daemon=True
            ).start()
        try:
            _wait_for(ends)
        except KeyboardInterrupt:
            self.endpoint.transport.stop.set()
            _wait_for(ends)
            raise
        if self._fatal is not None:
            raise self._fatal
        return self._counts

    def _run_thread(self, left: Iterator[Row], end: threading.Event) -> None:
        try:
            self._take_rows(left)
        finally:
            end.set()

    def _take_rows(self, left: Iterator[Row]) -> None:
        stop = self.endpoint.transport.stop
        while not stop.is_set():
            with self._lock:
                row = next(left, None)
            if row is None:
                return
            try:
                state = self._run_row(row)
            except Stopped:
                return
            except ClientError as error:
                # The other threads end too. Their jobs are not cancelled: see _follow.
                with self._lock:
                    self._fatal = self._fatal or error
                stop.set()
                return
            with self._lock:
                self._counts[state.state] += 1
            self.on_end(row, state)

    def _run_row(self, row: Row) -> RowState:
        known = self.states.get(row.key)
        if known is not None and self._is_done(known):
            return known
        try:
            job, known = self._job(row, known)
            status = self._follow(row, job, known)
            return self._ended(row, known, status)
        except FATAL:
            raise
        except SaveFailed as error:
            # The state stays SAVING: the next call fetches the result again.
            return RowState(row.key, "FAILED", error=str(error))
        except (Stopped, JobUnknown):
            raise
        except (ClientError, SetupError) as error:
            state = RowState(row.key, "FAILED", error=str(error))
            self.states.record(state)
            return state

    def _is_done(self, known: RowState) -> bool:
        files = [self.folder.path / name for name in known.files]
        return known.state == "COMPLETED" and all(path.is_file() for path in files)

    def _job(self, row: Row, known: RowState | None) -> tuple[Job, RowState]:
        """Take up the job of a row, or start one."""
        url = self.endpoint.transport.base_url
        if known is not None and known.job_id and known.endpoint == url and _is_open(known):
            job = self.endpoint.job(known.job_id)
            try:
                job.status()
            except JobUnknown:
                pass  # its result is gone; it must run again
            else:
                return job, known
        job = self.endpoint.run(row.job_input(), row.policy)
        files = known.files if known is not None else ()
        state = RowState(row.key, "SENT", job.job_id, url, files)
        self.states.record(state)
        return job, state

    def _follow(self, row: Row, job: Job, state: RowState) -> JobStatus:
        try:
            return job.wait(lambda status: self.on_update(row, status))
        except Stopped:
            if self._fatal is None:
                with suppress(ClientError):
                    job.cancel()
                self.states.record(replace(state, state="CANCELLED"))
            raise
        except JobUnknown as error:
            raise ClientError(f"job {job.job_id} is lost: {error}") from error

    def _ended(self, row: Row, known: RowState, status: JobStatus) -> RowState:
        if not status.is_completed:
            state = replace(known, state=status.state, error=status.error)
            self.states.record(state)
            return state
        files = result_files(status.output)
        names = known.files
        if len(names) != len(files):
            wanted = [f"{row.number:04}-{name}" for name in file_names(files)]
            names = tuple(path.name for path in self.folder.reserve(wanted))
        # Recorded first: after a kill the same files are written again, under the same names.
        saving = replace(known, state="SAVING", files=names)
        self.states.record(saving)
        for media, name in zip(files, names, strict=True):
            self.folder.write(media, self.folder.path / name)
        done = replace(saving, state="COMPLETED")
        self.states.record(done)
        return done


def _is_open(state: RowState) -> bool:
    return state.state in ("SENT", "SAVING")


def _wait_for(ends: Sequence[threading.Event]) -> None:
    """Wait for the ends of threads; Ctrl-C may interrupt it.

    `Thread.join` will not do: before Python 3.13, a thread whose join Ctrl-C interrupts counts as
    ended, though it still runs.
    """
    for end in ends:
        while not end.wait(JOIN_S):
            pass


def state_path(folder: Path, file: Path) -> Path:
    """Return where the states of a list are kept."""
    return folder / f"{file.name}.state.jsonl"


def as_report(row: Row, state: RowState, folder: Path) -> dict[str, Any]:
    """Describe the end of a row for a program."""
    return {
        "row": row.number,
        "status": state.state,
        "id": state.job_id,
        "files": [str(folder / name) for name in state.files],
        "error": state.error,
    }
