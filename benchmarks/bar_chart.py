"""Draws a chart of bars with a mark for each goal, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

__all__ = ["bar_chart"]

LEFT, WIDTH, ROW, TOP = 340, 420, 26, 40
BAR, GOAL = "#1f6feb", "#d9480f"


def bar_chart(values: Mapping[str, float], goals: Mapping[str, float]) -> str:
    """Return an SVG picture: one bar for each value, with a line where its goal is.

    Args:
        values: by name, above zero.
        goals: by the same names; a name may be missing.
    """
    longest = max([*values.values(), *goals.values()])
    height = TOP + ROW * len(values) + 20
    width = LEFT + WIDTH + 80
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20">time divided by the other side\'s; the line is the goal</text>',
    ]
    for index, (name, value) in enumerate(values.items()):
        y = TOP + index * ROW
        length = WIDTH * value / longest
        lines.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        lines.append(
            f'<rect x="{LEFT}" y="{y + 2}" width="{length:.1f}" height="16" fill="{BAR}"/>'
        )
        lines.append(f'<text x="{LEFT + length + 6:.1f}" y="{y + 14}">{value:.3g}</text>')
        if name in goals:
            x = LEFT + WIDTH * goals[name] / longest
            lines.append(
                f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 20}" stroke="{GOAL}" '
                'stroke-width="2"/>'
            )
    return "\n".join([*lines, "</svg>", ""])
