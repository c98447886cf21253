"""Simulates an endpoint with many workers: cost and waiting time. Run ``python -m benchmarks.fleet``.

Jobs arrive at random (a Poisson process). RunPod's scaler starts workers, workers take jobs from one
queue, and a worker without a job stops after the idle timeout. The simulation compares RunPod's two
scalers and three rules for when a worker takes its next job. ``--write`` also updates the tables and the
chart of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import simpy

from benchmarks.line_chart import Series, line_chart

REPO = Path(__file__).resolve().parents[1]
PAGE = REPO / "docs" / "scaling.md"
CHART = REPO / "docs" / "scaling.svg"
# Jobs a minute.
LOADS = {
    "10 a day": 10 / 1440,
    "100 a day": 100 / 1440,
    "1,000 a day": 1000 / 1440,
    "10 a minute": 10.0,
    "100 a minute": 100.0,
    "1,000 a minute": 1000.0,
}
QUEUE_DELAY, REQUEST_COUNT = "queue delay", "request count"
AFTER, PREFETCH, TWO = "after the job", "prefetch", "two at once"


@dataclass(frozen=True)
class Endpoint:
    """The settings of an endpoint, and the times of its workers and jobs.

    Attributes:
        scaler: ``QUEUE_DELAY``: start a worker for each job that has waited ``scaler_value`` seconds.
            ``REQUEST_COUNT``: keep one worker for every ``scaler_value`` jobs that wait or run.
        scaler_value: see `scaler`.
        take: when a worker takes its next job. ``AFTER``: when its job is delivered. ``PREFETCH``: when
            at most ``prefetch_s`` seconds of its job on the GPU are left. ``TWO``: when it has fewer
            than two jobs.
        idle_timeout_s: seconds without a job after which a worker stops.
        active_workers: workers that never stop.
        max_workers: the most workers at a time.
        cold_start_s: seconds from RunPod's decision to start a worker until the worker takes a job.
        prepare_s: seconds in which a worker reads inputs and plans a job, before the GPU.
        gpu_s: mean seconds on the GPU.
        gpu_spread: sigma of the log-normal distribution of the seconds on the GPU.
        deliver_s: seconds in which a worker encodes and delivers results, after the GPU.
        prefetch_s: see `take`; the worker's setting PREFETCH_S.
        price_s: price of one second of a worker, in dollars.
    """

    scaler: str = QUEUE_DELAY
    scaler_value: float = 4
    take: str = PREFETCH
    idle_timeout_s: float = 5
    active_workers: int = 0
    max_workers: int = 1000
    cold_start_s: float = 20
    prepare_s: float = 0.1
    gpu_s: float = 5
    gpu_spread: float = 0.3
    deliver_s: float = 0.4
    prefetch_s: float = 2
    price_s: float = 0.00031


@dataclass
class Job:
    """One job, with the times of its arrival and of its start on the GPU, in seconds."""

    arrived: float
    gpu_s: float
    started: float = math.nan


@dataclass(frozen=True)
class Figures:
    """What a simulation found.

    Attributes:
        jobs: how many jobs ran.
        p50_s: half of the jobs waited at most so long, from arrival to the GPU.
        p95_s: 95 % of the jobs waited at most so long.
        p99_s: 99 % of the jobs waited at most so long.
        dollars: price of 1,000 jobs.
        busy: share of the paid time in which the GPU worked, from 0 to 1.
        starts: worker starts for each 100 jobs.
        most_workers: the most workers at a time.
    """

    jobs: int
    p50_s: float
    p95_s: float
    p99_s: float
    dollars: float
    busy: float
    starts: float
    most_workers: int


@dataclass
class JobQueue:
    """RunPod's queue: the oldest job goes to one of the workers that ask, chosen at random."""

    env: simpy.Environment
    chance: random.Random
    jobs: deque[Job] = field(default_factory=deque)
    askers: list[simpy.Event] = field(default_factory=list)

    def put(self, job: Job) -> None:
        """Add a job, or hand it out at once."""
        if not self.askers:
            self.jobs.append(job)
            return
        index = self.chance.randrange(len(self.askers))
        self.askers.pop(index).succeed(job)

    def ask(self) -> simpy.Event:
        """Return an event whose value will be a job."""
        request = self.env.event()
        if self.jobs:
            request.succeed(self.jobs.popleft())
        else:
            self.askers.append(request)
        return request

    def withdraw(self, request: simpy.Event) -> None:
        """Ask for no job after all."""
        self.askers.remove(request)


