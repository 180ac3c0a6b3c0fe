"""The lines of the benchmark, and what its jobs carry."""

import pytest

from benchmarks.payload import PAYLOAD_BYTES, checksum, payload
from benchmarks.table import Line, at_least, at_most, print_lines


def test_a_target_is_met_at_its_limit() -> None:
    """Both kinds of limits include the limit itself."""
    assert at_most("x", 5.0, 5.0, "ms").verdict == "ok"
    assert at_most("x", 5.1, 5.0, "ms").verdict == "MISS"
    assert at_least("x", 0.3, 0.3, "").verdict == "ok"
    assert at_least("x", 0.29, 0.3, "").verdict == "MISS"


def test_a_line_without_a_target_has_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """It is shown, and judged by nobody."""
    print_lines("Title", [Line(what="jobs/s", value="1,000")])
    assert capsys.readouterr().out.rstrip().endswith("1,000")


def test_payloads_differ_and_have_the_stated_size() -> None:
    """So a swapped or cut payload shows in its checksum."""
    rows = [payload(number) for number in range(2_000)]
    assert {len(row) for row in rows} == {PAYLOAD_BYTES}
    assert len({checksum(row) for row in rows}) == len(rows)
