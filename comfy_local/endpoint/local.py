"""Starts and ends a local endpoint: the listening socket, the event loop's thread and the workers.

For development and tests only: in production, RunPod queues the jobs and scales the workers.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

import uvicorn

from comfy_common.console import Console
from comfy_common.metrics import FOLDER_VARIABLE
from comfy_common.page_catalog import CATALOG_VARIABLE

from .api_v2 import ApiV2
from .app import CATALOG_NAME, METRICS_FOLDER, create_app
from .changes import Changes
from .jobs import MAX_QUEUE_SIZE, Jobs
from .outputs import OutputStore
from .unkind import Unkind, unkind_from
from .webhooks import Webhooks
from .workers import Worker, WorkerCommand, WorkerPool

__all__ = ["LOOPBACK", "Address", "LocalEndpoint", "serve"]

LOOPBACK = "127.0.0.1"
HANDLER = Path(__file__).resolve().parents[2] / "handler.py"
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 (compared only)
TICK_S = 0.1
SIGNAL_POLL_S = 0.2
STDERR_FD = 2


@dataclass(frozen=True)
class Address:
    """Where clients reach the endpoint.

    Args:
        host: An IPv4 address of this machine; ``0.0.0.0`` for all of them.
        port: 0..65535; 0 takes a free one.
        api_key: The key that clients must send; None for none.
    """

    host: str = LOOPBACK
    port: int = 0
    api_key: str | None = None


class LocalEndpoint:
    """RunPod's public API on a port of this machine, with worker processes behind it.

    Use it as a context manager, or call ``start`` and ``close``. Each object can be started once.

    Args:
        address: Where it listens; by default on loopback, at a free port.
        workers: How many handler processes, 1 or more.
        environ: The workers' environment, to which RunPod's variables are added; default
            ``os.environ``. Its ``MAX_QUEUE_SIZE``, 1 or more, limits the waiting jobs.
        handler: The file that calls ``runpod.serverless.start``.
        log_path: A file to which the workers' output is appended; default this process's standard
            error.
        unkind: Injects faults into the answers to workers, for tests. By default ``UNKIND`` in
            ``environ`` is the share of requests with a fault: a dropped connection, an outage, an
            HTML page or a delay.
    """

    def __init__(
        self,
        *,
        address: Address = Address(),
        workers: int = 1,
        environ: Mapping[str, str] | None = None,
        handler: Path = HANDLER,
        log_path: Path | None = None,
        unkind: Unkind | None = None,
    ) -> None:
        self._address = address
        self._port = address.port
        self._count = workers
        self._environ = os.environ if environ is None else environ
        self._handler = handler
        self._log_path = log_path
        self._unkind = unkind
        self._started: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._pool: WorkerPool | None = None
        self._thread = threading.Thread(target=self._run, name="local-endpoint", daemon=True)
        self._socket: socket.socket | None = None

    def __enter__(self) -> LocalEndpoint:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The base of every route on this machine, such as ``http://127.0.0.1:8000/v2/local``."""
        host = LOOPBACK if self._address.host == ALL_ADDRESSES else self._address.host
        return f"http://{host}:{self._port}/v2/local"

    @property
    def page_url(self) -> str:
        """The page of the endpoint, such as ``http://127.0.0.1:8000/``."""
        return self.url.removesuffix("v2/local")

    @property
    def workers(self) -> list[Worker]:
        """The workers whose processes run now."""
        return [] if self._pool is None else self._pool.workers

    def start(self) -> None:
        """Listens and starts the workers; returns when it answers, before a worker is ready.

        Raises:
            ValueError: ``MAX_QUEUE_SIZE`` or ``UNKIND`` is invalid.
            FileNotFoundError: There is no handler file.
            OSError: The port is taken (``errno.EADDRINUSE``), or the interpreter cannot be started.
        """
        self._max_queue_size = _max_queue_size(self._environ)
        self._unkind = self._unkind or unkind_from(self._environ.get("UNKIND", ""))
        if not self._handler.is_file():
            raise FileNotFoundError(f"there is no handler at {self._handler}")
        self._socket = _listening(self._address)
        self._port = self._socket.getsockname()[1]
        self._thread.start()
        self._started.result()

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Waits until a worker can run jobs: its ComfyUI answers, or it has taken a job.

        Args:
            timeout_s: How long to wait in seconds; None waits for ever.

        Returns:
            Whether a worker is or has been ready.
        """
        assert self._pool is not None
        return self._pool.first_ready.wait(timeout_s)

    def close(self) -> None:
        """Stops running jobs and ends all processes; a second call does nothing."""
        if self._loop is not None and self._closing is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            with self._open_log() as log:
                asyncio.run(self._live(log))
        except OSError as error:
            if self._started.done():
                raise
            self._started.set_exception(error)
        finally:
            assert self._socket is not None
            self._socket.close()
            if not self._started.done():
                self._started.set_exception(
                    RuntimeError("the endpoint ended at its start; see the traceback")
                )

    def _open_log(self) -> IO[bytes]:
        if self._log_path is None:
            return open(STDERR_FD, "wb", closefd=False)
        return self._log_path.open("ab")

    async def _live(self, log: IO[bytes]) -> None:
        """The whole life of the endpoint, from its first to its last event."""
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        outputs, changes = OutputStore(), Changes()
        jobs = Jobs(time.monotonic, self._max_queue_size, outputs)
        webhooks = Webhooks(jobs.webhooks)
        (outputs.folder / METRICS_FOLDER).mkdir()
        environ = {
            **self._environ,
            CATALOG_VARIABLE: str(outputs.folder / CATALOG_NAME),
            FOLDER_VARIABLE: str(outputs.folder / METRICS_FOLDER),
        }
        api_v2 = ApiV2(jobs, changes, outputs, time.monotonic)
        self._pool = WorkerPool(
            WorkerCommand([sys.executable, str(self._handler)], environ, self.url),
            count=self._count,
            jobs=jobs,
            notify=changes.notify,
            log=log,
        )
        app: Any = create_app(
            jobs, changes, self._pool, api_v2, outputs.folder, self._address.api_key
        )
        http: Any = "auto"
        if self._unkind is not None:
            app = self._unkind.around(app)
            http = self._unkind.connections.protocol()
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=http,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=2,
            )
        )
        assert self._socket is not None
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        try:
            self._pool.start()
            self._started.set_result(None)
            while not self._closing.is_set():
                jobs.tick()
                api_v2.submissions.forget_old()
                webhooks.start_due()
                changes.notify()
                await asyncio.sleep(TICK_S)
        finally:
            await self._pool.close()
            await webhooks.close()
            server.should_exit = True
            await serving
            api_v2.close()
            outputs.close()


def _listening(address: Address) -> socket.socket:
    """A socket that listens.

    asyncio turns Nagle's algorithm off only for sockets that name TCP as their protocol. With the
    algorithm, each answer on a kept connection takes 40 ms longer.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def _max_queue_size(environ: Mapping[str, str]) -> int:
    text = environ.get("MAX_QUEUE_SIZE", "").strip() or str(MAX_QUEUE_SIZE)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"MAX_QUEUE_SIZE must be a whole number, 1 or more, not {text!r}")
    return int(text)