@dataclass
class Fleet:
    """The workers of one endpoint."""

    env: simpy.Environment
    endpoint: Endpoint
    queue: JobQueue
    starting: int = 0
    running: int = 0
    jobs_in_workers: int = 0
    paid_s: float = 0.0
    starts: int = 0
    most: int = 0
    done: list[Job] = field(default_factory=list)

    def arrive(self, job: Job) -> None:
        """Queue a job, and let the scaler react."""
        self.queue.put(job)
        if self.endpoint.scaler == REQUEST_COUNT:
            self.scale_to_requests()
        else:
            self.env.process(self.scale_by_delay(job))

    def scale_to_requests(self) -> None:
        """Start workers until there is one for every `scaler_value` jobs."""
        requests = len(self.queue.jobs) + self.jobs_in_workers
        wanted = math.ceil(requests / self.endpoint.scaler_value)
        while self.starting + self.running < min(wanted, self.endpoint.max_workers):
            self.start_worker()

    def scale_by_delay(self, job: Job) -> Generator[simpy.Event, Any, None]:
        """Start a worker if a job still waits after `scaler_value` seconds, unless enough are starting."""
        yield self.env.timeout(self.endpoint.scaler_value)
        if job not in self.queue.jobs:
            return
        overdue = self.queue.jobs.index(job) + 1
        if self.starting < overdue and self.starting + self.running < self.endpoint.max_workers:
            self.start_worker()

    def start_worker(self, *, active: bool = False) -> None:
        """Start a worker. RunPod bills it from here until it has stopped."""
        self.starting += 1
        self.starts += 1
        self.most = max(self.most, self.starting + self.running)
        self.env.process(self._life(active))

    def _life(self, active: bool) -> Generator[simpy.Event, Any, None]:
        began = self.env.now
        yield self.env.timeout(self.endpoint.cold_start_s)
        self.starting -= 1
        self.running += 1
        yield from self._serve(active)
        self.running -= 1
        self.paid_s += math.ceil(round(self.env.now - began, 6))

    def _serve(self, active: bool) -> Generator[simpy.Event, Any, None]:
        gpu = simpy.Resource(self.env, capacity=1)
        running: list[simpy.Process] = []
        while True:
            request = self.queue.ask()
            if not request.triggered:
                running = [process for process in running if process.is_alive]
                yield request | self._idle_end(running, active)
            if not request.triggered:
                self.queue.withdraw(request)
                return
            self.jobs_in_workers += 1
            nearly_done = self.env.event()
            running.append(self.env.process(self._run(request.value, gpu, nearly_done)))
            yield self._may_take(running, nearly_done)

    def _idle_end(self, running: list[simpy.Process], active: bool) -> simpy.Event:
        """Return an event for the end of the idle timeout, which begins when the last job is delivered."""
        if active:
            return self.env.event()  # never

        def wait() -> Generator[simpy.Event, Any, None]:
            yield self.env.all_of(running)
            yield self.env.timeout(self.endpoint.idle_timeout_s)

        return self.env.process(wait())

    def _may_take(self, running: list[simpy.Process], nearly_done: simpy.Event) -> simpy.Event:
        """Return an event for the moment at which the worker may take its next job."""
        alive = [process for process in running if process.is_alive]
        if self.endpoint.take == PREFETCH:
            return nearly_done
        if self.endpoint.take == TWO and len(alive) < 2:
            return self.env.timeout(0)
        return self.env.any_of(alive) if self.endpoint.take == TWO else self.env.all_of(alive)

    def _run(
        self, job: Job, gpu: simpy.Resource, nearly_done: simpy.Event
    ) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(self.endpoint.prepare_s)
        with gpu.request() as turn:
            yield turn
            job.started = self.env.now
            last_s = min(job.gpu_s, self.endpoint.prefetch_s)
            yield self.env.timeout(job.gpu_s - last_s)
            nearly_done.succeed()
            yield self.env.timeout(last_s)
        yield self.env.timeout(self.endpoint.deliver_s)
        self.jobs_in_workers -= 1
        self.done.append(job)


def simulate(endpoint: Endpoint, per_minute: float, jobs: int, seed: int = 1) -> Figures:
    """Run jobs through an endpoint.

    Args:
        endpoint: its settings.
        per_minute: mean jobs a minute.
        jobs: how many jobs arrive.
        seed: decides arrivals and the seconds on the GPU.
    """
    chance = random.Random(seed)
    env = simpy.Environment()
    fleet = Fleet(env, endpoint, JobQueue(env, random.Random(seed + 1)))
    for _ in range(endpoint.active_workers):
        fleet.start_worker(active=True)
    # The mean of a log-normal distribution is exp(mu + sigma**2 / 2).
    mu = math.log(endpoint.gpu_s) - endpoint.gpu_spread**2 / 2

    def arrivals() -> Iterator[simpy.Event]:
        for _ in range(jobs):
            yield env.timeout(chance.expovariate(per_minute / 60))
            fleet.arrive(Job(env.now, chance.lognormvariate(mu, endpoint.gpu_spread)))

    env.process(arrivals())
    env.run()
    fleet.paid_s += endpoint.active_workers * env.now
    return figures_of(fleet)


def figures_of(fleet: Fleet) -> Figures:
    """Return the figures of a simulation that has ended."""
    waits = sorted(job.started - job.arrived for job in fleet.done)
    percents = statistics.quantiles(waits, n=100, method="inclusive")
    gpu_s = sum(job.gpu_s for job in fleet.done)
    count = len(fleet.done)
    return Figures(
        jobs=count,
        p50_s=percents[49],
        p95_s=percents[94],
        p99_s=percents[98],
        dollars=fleet.paid_s * fleet.endpoint.price_s / count * 1000,
        busy=gpu_s / fleet.paid_s,
        starts=fleet.starts / count * 100,
        most_workers=fleet.most,
    )


