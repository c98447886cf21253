"""Answers ``GET /ping``: whether the worker is ready, and how far its start is.

RunPod's load balancers ask for it on the port ``PORT_HEALTH``; elsewhere an operator may. On the
same port ``GET /metrics`` answers Prometheus.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from comfy_common.prometheus import CONTENT_TYPE
from comfy_worker.metrics import worker_metrics
from comfy_worker.startup import start_times

__all__ = ["HealthServer", "serve_health"]

log = logging.getLogger(__name__)


def serve_health(port: int, *, is_warmed_up: bool) -> None:
    """Answer ``GET /ping`` and ``/metrics`` from now on; a port that is in use is only logged.

    Args:
        port: where to listen.
        is_warmed_up: whether the worker is ready only after its warm-up.
    """
    moments = ["ComfyUI ready", *(["warm-up ended"] if is_warmed_up else [])]
    try:
        HealthServer(port, lambda: start_times.has(*moments)).start()
    except OSError as error:
        log.warning(
            "nothing answers /ping on port %d: %s", port, error, extra={"action": "health.off"}
        )


class HealthServer:
    """The HTTP server of one worker.

    Args:
        port: 0 takes a free one.
        is_ready: whether the worker can run jobs.

    Attributes:
        port: where it listens.
    """

    def __init__(self, port: int, is_ready: Callable[[], bool]) -> None:
        class Handler(_Handler):
            ready = staticmethod(is_ready)

        self._server = ThreadingHTTPServer(("", port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on, in a thread."""
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    timeout = 10.0

    @staticmethod
    def ready() -> bool:
        """Whether the worker can run jobs."""
        return False

    def do_GET(self) -> None:
        """Answer ``/metrics``, and ``/ping`` with 200 once ready, else 204, as RunPod expects."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._send(CONTENT_TYPE, worker_metrics.text())
            return
        if path != "/ping":
            self.send_error(404)
            return
        state = start_times.state()
        if not self.ready():
            self.send_response(204)
            self.send_header("X-Worker-State", _printable(state["state"]))
            self.end_headers()
            return
        self._send("application/json", json.dumps({**state, "state": "ready"}))

    def _send(self, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
        """Log at debug level."""
        log.debug(format, *args)


def _printable(text: str) -> str:
    """Return a text that can be a header."""
    return text.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")
