"""Many jobs of many kinds, several at a time, with a fault every so many: who may fail, and what may grow.

Every job ends with its own right picture, which a run without faults has shown before, or with one coded error.
Only a job that was in flight at a fault may fail. Every third job is a hostile input: it may fail, but never by a
fault of the worker. What the handler holds at the end is what it held after its first jobs.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_worker.comfyui.workdirs import PREFIX
from tests.e2e.conftest import pictures
from tests.e2e.faults.conftest import FaultyWorker, faulty_graph, wait_until
from tests.graphs import node
from tests.pictures import encoded, mask, photo

__all__ = ["FAULTS", "Soak", "Usage"]

AT_ONCE = 5
HOSTILE_EVERY = 3
WARM_UP = 50
CODED = re.compile(r"[A-Z_]+: .+")


@dataclass(frozen=True)
class Usage:
    """What a handler holds: resident memory in MB, and how many open files, threads and files on disk."""

    memory_mb: float
    open_files: int
    threads: int
    disk_files: int

    def has_grown(self, before: Usage) -> list[str]:
        """What is more than before by more than what comes and goes."""
        allowed = {"memory_mb": 48, "open_files": 8, "threads": 4, "disk_files": 0}
        return [
            f"{name}: {getattr(before, name)} -> {getattr(self, name)}"
            for name, slack in allowed.items()
            if getattr(self, name) > getattr(before, name) + slack
        ]


@dataclass
class Outcome:
    """How one job ended.

    Attributes:
        name: which input it had.
        is_hostile: whether the input is one that may fail.
        began: when it was sent.
        ended: when its answer was there.
        error: empty if it succeeded.
    """

    name: str
    is_hostile: bool
    began: float
    ended: float = 0.0
    error: str = ""


def inputs() -> list[dict[str, Any]]:
    """Jobs of every kind that is quick, no two with the same picture."""
    small = {"prompt": "a lighthouse", "steps": 2}
    picture, hole = encoded(photo()), encoded(mask())
    made = [
        *(
            {"workflow": "txt2img", **small, "width": 64, "height": 64, "seed": seed}
            for seed in (1, 2, 3)
        ),
        *(
            {"workflow": "img2img", **small, "image": picture, "denoise": 0.5, "seed": seed}
            for seed in (4, 5)
        ),
        *(
            {"workflow": "inpaint", **small, "image": picture, "mask": hole, "seed": seed}
            for seed in (6, 7)
        ),
    ]
    for shade in range(8):
        graph = faulty_graph("FaultSleep", seconds=shade / 20, heed=True)
        graph["image"] = node(
            "EmptyImage", width=64, height=64 + 8 * shade, batch_size=1, color=shade * 0x0F0F0F
        )
        made.append({"workflow": graph})
    return made


def result_of(job: dict[str, Any]) -> list[tuple[Any, bytes]]:
    """The pixels of all pictures of a job that succeeded."""
    return [(picture.size, picture.convert("RGB").tobytes()) for picture in pictures(job["output"])]


def kill(faulty: FaultyWorker) -> None:
    faulty.comfyui().kill()


def stop(faulty: FaultyWorker) -> None:
    faulty.comfyui().suspend()


def cut(faulty: FaultyWorker) -> None:
    faulty.proxy.cut_sockets()


def refuse(faulty: FaultyWorker) -> None:
    with faulty.proxy.refusing_sockets():
        time.sleep(3)


def break_routes(faulty: FaultyWorker) -> None:
    with ExitStack() as stack:
        routes = [
            ("POST", "/prompt"),
            ("GET", "/queue"),
            ("GET", "/history/"),
            ("POST", "/history"),
        ]
        for method, path in routes:
            stack.enter_context(faulty.proxy.fault(method, path, "500", times=2))
        faulty.proxy.cut_sockets()
        time.sleep(2)


def lose_results(faulty: FaultyWorker) -> None:
    faulty.mailbox.refusals = 2
    assert faulty.goes_on()


def cancel(faulty: FaultyWorker) -> None:
    job_id = faulty.submit({"workflow": faulty_graph("FaultSleep", seconds=60.0, heed=True)})
    wait_until(lambda: faulty.get(f"status/{job_id}")["status"] != "IN_QUEUE")
    faulty.post(f"cancel/{job_id}")


def end_prompt_thread(faulty: FaultyWorker) -> None:
    graph = faulty_graph("FaultRaise", exception="SystemExit", message="soak")
    assert faulty.failed(faulty.submit({"workflow": graph})).startswith("COMFYUI_UNAVAILABLE: ")


def raise_in_node(faulty: FaultyWorker) -> None:
    graph = faulty_graph("FaultRaise", exception="ValueError", message="soak")
    assert faulty.failed(faulty.submit({"workflow": graph})).startswith("EXECUTION_FAILED: ")


Fault = Callable[[FaultyWorker], None]
FAULTS: tuple[Fault, ...] = (
    cut,
    kill,
    break_routes,
    cancel,
    lose_results,
    end_prompt_thread,
    refuse,
    raise_in_node,
    stop,
)


@dataclass
class Soak:
    """One soak of a worker.

    Attributes:
        hostile: inputs that may fail, by name.
        outcomes: of every job, but those that faults send themselves.
        faults: from when to when each was applied.
        usage: after the first jobs, and at the end.
    """

    faulty: FaultyWorker
    hostile: Mapping[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    faults: list[tuple[str, float, float]] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)

    def run(self, jobs: int, every: int, faults: tuple[Fault, ...] = FAULTS) -> None:
        """Run jobs, :data:`AT_ONCE` at a time, with a fault after every so many."""
        self._inputs = inputs()
        self._expected = [
            result_of({"output": self.faulty.output(job_input)}) for job_input in self._inputs
        ]
        assert len({str(expected) for expected in self._expected}) == len(self._inputs)
        self._due = threading.Semaphore(0)
        self._every = every
        numbers, turns = iter(range(jobs)), itertools.cycle(faults)
        # Every hostile input has been sent once before memory counts: the largest set its level.
        warm_up = max(WARM_UP, min(HOSTILE_EVERY * len(self.hostile), jobs // 2))
        for count in (min(warm_up, jobs), max(jobs - warm_up, 0)):
            with self._breaking(turns), ThreadPoolExecutor(AT_ONCE) as clients:
                list(clients.map(self._job, itertools.islice(numbers, count)))
            self.usage.append(self._settled())

    def problems(self) -> list[str]:
        """Everything that must not have happened."""
        found = [f"has grown: {what}" for what in self.usage[-1].has_grown(self.usage[0])]
        for outcome in self.outcomes:
            met = [
                name
                for name, began, ended in self.faults
                if began < outcome.ended and ended > outcome.began
            ]
            if outcome.error and not met and not outcome.is_hostile:
                found.append(f"{outcome.name} failed with no fault in its time: {outcome.error}")
            if outcome.error and not CODED.match(outcome.error):
                found.append(f"{outcome.name} failed without a code: {outcome.error}")
            if outcome.error.startswith("INTERNAL_ERROR"):
                found.append(f"{outcome.name} met a fault of the worker: {outcome.error}")
        return found

    def report(self) -> str:
        """What happened, in a few lines."""
        plain = [outcome for outcome in self.outcomes if not outcome.is_hostile]
        hostile = [outcome for outcome in self.outcomes if outcome.is_hostile]
        done = sum(not outcome.error for outcome in plain)
        lines = [
            f"{len(plain)} jobs, {done} with their own picture; failed: {_codes(plain)}",
            f"{len(hostile)} hostile jobs; failed: {_codes(hostile)}",
            f"faults: {dict(Counter(name for name, _, _ in self.faults))}",
            *(
                f"{when}: {usage}"
                for when, usage in zip(("first", "last"), self.usage, strict=True)
            ),
        ]
        return "\n".join(lines)

    def _job(self, number: int) -> None:
        if self.hostile and number % HOSTILE_EVERY == 0:
            name = list(self.hostile)[number // HOSTILE_EVERY % len(self.hostile)]
            job_input, expected = self.hostile[name], None
        else:
            index = number * 7 % len(self._inputs)
            name, job_input, expected = f"input {index}", self._inputs[index], self._expected[index]
        outcome = Outcome(name, expected is None, time.monotonic())
        job = self.faulty.finished(self.faulty.submit(job_input))
        outcome.ended = time.monotonic()
        if job["status"] != "COMPLETED":
            outcome.error = str(job.get("error"))
        elif expected is not None and result_of(job) != expected:
            outcome.error = f"another's picture: wanted that of {job_input}"
        self.outcomes.append(outcome)
        if (number + 1) % self._every == 0:
            self._due.release()

    @contextmanager
    def _breaking(self, faults: Iterator[Fault]) -> Iterator[None]:
        """Apply a fault whenever one is due, in a thread; all that are due have been when the block ends."""
        over = threading.Event()

        def apply() -> None:
            while True:
                while not self._due.acquire(timeout=0.1):
                    if over.is_set():
                        return
                fault, began = next(faults), time.monotonic()
                fault(self.faulty)
                self.faults.append((fault.__name__, began, time.monotonic()))

        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(apply)
            try:
                yield
            finally:
                over.set()
                work.result()

    def _settled(self) -> Usage:
        """What the handler holds once it has nothing to do.

        On a busy machine the last threads and files of the jobs go late.
        """
        wait_until(self.faulty.goes_on)
        time.sleep(2)
        usage = self._used()
        deadline = time.monotonic() + 60
        while self.usage and usage.has_grown(self.usage[0]) and time.monotonic() < deadline:
            time.sleep(0.5)
            usage = self._used()
        return usage

    def _used(self) -> Usage:
        """What the handler holds now."""
        handler = self.faulty.handler()
        with handler.oneshot():
            raw = self.faulty.comfyui().environ()["COMFY_WORKER_RAW_DIR"]
            folders = [*self.faulty.temp_dir.glob(f"{PREFIX}*"), Path(raw)]
            assert len(folders) >= 2
            return Usage(
                memory_mb=round(handler.memory_info().rss / 1e6, 1),
                open_files=handler.num_fds(),
                threads=handler.num_threads(),
                disk_files=sum(path.is_file() for folder in folders for path in folder.rglob("*")),
            )


def _codes(outcomes: list[Outcome]) -> dict[str, int]:
    """Count the errors of some jobs by code."""
    return dict(Counter(outcome.error.partition(":")[0] for outcome in outcomes if outcome.error))
