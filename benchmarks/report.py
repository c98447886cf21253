"""Prints a benchmark's figures as a table, and writes them as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.sides import OURS, PEER

__all__ = ["Row", "line", "make_parser", "report", "row_of"]


@dataclass(frozen=True)
class Row:
    """One line of the table: medians, in milliseconds.

    Attributes:
        name: what was measured.
        ours: this worker's time.
        peer: the peer's time; None without one.
        ratio: ours divided by the peer's.
        ours_cpu: the processor time of all of this worker's processes for one job.
        peer_cpu: the same for the peer.
    """

    name: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    ours_cpu: float | None = None
    peer_cpu: float | None = None


def row_of(
    name: str, times: dict[str, list[float]], cpu: dict[str, list[float]] | None = None
) -> Row:
    """Make a row of the times of each side.

    Args:
        name: what was measured.
        times: by side, its time in each round.
        cpu: by side, its processor time in each round.
    """
    medians = _medians(times)
    cpu_medians = _medians(cpu or {})
    ours, peer = medians[OURS], medians.get(PEER)
    ratio = None if peer is None else ours / peer
    return Row(name, ours, peer, ratio, cpu_medians.get(OURS), cpu_medians.get(PEER))


def _medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {side: statistics.median(numbers) for side, numbers in values.items() if numbers}


def make_parser(description: str | None, *, rounds: int = 3) -> argparse.ArgumentParser:
    """Make a command line with the options that all comparisons share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--peer",
        type=Path,
        metavar="PATH",
        help="a checkout of worker-comfyui to run in turns with this worker",
    )
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="how often each side takes its turn"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    return parser


def report(title: str, rows: list[Row], file: Path | None, unit: str = "ms") -> None:
    """Print the table, and write the file if there is one."""
    print(f"\n{title}: medians in {unit}; load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")
    print(f"{'':44} {'ours':>8} {'peer':>8} {'ratio':>7} {'CPU ours':>9} {'CPU peer':>9}")
    for row in rows:
        print(line(row))
    if file is not None:
        document: dict[str, Any] = {
            "benchmark": title,
            "unit": unit,
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "load": os.getloadavg(),
            "rows": [asdict(row) for row in rows],
        }
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def line(row: Row) -> str:
    """Return a row of the table."""
    cells = f"{row.ours:8.0f} {_cell(row.peer):>8} {_cell(row.ratio, 3):>7}"
    return f"{row.name:44} {cells} {_cell(row.ours_cpu):>9} {_cell(row.peer_cpu):>9}"


def _cell(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"
