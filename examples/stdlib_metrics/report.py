"""What a run found: a table for the terminal and a self-contained page for the browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from examples.stdlib_metrics import chart
from examples.stdlib_metrics.metrics import ModuleMetrics

#: Upper ends of the bands of a function's complexity, after the SEI's risk classes.
_BANDS = (1, 2, 5, 10, 15, 20, 30, 50)
_PAGE = Path(__file__).with_name("page.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A job that ended FAILED."""

    path: str
    error: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One line of the timeline."""

    at_seconds: float
    #: `fault`, `recovery` or `note`.
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything both forms show."""

    title: str
    summary: str
    modules: Sequence[ModuleMetrics]
    failures: Sequence[Failure]
    #: Label and value of what else is worth a tile.
    facts: Sequence[tuple[str, str]] = ()
    #: When each job's outcome reached the client, in seconds since the first submit.
    ended_seconds: Sequence[float] = ()
    timeline: Sequence[Moment] = ()

    def totals(self) -> list[tuple[str, str]]:
        """Label and value of the sums over all modules."""
        return [
            ("modules measured", f"{len(self.modules):,}"),
            ("failed", f"{len(self.failures):,}"),
            ("lines", f"{sum(module.lines for module in self.modules):,}"),
            ("functions", f"{sum(module.functions for module in self.modules):,}"),
            ("classes", f"{sum(module.classes for module in self.modules):,}"),
            ("source", f"{sum(module.size_bytes for module in self.modules) / 1e6:.1f} MB"),
        ]

    def most_complex(self, count: int) -> list[ModuleMetrics]:
        """The modules with the highest total complexity, highest first."""
        return sorted(self.modules, key=lambda module: (-module.complexity, module.path))[:count]


def text_table(report: Report, *, rows: int = 10) -> str:
    """The report for a terminal, 100 columns at most."""
    header = ("module", "lines", "functions", "classes", "nesting", "complexity", "worst function")
    lines = [report.title, report.summary, ""]
    body = [
        (
            _cut(module.path, 27),
            f"{module.lines:,}",
            f"{module.functions:,}",
            f"{module.classes:,}",
            f"{module.nesting_max}",
            f"{module.complexity:,}",
            _cut(_worst(module), 24),
        )
        for module in report.most_complex(rows)
    ]
    lines += _columns([header, *body], left={0, 6})
    if report.failures:
        lines += ["", "FAILED (as they should: no Python of today parses them)"]
        lines += _columns(
            [(_cut(failure.path, 40), _cut(failure.error, 54)) for failure in report.failures],
            left={0, 1},
        )
    lines += ["", *_columns([*report.totals(), *report.facts], left={0})]
    return "\n".join(lines)


def timeline_text(timeline: Sequence[Moment]) -> str:
    """The timeline for a terminal, one moment a line."""
    mark = {"fault": "✗", "recovery": "✓"}
    return "\n".join(
        f"{moment.at_seconds:7.2f} s  {mark.get(moment.kind, '·')} {moment.text}"
        for moment in timeline
    )


def write_html(report: Report, path: Path) -> None:
    """Writes the page; its folder is made if missing."""
    template = Template(_PAGE.read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(report.title),
        summary=escape(report.summary),
        tiles=_tiles([*report.totals(), *report.facts]),
        progress=_progress(report),
        failures=_failures(report.failures),
        top=_top_bars(report),
        histogram=_histogram(report.modules),
        scatter=_scatter(report.modules),
        table=_module_table(report.most_complex(25)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _worst(module: ModuleMetrics) -> str:
    return f"{module.worst.name} ({module.worst.complexity})" if module.worst else "–"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _columns(rows: Sequence[Sequence[str]], *, left: set[int]) -> list[str]:
    """Rows as aligned text; the columns named in left are flush left, the others right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _tiles(facts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for label, value in facts
    )


def _progress(report: Report) -> str:
    if not report.ended_seconds:
        return ""
    markers = [
        chart.Marker(
            at_seconds=moment.at_seconds, label=str(number), kind=moment.kind, title=moment.text
        )
        for number, moment in enumerate(report.timeline, start=1)
    ]
    items = "\n".join(
        f'<li class="{escape(moment.kind)}"><i>{number}</i>'
        f"<time>{moment.at_seconds:.2f} s</time> {escape(moment.text)}</li>"
        for number, moment in enumerate(report.timeline, start=1)
    )
    chart_svg = chart.progress(report.ended_seconds, markers)
    listing = f'<ol class="timeline">{items}</ol>' if items else ""
    return f"<section><h2>The run</h2>{chart_svg}{listing}</section>"


def _failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return ""
    rows = "\n".join(
        f'<tr><td class="file">{escape(failure.path)}</td><td>{escape(failure.error)}</td>'
        f'<td class="number">{failure.attempts}</td></tr>'
        for failure in failures
    )
    return (
        "<section><h2>Failed jobs</h2><p>Files that this Python cannot parse. Each is one FAILED "
        "job with its error, and nothing else noticed.</p><table><thead><tr><th>file</th>"
        f'<th>error</th><th class="number">attempts</th></tr></thead><tbody>{rows}</tbody></table>'
        "</section>"
    )


def _top_bars(report: Report) -> str:
    return chart.bars(
        [
            chart.Bar(
                label=_cut(module.path, 36),
                value=module.complexity,
                title=f"{module.path}: {module.functions:,} functions, {module.lines:,} lines",
            )
            for module in report.most_complex(20)
        ]
    )


def _histogram(modules: Sequence[ModuleMetrics]) -> str:
    counts = [0] * (len(_BANDS) + 1)
    for module in modules:
        if module.worst:
            worst = module.worst.complexity
            counts[next((i for i, end in enumerate(_BANDS) if worst <= end), len(_BANDS))] += 1
    rows = []
    for index, count in enumerate(counts):
        first = _BANDS[index - 1] + 1 if index else 1
        last = _BANDS[index] if index < len(_BANDS) else None
        label = f"{first}" if first == last else f"{first}–{last}" if last else f"≥ {first}"
        rows.append(chart.Bar(label=label, value=count, title=f"{label}: {count:,} modules"))
    return chart.histogram(rows)


def _scatter(modules: Sequence[ModuleMetrics]) -> str:
    return chart.scatter(
        [
            chart.Dot(
                x=module.lines,
                y=module.complexity,
                title=f"{module.path}: {module.lines:,} lines, complexity {module.complexity:,}",
            )
            for module in modules
            if module.lines and module.complexity
        ],
        x_name="lines",
        y_name="complexity",
    )


def _module_table(modules: Sequence[ModuleMetrics]) -> str:
    return "\n".join(
        f'<tr><td class="file">{escape(module.path)}</td>'
        + "".join(
            f'<td class="number">{value:,}</td>'
            for value in (
                module.lines,
                module.functions,
                module.classes,
                module.nesting_max,
                module.complexity,
            )
        )
        + f"<td>{escape(_worst(module))}</td></tr>"
        for module in modules
    )