def variants(base: Endpoint) -> dict[str, Endpoint]:
    """Return the endpoints that the tables compare."""
    return {
        "queue delay 4 s": base,
        "request count 1": replace(base, scaler=REQUEST_COUNT, scaler_value=1),
        "request count 4": replace(base, scaler=REQUEST_COUNT, scaler_value=4),
        "queue delay 4 s, idle timeout 60 s": replace(base, idle_timeout_s=60),
        "queue delay 4 s, one active worker": replace(base, active_workers=1),
    }


def take_rules(base: Endpoint) -> dict[str, Endpoint]:
    """Return an endpoint for each rule of when a worker takes its next job."""
    return {
        "after the job (no prefetch)": replace(base, take=AFTER),
        "prefetch, `PREFETCH_S=2`": replace(base, take=PREFETCH),
        "two jobs at once": replace(base, take=TWO),
    }


Measured = dict[tuple[str, str], Figures]


def measure(endpoints: dict[str, Endpoint], loads: dict[str, float], jobs: int) -> Measured:
    """Simulate each endpoint at each load."""
    found = {}
    for load, per_minute in loads.items():
        for name, endpoint in endpoints.items():
            # At high loads, long enough for the first cold starts to be a small part.
            found[load, name] = simulate(endpoint, per_minute, max(jobs, round(per_minute * 30)))
    return found


def markdown(first: str, measured: Measured) -> str:
    """Return the figures as a Markdown table."""
    header = f"| jobs | {first} | p50 | p95 | p99 | 1,000 jobs | GPU busy | most workers |"
    lines = [header, "| --- | --- " + "| ---: " * 6 + "|"]
    for (load, name), figures in measured.items():
        waits = " | ".join(f"{s:.1f} s" for s in (figures.p50_s, figures.p95_s, figures.p99_s))
        rest = f"${figures.dollars:.2f} | {figures.busy:.0%} | {figures.most_workers}"
        lines.append(f"| {load} | {name} | {waits} | {rest} |")
    return "\n".join(lines)


def chart(measured: Measured) -> str:
    """Return the SVG chart of the scalers: waiting time and price by load."""
    names = list(dict.fromkeys(name for _, name in measured))

    def series(value: Callable[[Figures], float]) -> list[Series]:
        found = []
        for name in names:
            points = [value(measured[load, name]) for load in LOADS]
            found.append(Series(name, points))
        return found

    panels = {
        "waiting time, 95th percentile (s)": series(lambda figures: figures.p95_s),
        "price of 1,000 jobs ($)": series(lambda figures: figures.dollars),
    }
    return line_chart(list(LOADS), panels)


def with_tables(page: str, tables: dict[str, str]) -> str:
    """Return a page with the tables between its marks ``<!-- fleet: NAME -->`` and ``<!-- end -->``."""
    for name, table in tables.items():
        before, mark, rest = page.partition(f"<!-- fleet: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            continue
        page = f"{before}{mark}{table}\n{end}{after}"
    return page


def main(argv: list[str] | None = None) -> int:
    """Simulate, print the tables, and write what was asked for."""
    options = _options(argv)
    base = Endpoint(cold_start_s=options.cold_start, gpu_s=options.gpu, price_s=options.price)
    scalers = measure(variants(base), LOADS, options.jobs)
    busy = {load: LOADS[load] for load in ("10 a minute", "100 a minute", "1,000 a minute")}
    rules = measure(take_rules(base), busy, options.jobs)
    quick = replace(base, gpu_s=0.5, deliver_s=0.2)
    quick_rules = measure(take_rules(quick), busy, options.jobs)
    tables = {
        "scalers": markdown("scaler", scalers),
        "rules": markdown("next job", rules),
        "quick": markdown("next job", quick_rules),
    }
    for name, table in tables.items():
        print(f"\n{name}\n\n{table}")
    if options.json:
        groups = {"scalers": scalers, "rules": rules, "quick": quick_rules}
        document = {name: _as_rows(measured) for name, measured in groups.items()}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.write:
        page = with_tables(PAGE.read_text(encoding="utf-8"), tables)
        PAGE.write_text(page, encoding="utf-8")
        CHART.write_text(chart(scalers), encoding="utf-8")
    return 0


def _as_rows(measured: Measured) -> list[dict[str, Any]]:
    return [
        {"load": load, "variant": name, **asdict(figures)}
        for (load, name), figures in measured.items()
    ]


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--jobs",
        type=int,
        default=3000,
        help="jobs in each simulation, at least; at high loads those of 30 minutes",
    )
    parser.add_argument("--gpu", type=float, default=5, help="mean seconds of a job on the GPU")
    parser.add_argument("--cold-start", type=float, default=20, help="seconds of a worker's start")
    parser.add_argument("--price", type=float, default=0.00031, help="dollars a worker second")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--write", action="store_true", help="update docs/scaling.md and its chart")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
