"""Keeps counts and measurements, and writes them in Prometheus' text format, version 0.0.4.

The package prometheus-client is not used: its import adds a tenth of a second to a worker's start.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

__all__ = ["CONTENT_TYPE", "Metric", "Row", "Samples"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The name of a metric, the values of its labels, and its numbers.
Row = tuple[str, Sequence[str], Sequence[float]]


@dataclass(frozen=True)
class Metric:
    """The declaration of a metric.

    Args:
        name: as Prometheus shows it, with the unit at the end.
        type: a counter only grows, a gauge is a state, a histogram sorts measurements by size.
        meaning: one sentence.
        labels: the names of the labels. Each has few values, and none comes from a client.
        buckets: the upper bounds of a histogram, ascending.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


class Samples:
    """Holds the numbers of metrics. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A counter and a gauge have one number. A histogram has one count for each bucket, one for
        # the measurements above the last bound, and the sum of all measurements.
        self._numbers: dict[tuple[str, tuple[str, ...]], list[float]] = {}

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Add to a counter."""
        self.merge([(metric.name, labels, [amount])])

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._numbers[metric.name, labels] = [value]

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a measurement to a histogram."""
        numbers = [0.0] * (len(metric.buckets) + 1)
        numbers[bisect_left(metric.buckets, value)] = 1.0
        self.merge([(metric.name, labels, [*numbers, value])])

    def merge(self, rows: Iterable[Row]) -> None:
        """Add the counters and histograms of another process, as its `rows` returned them."""
        with self._lock:
            for name, labels, amounts in rows:
                key = (name, tuple(labels))
                before = self._numbers.get(key, [0.0] * len(amounts))
                self._numbers[key] = [a + b for a, b in zip(before, amounts, strict=True)]

    def rows(self) -> list[Row]:
        """Return all numbers, in a form that JSON can hold."""
        with self._lock:
            return [(name, labels, list(row)) for (name, labels), row in self._numbers.items()]

    def text(self, metrics: Iterable[Metric]) -> str:
        """Return the page that Prometheus reads.

        Args:
            metrics: the metrics to show, in this order. Those without numbers are left out.
        """
        lines: list[str] = []
        rows = sorted(self.rows())
        for metric in metrics:
            found = [row for row in rows if row[0] == metric.name]
            if found:
                lines.append(f"# HELP {metric.name} {metric.meaning}")
                lines.append(f"# TYPE {metric.name} {metric.type}")
            for _name, labels, numbers in found:
                pairs = list(zip(metric.labels, labels, strict=True))
                lines += _sample_lines(metric, pairs, numbers)
        return "".join(f"{line}\n" for line in lines)


def _sample_lines(
    metric: Metric, pairs: list[tuple[str, str]], numbers: Sequence[float]
) -> Iterator[str]:
    if metric.type != "histogram":
        yield _line(metric.name, pairs, numbers[0])
        return
    *counts, total = numbers
    bounds = [*(f"{bound:g}" for bound in metric.buckets), "+Inf"]
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        yield _line(f"{metric.name}_bucket", [*pairs, ("le", bound)], count)
    yield _line(f"{metric.name}_sum", pairs, total)
    yield _line(f"{metric.name}_count", pairs, sum(counts))


def _line(name: str, pairs: list[tuple[str, str]], value: float) -> str:
    labels = ",".join(f'{label}="{_escaped(text)}"' for label, text in pairs)
    label_part = f"{{{labels}}}" if labels else ""
    return f"{name}{label_part} {float(value)!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
