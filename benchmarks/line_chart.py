"""Draws charts of lines with logarithmic scales, as SVG, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Series", "line_chart"]

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 460, 260, 60, 40, 60
LEGEND_LINE = 20
COLOURS = ("#1f6feb", "#d9480f", "#2b8a3e", "#9c36b5", "#5c5f66", "#c2255c")


@dataclass(frozen=True)
class Series:
    """One line: its name, and a value above zero for each label of the horizontal axis."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Scale:
    """A logarithmic scale from 10**`low` to 10**`high`."""

    low: int
    high: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Scale:
        """Return the smallest scale with whole powers of ten around positive values."""
        low = math.floor(math.log10(min(values)))
        high = math.ceil(math.log10(max(values)))
        return cls(low, max(high, low + 1))

    def height(self, value: float) -> float:
        """Return the distance of a value from the lower end, as a share from 0 to 1."""
        return (math.log10(value) - self.low) / (self.high - self.low)


def line_chart(labels: Sequence[str], panels: Mapping[str, Sequence[Series]]) -> str:
    """Return an SVG picture with one panel a title, and one legend.

    Args:
        labels: the labels of the horizontal axis, evenly spaced.
        panels: the lines of each panel; all panels have lines of the same names.
    """
    first = next(iter(panels.values()))
    height = HEIGHT + TOP + BOTTOM + LEGEND_LINE * len(first)
    width = len(panels) * (WIDTH + LEFT) + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for index, (title, series) in enumerate(panels.items()):
        lines += _panel(LEFT + index * (WIDTH + LEFT), title, labels, series)
    for index, entry in enumerate(first):
        y = TOP + HEIGHT + BOTTOM + LEGEND_LINE * index
        colour = COLOURS[index % len(COLOURS)]
        lines.append(f'<rect x="{LEFT}" y="{y - 9}" width="24" height="4" fill="{colour}"/>')
        lines.append(f'<text x="{LEFT + 32}" y="{y}">{escape(entry.name)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _panel(x: float, title: str, labels: Sequence[str], series: Sequence[Series]) -> list[str]:
    values = [max(value, 0.01) for entry in series for value in entry.values]
    scale = Scale.of(values)
    lines = [f'<text x="{x}" y="{TOP - 14}" font-weight="bold">{escape(title)}</text>']
    for power in range(scale.low, scale.high + 1):
        y = TOP + HEIGHT * (1 - scale.height(10.0**power))
        lines.append(f'<path d="M{x} {y:.1f}H{x + WIDTH - 30}" stroke="#ddd"/>')
        lines.append(f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    step = (WIDTH - 60) / max(len(labels) - 1, 1)
    for index, label in enumerate(labels):
        middle = x + 15 + step * index
        lines.append(
            f'<text x="{middle:.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle" '
            f'font-size="10">{escape(label)}</text>'
        )
    for number, entry in enumerate(series):
        heights = [scale.height(max(value, 0.01)) for value in entry.values]
        points = [
            f"{x + 15 + step * index:.1f},{TOP + HEIGHT * (1 - height):.1f}"
            for index, height in enumerate(heights)
        ]
        colour = COLOURS[number % len(COLOURS)]
        lines.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return lines
