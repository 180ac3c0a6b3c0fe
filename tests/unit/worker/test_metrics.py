"""The text format of metrics."""

from __future__ import annotations

from tenure.worker.metrics import Family, exposition, of_workers
from tenure.worker.pulse import Phase, Pulse

PULSE = Pulse(
    phase=Phase.READY,
    slots=10,
    busy=3,
    backlog=7,
    masters=2,
    rss_bytes=61_234_567,
    ended={"COMPLETED": 12_345_678, "FAILED": 1},
)


def test_numbers_are_whole_and_each_metric_is_explained() -> None:
    """Large counters keep all their digits; every family has its help and its type."""
    text = exposition(of_workers({"w-1": PULSE}))
    lines = text.splitlines()
    assert 'tenure_worker_slots{worker="w-1",state="used"} 3' in lines
    assert 'tenure_worker_slots{worker="w-1",state="free"} 7' in lines
    assert 'tenure_worker_backlog{worker="w-1"} 7' in lines
    assert 'tenure_worker_masters{worker="w-1"} 2' in lines
    assert 'tenure_worker_resident_memory_bytes{worker="w-1"} 61234567' in lines
    assert 'tenure_worker_attempts_total{worker="w-1",outcome="COMPLETED"} 12345678' in lines
    named = {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")}
    for name in named:
        assert any(line.startswith(f"# HELP {name} ") for line in lines)
        assert f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}" in lines
    assert text.endswith("\n")


def test_labels_are_escaped() -> None:
    """A worker may be called anything: its name ends no line and no value."""
    family = Family("m", "gauge", "M.", [({"worker": 'a"b\\c\nd'}, 1), ({}, 2)])
    lines = exposition([family]).splitlines()
    assert lines[2:] == ['m{worker="a\\"b\\\\c\\nd"} 1', "m 2"]
