"""Draws docs/architecture.svg: which package imports which, read from the imports themselves.

Run it with ``.venv/bin/python -m docs.tools.draw_architecture``. CI runs it and fails if the file changes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PICTURE = REPO / "docs" / "architecture.svg"

# What each box of the picture stands for, from the top row to the bottom row. A row imports from rows below it.
ROWS: tuple[tuple[str, ...], ...] = (
    ("handler", "comfy_setup"),
    ("comfy_worker.runpod_worker", "comfy_local"),
    ("comfy_worker.runner", "comfy_worker.shared_services"),
    ("comfy_worker.response",),
    ("comfy_worker.planning", "comfy_worker.comfyui"),
    ("comfy_worker.job", "comfy_worker.models"),
    ("comfy_worker.inputs", "comfy_worker.workflow"),
    ("comfy_worker.request",),
    ("comfy_worker.settings", "comfy_worker.deadline", "comfy_worker.logs", "comfy_worker.errors"),
    ("comfy_common",),
)
BOXES = [name for row in ROWS for name in row]
# Nearly every box imports from these rows. Their arrows are left out, so that the others can be seen.
GROUND = {*ROWS[-2], *ROWS[-1]}
NOTE = "Every box may import from the two bottom rows; those arrows are not drawn."
CAPTIONS = {
    "handler": "starts ComfyUI and the job loop",
    "comfy_setup": "installs, the command line",
    "comfy_local": "RunPod's API on this machine",
    "comfy_common": "paths, sources, downloads, models.txt",
    "comfy_worker.runpod_worker": "RunPod's job loop, progress, shutdown",
    "comfy_worker.runner": "one job, from input to result",
    "comfy_worker.shared_services": "what all jobs share",
    "comfy_worker.job": "RunPod's envelope, typed",
    "comfy_worker.planning": "template + request = workflow",
    "comfy_worker.response": "outputs encoded and delivered",
    "comfy_worker.inputs": "files that came with a job",
    "comfy_worker.models": "families, downloads, cache",
    "comfy_worker.comfyui": "the ComfyUI process",
    "comfy_worker.request": "schema of the input, dialects",
    "comfy_worker.workflow": "pure functions on workflows",
    "comfy_worker.settings": "environment variables",
    "comfy_worker.deadline": "time limit and cancel",
    "comfy_worker.logs": "log lines, secrets hidden",
    "comfy_worker.errors": "the error tree",
}
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 235, 52, 24, 58, 24


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module of the project: its dotted name and its file."""
    yield "handler", REPO / "handler.py"
    for package in ("comfy_common", "comfy_local", "comfy_setup", "comfy_worker"):
        for path in sorted((REPO / package).rglob("*.py")):
            dotted = ".".join(path.relative_to(REPO).with_suffix("").parts)
            yield dotted.removesuffix(".__init__"), path


def box_of(module: str) -> str | None:
    """Return the box that a module belongs to: the longest name in ``ROWS`` that the module's name begins with."""
    fitting = [name for name in BOXES if module == name or module.startswith(name + ".")]
    return max(fitting, key=len, default=None)


def imported_modules(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, at the top and inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows() -> set[tuple[str, str]]:
    """Return all pairs (importing box, imported box)."""
    found = set()
    for module, path in modules():
        start = box_of(module)
        for name in imported_modules(path):
            end = box_of(name)
            if start and end and start != end and end not in GROUND:
                found.add((start, end))
    return found


def positions() -> dict[str, tuple[float, float]]:
    """Return the top left corner of each box, in pixels."""
    width = max(len(row) for row in ROWS) * (BOX_WIDTH + GAP_X) - GAP_X
    corners = {}
    for row_index, row in enumerate(ROWS):
        row_width = len(row) * (BOX_WIDTH + GAP_X) - GAP_X
        left = MARGIN + (width - row_width) / 2
        for column, name in enumerate(row):
            corner = (left + column * (BOX_WIDTH + GAP_X), MARGIN + row_index * (BOX_HEIGHT + GAP_Y))
            corners[name] = corner
    return corners


def draw() -> str:
    """Return the picture as SVG."""
    corners = positions()
    width = round(max(x for x, _ in corners.values()) + BOX_WIDTH + MARGIN)
    height = round(max(y for _, y in corners.values()) + BOX_HEIGHT + 2 * MARGIN)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#888"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    order = {name: index for index, name in enumerate(BOXES)}
    for start, end in sorted(arrows(), key=lambda pair: (order[pair[0]], order[pair[1]])):
        lines.append(_arrow(corners[start], corners[end]))
    for name in BOXES:
        x, y = corners[name]
        title, _, short = name.rpartition(".")
        fill = "#e8f0fe" if title else "#fef3e2"
        lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="{fill}" '
            'stroke="#555"/>'
        )
        middle = x + BOX_WIDTH / 2
        lines.append(
            f'<text x="{middle:g}" y="{y + 22:g}" text-anchor="middle" font-size="15" font-weight="bold">'
            f"{escape(short)}</text>"
        )
        lines.append(
            f'<text x="{middle:g}" y="{y + 41:g}" text-anchor="middle" font-size="12" fill="#333">'
            f"{escape(CAPTIONS.get(name, ''))}</text>"
        )
    lines.append(f'<text x="{MARGIN}" y="{height - 14}" font-size="12" fill="#333">{NOTE}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1 = start[0] + BOX_WIDTH / 2, start[1] + BOX_HEIGHT
    x2, y2 = end[0] + BOX_WIDTH / 2, end[1]
    if end[1] <= start[1]:  # within a row, or upwards
        y1, y2 = start[1] + BOX_HEIGHT / 2, end[1] + BOX_HEIGHT / 2
        x1 = start[0] + (BOX_WIDTH if end[0] > start[0] else 0)
        x2 = end[0] + (0 if end[0] > start[0] else BOX_WIDTH)
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="#bbb" stroke-width="1.2" '
        'marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
