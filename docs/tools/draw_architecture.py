"""Draws docs/architecture.svg: which package imports which, read from the imports themselves.

Run it with ``.venv/bin/python -m docs.tools.draw_architecture``. CI runs it and fails if the file
changes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PICTURE = REPO / "docs" / "architecture.svg"

# The boxes, from the top row to the bottom row. A row imports from rows below it. An empty name
# leaves a gap, so that fewer arrows pass behind a box.
ROWS: tuple[tuple[str, ...], ...] = (
    ("", "handler", "", "comfy_setup"),
    ("comfy_worker.runpod_worker", "", "", "comfy_local"),
    ("", "comfy_worker.runner", "", ""),
    ("", "comfy_worker.shared_services", "", "comfy_worker.client"),
    ("", "", "comfy_worker.response", ""),
    ("comfy_worker.planning", "", "", "comfy_worker.comfyui"),
    ("comfy_worker.job", "comfy_worker.models", "", ""),
    ("comfy_worker.request", "", "comfy_worker.workflow", ""),
    ("", "comfy_worker.inputs", "", ""),
    ("", "", "comfy_worker.imaging", ""),
    ("comfy_worker.settings", "comfy_worker.deadline", "comfy_worker.logs", "comfy_worker.errors"),
    ("comfy_common",),
)
BOXES = [name for row in ROWS for name in row if name]
# Nearly every box imports from these rows. Their arrows are left out, so that the others can be
# seen.
GROUND = {*ROWS[-2], *ROWS[-1]}
NOTE = "Every box may import from the two bottom rows; those arrows are not drawn."
CAPTIONS = {
    "handler": "starts ComfyUI and the job loop",
    "comfy_setup": "installs, the command line",
    "comfy_local": "RunPod's API on this machine",
    "comfy_common": "paths, sources, downloads, models.txt",
    "comfy_worker.runpod_worker": "RunPod's job loop, progress, shutdown",
    "comfy_worker.client": "sends jobs to an endpoint",
    "comfy_worker.runner": "one job, from input to result",
    "comfy_worker.shared_services": "what all jobs share",
    "comfy_worker.job": "RunPod's envelope, typed",
    "comfy_worker.planning": "template + request = workflow",
    "comfy_worker.response": "outputs encoded and delivered",
    "comfy_worker.inputs": "files that came with a job",
    "comfy_worker.imaging": "pixels, in processes that can be ended",
    "comfy_worker.models": "families, downloads, cache",
    "comfy_worker.comfyui": "the ComfyUI process",
    "comfy_worker.request": "schema of the input, dialects",
    "comfy_worker.workflow": "pure functions on workflows",
    "comfy_worker.settings": "environment variables",
    "comfy_worker.deadline": "time limit and cancel",
    "comfy_worker.logs": "log lines, secrets hidden",
    "comfy_worker.errors": "the error tree",
}
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 250, 52, 40, 58, 24

Point = tuple[float, float]


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module of the project: its dotted name and its file."""
    yield "handler", REPO / "handler.py"
    for package in ("comfy_common", "comfy_local", "comfy_setup", "comfy_worker"):
        for path in sorted((REPO / package).rglob("*.py")):
            dotted = ".".join(path.relative_to(REPO).with_suffix("").parts)
            yield dotted.removesuffix(".__init__"), path


def box_of(module: str) -> str | None:
    """Return a module's box: the longest name in ``ROWS`` that the module's name begins with."""
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


def positions() -> dict[str, Point]:
    """Return the top left corner of each box, in pixels."""
    width = max(len(row) for row in ROWS) * (BOX_WIDTH + GAP_X) - GAP_X
    corners = {}
    for row_index, row in enumerate(ROWS):
        row_width = len(row) * (BOX_WIDTH + GAP_X) - GAP_X
        left = MARGIN + (width - row_width) / 2
        for column, name in enumerate(row):
            if not name:
                continue
            corner = (
                left + column * (BOX_WIDTH + GAP_X),
                MARGIN + row_index * (BOX_HEIGHT + GAP_Y),
            )
            corners[name] = corner
    return corners


def arrow_ends(corners: dict[str, Point]) -> dict[tuple[str, str], tuple[Point, Point]]:
    """Return where each arrow starts and ends.

    Arrows leave a box at its lower edge and reach a box at its upper edge. Several arrows share an
    edge evenly, in the order of the boxes at their other ends, so that few of them cross.
    """
    starts: dict[str, list[str]] = {name: [] for name in BOXES}
    ends: dict[str, list[str]] = {name: [] for name in BOXES}
    for start, end in arrows():
        starts[start].append(end)
        ends[end].append(start)

    def share(name: str, others: list[str], other: str) -> float:
        order = sorted(others, key=lambda box: (corners[box][0], corners[box][1]))
        return corners[name][0] + BOX_WIDTH * (order.index(other) + 1) / (len(order) + 1)

    found = {}
    for start, end in arrows():
        upper = (share(start, starts[start], end), corners[start][1] + BOX_HEIGHT)
        lower = (share(end, ends[end], start), corners[end][1])
        found[start, end] = (upper, lower)
    return found


def draw() -> str:
    """Return the picture as SVG."""
    corners = positions()
    width = round(max(x for x, _ in corners.values()) + BOX_WIDTH + MARGIN)
    height = round(max(y for _, y in corners.values()) + BOX_HEIGHT + 2 * MARGIN)
    order = {name: index for index, name in enumerate(BOXES)}
    ends = arrow_ends(corners)
    pairs = sorted(ends, key=lambda pair: (order[pair[0]], order[pair[1]]))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#777"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *(_arrow(*ends[pair]) for pair in pairs),
    ]
    for name in BOXES:
        lines += _box(name, corners[name])
    lines.append(_text((MARGIN, height - 14), NOTE, 'font-size="12" fill="#333"'))
    return "\n".join([*lines, "</svg>", ""])


def _box(name: str, corner: Point) -> list[str]:
    x, y = corner
    package, _, short = name.rpartition(".")
    fill = "#e8f0fe" if package else "#fef3e2"
    middle = x + BOX_WIDTH / 2
    return [
        f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
        f'fill="{fill}" stroke="#555"/>',
        _text((middle, y + 22), short, 'text-anchor="middle" font-size="15" font-weight="bold"'),
        _text((middle, y + 41), CAPTIONS[name], 'text-anchor="middle" font-size="12" fill="#333"'),
    ]


def _text(position: Point, text: str, style: str) -> str:
    x, y = position
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


def _arrow(start: Point, end: Point) -> str:
    (x1, y1), (x2, y2) = start, end
    bend = (y2 - y1) / 2
    curve = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    return (
        f'<path d="{curve}" fill="none" stroke="#999" stroke-width="1.2" marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
