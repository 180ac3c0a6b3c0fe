"""Small charts as inline SVG: no script, no outside asset, colours from the page's variables.

Every function returns one `<svg>` element that scales with its column. Marks carry a `<title>`,
which browsers show as a tooltip and screen readers read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 760


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: its label, its length, and what a tooltip says of it."""

    label: str
    value: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One dot of a scatter chart; both coordinates are at least 1."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A moment to point out on a time axis."""

    at_seconds: float
    #: Written beside the line: a number that a list below the chart explains.
    label: str
    #: `fault`, `recovery` or `note`: the colour.
    kind: str
    title: str


def bars(rows: Sequence[Bar]) -> str:
    """Horizontal bars, longest scale shared, value at the bar's end."""
    label_width, step, thickness = 250, 24, 14
    longest = max((row.value for row in rows), default=0) or 1
    scale = (_WIDTH - label_width - 60) / longest
    parts = []
    for index, row in enumerate(rows):
        y = index * step + 4
        width = max(row.value * scale, 2)
        middle = y + thickness / 2
        parts.append(
            f"<g><title>{escape(row.title)}</title>"
            f'<text class="label" x="{label_width - 10}" y="{middle}" text-anchor="end">'
            f"{escape(row.label)}</text>"
            f'<rect class="mark" x="{label_width}" y="{y}" width="{width:.1f}"'
            f' height="{thickness}" rx="3"/>'
            f'<text class="value" x="{label_width + width + 8:.1f}" y="{middle}">'
            f"{row.value:,.0f}</text></g>"
        )
    return _svg(parts, height=len(rows) * step + 4)


def histogram(rows: Sequence[Bar]) -> str:
    """Columns in the given order, count on top, label below."""
    top, plot, bottom = 22, 190, 26
    highest = max((row.value for row in rows), default=0) or 1
    slot = _WIDTH / max(len(rows), 1)
    parts = []
    for index, row in enumerate(rows):
        height = max(plot * row.value / highest, 1 if row.value else 0)
        middle = slot * (index + 0.5)
        parts.append(
            f"<g><title>{escape(row.title)}</title>"
            f'<rect class="mark" x="{slot * index + slot * 0.14:.1f}" y="{top + plot - height:.1f}"'
            f' width="{slot * 0.72:.1f}" height="{height:.1f}" rx="3"/>'
            f'<text class="value" x="{middle:.1f}" y="{top + plot - height - 10:.1f}"'
            f' text-anchor="middle">{row.value:,.0f}</text>'
            f'<text class="label" x="{middle:.1f}" y="{top + plot + 16}" text-anchor="middle">'
            f"{escape(row.label)}</text></g>"
        )
    parts.append(f'<line class="axis" x1="0" y1="{top + plot}" x2="{_WIDTH}" y2="{top + plot}"/>')
    return _svg(parts, height=top + plot + bottom)


def scatter(dots: Sequence[Dot], *, x_name: str, y_name: str) -> str:
    """Dots on two logarithmic axes, ticks at powers of ten."""
    left, right, top, bottom = 52, 12, 24, 40
    plot_width, plot_height = _WIDTH - left - right, 300
    x_decades = _decades(dot.x for dot in dots)
    y_decades = _decades(dot.y for dot in dots)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + plot_width * math.log10(x) / x_decades,
            top + plot_height * (1 - math.log10(y) / y_decades),
        )

    parts = []
    for power in range(x_decades + 1):
        x, _ = place(10**power, 1)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + plot_height}"/>'
            f'<text class="tick" x="{x:.1f}" y="{top + plot_height + 14}" text-anchor="middle">'
            f"{10**power:,}</text>"
        )
    for power in range(y_decades + 1):
        _, y = place(1, 10**power)
        parts.append(
            f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{_WIDTH - right}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{left - 8}" y="{y:.1f}" text-anchor="end">{10**power:,}</text>'
        )
    for dot in dots:
        x, y = place(dot.x, dot.y)
        title = escape(dot.title)
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{title}</title></circle>'
        )
    parts.append(
        f'<text class="tick" x="{_WIDTH - right}" y="{top + plot_height + 32}"'
        f' text-anchor="end">{escape(x_name)} →</text>'
        f'<text class="tick" x="0" y="10">↑ {escape(y_name)}</text>'
    )
    return _svg(parts, height=top + plot_height + bottom)


