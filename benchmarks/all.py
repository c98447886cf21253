"""Runs the benchmarks one after the other, short, and prints each figure beside its goal.

Run it as ``python -m benchmarks.all --peer PATH [--comfyui DIR] [--out FOLDER]``, on a machine that
does nothing else; it takes about ten minutes. The figures land in FOLDER as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.bar_chart import bar_chart
from comfy_common import paths

__all__ = ["FIGURES", "chart", "main"]

# Each benchmark, how many rounds, and how long it may take.
RUNS = (
    ("overhead", 3),
    ("pixels", 1),
    ("inputs", 1),
    ("throughput", 2),
    ("switch", 2),
    ("urls", 2),
    ("outputs", 2),
    ("memory", 3),
    ("coldstart", 2),
)
LIMIT_S = 480
FIGURES = Path(__file__).with_name("figures.json")
# By the beginning of a row's name, the largest ratio that is wanted.
GOALS = {
    "64x64, one": 0.05,
    "64x64, all": 0.02,
    "beside ComfyUI alone: 64x64": None,
    "1024 PNG, one": 0.13,
    "1024 PNG, all": 0.12,
    "1024 JPEG (peer: PNG), one": 0.11,
    "1024 JPEG (peer: PNG), all": 0.10,
    "2 MB in, 1024 PNG out, one": 0.18,
    "2 MB in, 1024 PNG out, all": 0.12,
    "beside ComfyUI alone: 1024 PNG": 1.3,
    "8 pictures": 1.5,
    "8 files": 1.5,
    "a result of 20 MB": 0.6,
    "process start": 0.55,
}


def main() -> int:
    """Run all of them; returns 1 if one of them failed."""
    options = _read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    environ = dict(os.environ)
    if options.comfyui is not None:
        environ["COMFYUI_DIR"] = str(options.comfyui.resolve())
    peer = [] if options.peer is None else ["--peer", str(options.peer.resolve())]
    documents = []
    failed = []
    began = time.monotonic()
    for name, rounds in RUNS:
        if options.only and name not in options.only:
            continue
        file = options.out / f"{name}.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", str(rounds)]
        if _succeeds([*command, "--json", str(file), *peer], environ):
            documents.append(json.loads(file.read_text(encoding="utf-8")))
        else:
            failed.append(name)
    print(f"\nall: {time.monotonic() - began:.0f} s, load now {os.getloadavg()[0]:.1f}")
    rows = [row for document in documents for row in document["rows"]]
    for row in rows:
        print(_line(row))
    for name in failed:
        print(f"{name}: FAILED, see above")
    if options.write and not failed:
        FIGURES.write_text(json.dumps(documents, indent=1) + "\n", encoding="utf-8")
        print(f"the figures are in {FIGURES}; docs.tools.make_tables takes them from there")
    return 1 if failed else 0


def chart(documents: list[dict[str, Any]]) -> str:
    """Return a chart of the ratios beside their goals, as SVG."""
    rows = [row for document in documents for row in document["rows"]]
    ratios = {row["name"]: row["ratio"] for row in rows if row["ratio"] is not None}
    goals = {name: goal for name in ratios if (goal := _goal(name)) is not None}
    return bar_chart(ratios, goals)


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="a checkout of worker-comfyui")
    parser.add_argument("--comfyui", type=Path, help="the ComfyUI to use; default: .comfyui")
    parser.add_argument("--out", type=Path, default=paths.CACHE / "benchmarks")
    parser.add_argument(
        "--write", action="store_true", help="put the figures into the docs, if all succeed"
    )
    parser.add_argument("--only", nargs="+", choices=[name for name, _ in RUNS])
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write needs the figures of all benchmarks, so it cannot go with --only")
    return options


def _succeeds(command: list[str], environ: dict[str, str]) -> bool:
    with subprocess.Popen(command, cwd=paths.REPO, env=environ) as process:
        try:
            return process.wait(LIMIT_S) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it ends the workers that it started
            return False


def _goal(name: str) -> float | None:
    return next((goal for start, goal in GOALS.items() if name.startswith(start)), None)


def _line(row: dict[str, Any]) -> str:
    """A row of the table: what, ours, the other, the ratio and the goal."""
    goal, ratio = _goal(row["name"]), row["ratio"]
    cells = [f"{row['ours']:10.1f}"]
    cells.append("" if row["peer"] is None else f"{row['peer']:10.1f}")
    cells.append("" if ratio is None else f"ratio {ratio:.3f}")
    if goal is not None and ratio is not None:
        verdict = "met" if ratio <= goal else "NOT MET"
        cells.append(f"goal {goal:g}: {verdict}")
    return f"{row['name']:48} " + "  ".join(cells)


if __name__ == "__main__":
    sys.exit(main())
