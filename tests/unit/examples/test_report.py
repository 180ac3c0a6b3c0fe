"""Both forms of the standard library example's report."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from examples.stdlib_metrics import chart
from examples.stdlib_metrics.metrics import measure_source
from examples.stdlib_metrics.report import Failure, Moment, Report, text_table, write_html


def sample(*, modules: int) -> Report:
    """A report with every part in it."""
    source = b"def f(x):\n    return 1 if x else 2\n"
    return Report(
        title="A title with <angles>",
        summary="What happened & how",
        modules=[measure_source(source * (n + 1), f"m{n}.py") for n in range(modules)],
        failures=[Failure(path="bad.py", error="SyntaxError: <nope>", attempts=1)],
        ended_seconds=[0.1 * n for n in range(modules)],
        timeline=[Moment(at_seconds=0.5, kind="fault", text="leader killed")],
    )


def test_the_table_is_sorted_and_fits_a_terminal() -> None:
    """The most complex module comes first, and no line is wider than 100 columns."""
    lines = text_table(sample(modules=30), rows=3).splitlines()
    assert [line.split()[0] for line in lines[4:7]] == ["m29.py", "m28.py", "m27.py"]
    assert any("bad.py" in line and "SyntaxError" in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_the_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    """It names no other file or host, and text from outside is text."""
    path = tmp_path / "new" / "report.html"
    write_html(sample(modules=30), path)
    page = path.read_text(encoding="utf-8")
    assert "&lt;angles&gt;" in page
    assert "SyntaxError: &lt;nope&gt;" in page
    assert not any(sign in page for sign in ("http:", "https:", "src=", "href=", "@import"))


def test_an_empty_run_still_makes_a_page(tmp_path: Path) -> None:
    """No module at all divides nothing by zero."""
    write_html(sample(modules=0), tmp_path / "report.html")
    assert "modules measured" in text_table(sample(modules=0))


def test_every_chart_is_well_formed() -> None:
    """Each is one svg element that an XML parser reads, whatever its labels hold."""
    bar = chart.Bar(label="<a>", value=3, title='"&"')
    marker = chart.Marker(at_seconds=2, label="1", kind="fault", title="<x>")
    for svg in (
        chart.bars([bar]),
        chart.histogram([bar, bar]),
        chart.scatter([chart.Dot(x=1, y=1000, title="<t>")], x_name="x", y_name="y"),
        chart.progress([0.0, 1.0, 7.5], [marker, marker]),
    ):
        assert ElementTree.fromstring(svg).tag == "svg"