def progress(ended_seconds: Sequence[float], markers: Sequence[Marker]) -> str:
    """How many jobs ended in each slice of time, with markers over the slices."""
    left, top, plot, bottom = 52, 34, 170, 38
    span = max([*ended_seconds, *(marker.at_seconds for marker in markers), 1.0]) * 1.02
    slice_seconds = _slice_seconds(span)
    counts = [0] * (int(span / slice_seconds) + 1)
    for ended in ended_seconds:
        counts[int(max(ended, 0) / slice_seconds)] += 1
    scale = (_WIDTH - left) / (len(counts) * slice_seconds)
    highest = max(counts) or 1
    parts = [
        f'<text class="tick" x="0" y="10">jobs ended per {slice_seconds:g} s</text>',
        f'<text class="tick" x="{left - 14}" y="{top}" text-anchor="end">{highest:,}</text>',
        f'<text class="tick" x="{left - 8}" y="{top + plot}" text-anchor="end">0</text>',
    ]
    width = max(slice_seconds * scale - 1.5, 0.8)
    for index, count in enumerate(counts):
        height = plot * count / highest
        begin = index * slice_seconds
        parts.append(
            f'<rect class="mark" x="{left + begin * scale:.1f}" y="{top + plot - height:.1f}"'
            f' width="{width:.1f}" height="{height:.1f}" rx="1.5">'
            f"<title>{begin:g}–{begin + slice_seconds:g} s: {count:,} jobs</title></rect>"
        )
    for second in range(0, int(span) + 1, _tick_seconds(span)):
        parts.append(
            f'<text class="tick" x="{left + second * scale:.1f}" y="{top + plot + 18}"'
            f' text-anchor="middle">{second} s</text>'
        )
    parts.append(
        f'<line class="axis" x1="{left}" y1="{top + plot}" x2="{_WIDTH}" y2="{top + plot}"/>'
    )
    parts += _marker_lines(markers, left, scale, top, plot)
    return _svg(parts, height=top + plot + bottom)


def _marker_lines(
    markers: Sequence[Marker], left: float, scale: float, top: float, plot: float
) -> list[str]:
    """Vertical lines; a label that would lie on the one before it moves to a row below."""
    parts = []
    last_x, row = -math.inf, 0
    for marker in sorted(markers, key=lambda marker: marker.at_seconds):
        x = left + marker.at_seconds * scale
        row = (row + 1) % 7 if x - last_x < 18 else 0
        last_x = x
        y = top - 2 + 20 * row
        parts.append(
            f'<g class="{escape(marker.kind)}"><title>{escape(marker.title)}</title>'
            f'<line class="marker" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{top + plot}"/>'
            f'<circle class="badge" cx="{x:.1f}" cy="{y}" r="9"/>'
            f'<text class="badge-text" x="{x:.1f}" y="{y}" text-anchor="middle">'
            f"{escape(marker.label)}</text></g>"
        )
    return parts


def _slice_seconds(span: float) -> float:
    """A round width that gives at most 120 slices."""
    return next(width for width in (0.1, 0.25, 0.5, 1, 2, 5, 10, 60, 3600) if span / width <= 120)


def _tick_seconds(span: float) -> int:
    return next(width for width in (1, 2, 5, 10, 30, 60, 600, 3600) if span / width <= 16)


def _decades(values: Iterable[float]) -> int:
    """How many powers of ten an axis from 1 must span."""
    return max(1, math.ceil(math.log10(max(values, default=10))))


def _svg(parts: Sequence[str], *, height: float) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img">\n{body}\n</svg>'
