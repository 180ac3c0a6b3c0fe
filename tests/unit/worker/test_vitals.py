"""What a worker tells of its own process."""

import time

from tenure.v1 import worker_pb2
from tenure.worker.executor.loop import LoopBlocked
from tenure.worker.port import Load
from tenure.worker.vitals import FRESH_MS, Gauge, Reading, told
from tenure.worker.workload import Quarantined, Workload
from tests.unit.worker.rig import HEARTBEAT_MS, Rig


def test_a_process_reads_itself() -> None:
    """Its memory as the system has it, its CPU since the last reading, the worst lateness once."""
    gauge = Gauge()
    first = gauge.read(0)
    assert first.rss_bytes > 1_000_000
    ballast = bytearray(64 * 1024 * 1024)
    begun_s = time.process_time()
    while time.process_time() - begun_s < 0.02:
        ballast[len(ballast) // 2] += 1 if ballast[len(ballast) // 2] < 255 else -255
    gauge.late(7)
    gauge.late(5)
    assert gauge.read(FRESH_MS - 1) == first
    second = gauge.read(FRESH_MS)
    assert second.rss_bytes >= first.rss_bytes + len(ballast) // 2
    assert 0.02 <= second.cpu_share < 10
    assert second.loop_lag_ms == 7
    assert gauge.read(2 * FRESH_MS).loop_lag_ms == 0


def test_what_masters_are_told() -> None:
    """Slots in use are never more than there are, whatever waits here beyond them."""
    workload = Workload(4)
    workload.occupied, workload.drained = 6, True
    blocked = LoopBlocked(job_id="j", name="app.spin", ms=2_500, stack="here")
    load, reading = Load(2, 1, blocked), Reading(1_000, 0.5, 3)
    assert told(workload, load, reading, 0) == worker_pb2.Vitals(
        drained=True,
        slots_used=4,
        slots_lost=1,
        children=2,
        rss_bytes=1_000,
        cpu_share=0.5,
        loop_lag_ms=3,
        loop_blocked=worker_pb2.LoopBlocked(
            job_id="j", name="app.spin", blocked_ms=2_500, stack="here"
        ),
    )
    workload.drained, workload.stopping = False, True
    workload.quarantine = Quarantined("its disk", False, 4_000)
    vitals = told(workload, Load(), Reading(), 5_000)
    assert vitals.stopping
    assert vitals.quarantine == worker_pb2.Quarantine(reason="its disk", for_ms=1_000)


def test_vitals_go_with_heartbeats() -> None:
    """One set with the Hello, one with each heartbeat, none between."""
    rig = Rig(slots=2)
    session = rig.leading()
    rig.grant(session, 1)
    rig.run_all()
    assert rig.hear(session).vitals == []
    for _ in range(3):
        rig.wait(2 * HEARTBEAT_MS)
        assert len(rig.hear(session).vitals) == 1
