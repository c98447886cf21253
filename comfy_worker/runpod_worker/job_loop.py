"""Takes jobs, runs them and posts their results: the SDK's ``JobScaler``, driven by events.

The SDK's own loop sleeps a second whenever its slots are full and looks every tenth of a second for
what to do, so that a job of 50 ms costs a second. Here a task waits for RunPod's answer, a job's
task starts when it arrives, and the next job is asked for when the GPU is about to be free.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from runpod.http_client import AsyncClientSession, TooManyRequests
from runpod.serverless.modules import rp_job, rp_logger, rp_scale

from comfy_worker import logs
from comfy_worker.error_response import error_response
from comfy_worker.errors import WorkerError
from comfy_worker.outgoing import to_json_bytes
from comfy_worker.response.deliver import result_limit
from comfy_worker.runpod_worker.entries import USABLE_ID
from comfy_worker.runpod_worker.job_threads import Envelope, JobThreads
from comfy_worker.runpod_worker.pauses import limited
from comfy_worker.runpod_worker.results import ResultPoster, envelope, with_stop_pod, within_limit
from comfy_worker.runpod_worker.shutdown import GracefulShutdown
from comfy_worker.runpod_worker.take import JobTaker
from comfy_worker.runpod_worker.updates import JobUpdates
from comfy_worker.startup import start_times

__all__ = ["JobLoop", "LoopOptions"]

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 90.0  # as the SDK's
STOP_PAUSE_S, STOP_ERROR_PAUSE_S, TOO_MANY_PAUSE_S = 1.0, 1.0, 5.0
# A request for stop signals that RunPod held for as long need not be followed by a pause.
STOP_HELD_S = 1.0
# Results that wait for a RunPod that does not answer: while there is more, no further job is taken.
MOST_UNPOSTED_BYTES = 200_000_000


@dataclass(frozen=True)
class LoopOptions:
    """How the worker takes and answers jobs.

    Attributes:
        threads: run the jobs.
        slots: how many jobs may hold the GPU's queue at once.
        threads_count: how many jobs may be worked on at once, those included whose files are being
            encoded.
        streaming: whether each job is a stream of its updates and its result.
        one_job: whether RunPod replaces the worker after each job.
        limit_mb: how large a result may be, where the settings say so.
    """

    threads: JobThreads
    slots: int
    threads_count: int
    streaming: bool = False
    one_job: bool = False
    limit_mb: float | None = None


class JobLoop(rp_scale.JobScaler):  # type: ignore[misc]
    """The SDK's scaler with a loop of our own. The SDK calls only its ``start``.

    Args:
        config: the SDK's.
        options: ours.
    """

    def __init__(self, config: dict[str, Any], options: LoopOptions) -> None:
        super().__init__(config)
        self._options = options
        self._changed = asyncio.Event()
        self._holding: set[str] = set()  # jobs that the GPU is busy with, or will be
        self._working: set[str] = set()  # jobs that a thread is busy with
        self._unposted_bytes = 0
        self._wants_refresh = False
        self._is_taking = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until the worker must end; the jobs that it has are finished and answered first."""
        GracefulShutdown(self.kill_worker).install()
        async with AsyncClientSession() as session:
            self._poster = ResultPoster(session)
            stops = asyncio.create_task(self.monitor_stop_signals(session))
            await self.get_jobs(session)
            await self.run_jobs(session)
            stops.cancel()
            with suppress(asyncio.CancelledError):
                await stops

    def kill_worker(self) -> None:
        """Take no further job, and end when all jobs are answered."""
        super().kill_worker()
        self._changed.set()

    async def get_jobs(self, session: Any) -> None:
        """Take jobs while the worker lives; each starts at once."""
        taker = JobTaker(session, self.jobs_fetcher, self._shutdown_event)
        while (count := await self._free_slots()) > 0:
            # A job may be handed out until this returns, also after the signal to end; it would be
            # lost unread.
            self._is_taking = True
            # Not a copy: a job that ends during the request may be handed out again.
            batch = await taker.take(count, self.jobs_tasks)
            self._is_taking = False
            for job_id, error in batch.refused.items():
                self._start(job_id, self._refuse(job_id, error))
            for job in batch.jobs:
                self._holding.add(job["id"])
                self._working.add(job["id"])
                self._start(job["id"], self.handle_job(session, job))

    async def run_jobs(self, session: Any) -> None:  # noqa: ARG002 - the SDK's signature
        """Wait until every job that was taken is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def monitor_stop_signals(self, session: Any) -> None:
        """Stop jobs that RunPod cancels, until the loop ends."""
        if rp_job._job_stop_url() is None:
            log.warning(
                "RunPod's stop channel is not known; jobs cannot be cancelled",
                extra={"action": "stop.off"},
            )
            return
        while True:
            began = time.monotonic()
            pause_s = 0.0
            job_ids: list[str] = []
            try:
                job_ids = await limited(self.stop_signals_fetcher(session), STOP_TIMEOUT_S) or []
            except TooManyRequests:
                pause_s = TOO_MANY_PAUSE_S
            except Exception as error:  # noqa: BLE001 (outermost: it must ask again)
                log.warning(
                    "cannot ask RunPod which jobs to stop: %s",
                    error,
                    extra={"action": "stop.failed"},
                )
                pause_s = STOP_ERROR_PAUSE_S
            for job_id in job_ids:
                await self.stop_job(job_id)
            if not job_ids and not pause_s and time.monotonic() - began < STOP_HELD_S:
                pause_s = STOP_PAUSE_S
            await asyncio.sleep(pause_s)

    async def handle_job(self, session: Any, job: Envelope) -> None:  # noqa: ARG002 - likewise
        """Run one job and post its result."""
        with logs.bound(job_id=job["id"]), _batch(job):
            log.info("took a job", extra={"action": "job.taken"})
            start_times.mark("first job taken")
            updates = JobUpdates(self._poster, job["id"], self._options.streaming)
            try:
                body = await self._answer(job, updates)
            except Exception as error:  # noqa: BLE001 (outermost: the client gets an answer)
                updates.cancel()
                body = to_json_bytes(envelope(error_response(error)))
            finally:
                self._leave_thread(job["id"])
            await self._post(job["id"], body)
            start_times.mark("first job answered")
            start_times.log_once()

    async def _answer(self, job: Envelope, updates: JobUpdates) -> bytes:
        """Run a job; the body that answers it."""
        job_id = job["id"]
        on_release = partial(self._release, job_id)
        try:
            async with self._options.threads.running(job, updates.add, on_release) as result:
                answer = await result
        except asyncio.CancelledError:
            updates.cancel()
            raise
        # Before its slot is free: what is taken from now on would be taken by a worker that is to
        # go.
        self._wants_refresh |= isinstance(answer, dict) and bool(answer.get("refresh_worker"))
        self._leave_thread(job_id)
        posted = envelope(answer)
        if self._options.streaming and "error" not in posted:
            await updates.finish(posted.get("output"))
            posted = {"output": updates.streamed}
        else:
            await updates.finish()
        limit = result_limit(job_id, self._options.limit_mb)
        return await asyncio.to_thread(within_limit, posted, limit)

    async def _refuse(self, job_id: str, error: WorkerError) -> None:
        """Answer an entry that is not a job."""
        with logs.bound(job_id=job_id):
            await self._post(job_id, to_json_bytes(envelope(error_response(error))))

    async def _post(self, job_id: str, body: bytes) -> None:
        """Post a job's end; the last job that is here takes the wish for a fresh worker along."""
        is_last = set(self.jobs_tasks) <= {job_id} and not self._is_taking
        if self._wants_refresh and is_last:
            log.warning("asking for a fresh worker", extra={"action": "worker.refresh"})
            body = await asyncio.to_thread(with_stop_pod, body)
        self._unposted_bytes += len(body)
        try:
            if await self._poster.post(job_id, body, is_stream=self._options.streaming):
                log.info("answered", extra={"action": "job.answered"})
        finally:
            self._unposted_bytes -= len(body)

    async def _free_slots(self) -> int:
        """How many jobs can be taken, once one can; 0 when none is wanted any more."""
        options = self._options
        while self.is_alive():
            self._changed.clear()
            if self._wants_refresh and not self._tasks:
                self.kill_worker()
                break
            count = min(
                options.slots - len(self._holding), options.threads_count - len(self._working)
            )
            has_room = self._unposted_bytes < MOST_UNPOSTED_BYTES
            if count > 0 and has_room and not self._wants_refresh:
                return count
            await self._changed.wait()
        return 0

    def _start(self, job_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a job's task."""
        self._wants_refresh |= self._options.one_job
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self.jobs_tasks[job_id] = task
        self.job_progress.add(job_id)
        task.add_done_callback(partial(self._on_end, job_id))

    def _on_end(self, job_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.jobs_tasks.pop(job_id, None)
        self.job_progress.remove(job_id)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("fault of the job loop", exc_info=error, extra={"action": "job.fault"})

    def _release(self, job_id: str) -> None:
        """Note that a job hinders no other on the GPU any more, or soon."""
        self._holding.discard(job_id)
        self._changed.set()

    def _leave_thread(self, job_id: str) -> None:
        self._working.discard(job_id)
        self._release(job_id)


@contextmanager
def _batch(job: Envelope) -> Iterator[None]:
    """Write the id of the job's batch into the SDK's log lines, as the SDK's own loop does."""
    batch_id = job.get("batchId")
    is_usable = isinstance(batch_id, str) and USABLE_ID.fullmatch(batch_id)
    token = rp_logger._set_batch_id(batch_id if is_usable else None)
    try:
        yield
    finally:
        rp_logger._reset_batch_id(token)