def serve(
    address: Address,
    workers: int,
    environ: Mapping[str, str] | None = None,
    *,
    handler: Path = HANDLER,
) -> int:
    """Runs an endpoint in the foreground until Ctrl-C or SIGTERM; says when it can run jobs.

    Args:
        address: Where it listens.
        workers: How many handler processes, 1 or more.
        environ: The workers' environment; default ``os.environ``.
        handler: The file that calls ``runpod.serverless.start``.

    Returns:
        The exit code: 0, or 1 when the port is taken or a worker cannot be started.
    """
    signals: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        # Must not take a lock, since a second Ctrl-C may interrupt this line.
        signals.append(number)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    console = Console(sys.stdout)
    console.say("A local endpoint with RunPod's API, for development and tests only")
    endpoint = LocalEndpoint(address=address, workers=workers, environ=environ, handler=handler)
    try:
        endpoint.start()
    except (OSError, ValueError) as error:
        is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = str(error)
        if is_taken:
            reason = f"port {address.port} is taken; choose another with --port"
        Console(sys.stderr).say(f"The endpoint could not start: {reason}.")
        return 1
    try:
        console.say(f"starting {workers} worker(s); their log follows on standard error")
        while not signals and not endpoint.wait_ready(SIGNAL_POLL_S):
            pass
        if address.host != LOOPBACK and not address.api_key:
            console.say("anyone who reaches this address can run jobs; --api-key asks for a key")
        if not signals:
            console.say(f"ready: {endpoint.url} (Ctrl-C ends it)")
            console.say(f"a page to try it in a browser: {endpoint.page_url}")
        while not signals:
            time.sleep(SIGNAL_POLL_S)
        console.say("ending the workers")
    finally:  # also if the reader of these lines has ended
        endpoint.close()
    return 0
