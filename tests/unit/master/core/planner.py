"""A schedule under test: short ways to say what happens to it, and the reference model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from hypothesis import strategies as st

from tenure.master.core.command import (
    CancelJobs,
    PauseSchedule,
    PutSchedule,
)
from tenure.master.core.partition import Partition
from tenure.master.core.record import JobRecord
from tenure.master.core.ticks import tick_job_id
from tenure.master.core.timetable import ScheduleRecord, ScheduleSpec
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import Misfire, Overlap
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import JOB, Rig

EVERY_MS: Final = 10_000
HOUR_MS: Final = 3_600_000
#: Every ten seconds; the rig's clock starts on a tick.
SPEC: Final = ScheduleSpec(cron="*/10 * * * * *", time_zone="UTC", policy=JOB, payload=b"call")


def changed(**changes: object) -> ScheduleSpec:
    """The spec with changes."""
    return msgspec.structs.replace(SPEC, **changes)


def put(rig: Rig, spec: ScheduleSpec = SPEC, name: str = "s", **options: bool) -> ScheduleRecord:
    """Makes or changes a schedule; as it is told."""
    reply = rig.do(PutSchedule(tenant="default", name=name, spec=spec, **options)).reply
    assert isinstance(reply, ScheduleRecord)
    return reply


def schedule(rig: Rig, name: str = "s") -> ScheduleRecord:
    """A schedule as it is."""
    record = rig.partition.schedule("default", name)
    assert record is not None
    return record


def pause(rig: Rig, *, paused: bool = True) -> None:
    """Pauses or resumes the schedule."""
    rig.do(PauseSchedule(tenant="default", name="s", paused=paused))


def end(rig: Rig, job_id: str) -> None:
    """Ends a job."""
    rig.do(CancelJobs(job_ids=[JobId(job_id)]))


def job_id_of(tick_ms: int, name: str = "s", due_ms: int | None = None) -> JobId:
    """The id of a tick's job."""
    return tick_job_id(0, ("default", name), tick_ms, tick_ms if due_ms is None else due_ms)


def jobs(rig: Rig) -> list[JobRecord]:
    """All jobs, in order of their submission."""
    return list(state_of(rig.partition).jobs.values())


# The reference model.


def every_ten_seconds(after_ms: int, until_ms: int) -> list[int]:
    """The ticks of ``SPEC`` after a time, up to another."""
    return list(range(after_ms // EVERY_MS * EVERY_MS + EVERY_MS, until_ms + 1, EVERY_MS))


@dataclass
class Model:
    """One schedule by the rules of docs/explanation/schedules.md, with no thought for speed."""

    misfire: Misfire
    overlap: Overlap
    catch_up_ms: int
    cursor_ms: int
    #: Gives the calendar's ticks after a time, up to another.
    ticks: Callable[[int, int], list[int]] = every_ten_seconds
    fired: list[int] = field(default_factory=list)
    skipped: int = 0
    buffered: int = 0
    open: bool = False
    paused: bool = False
    #: Whether the newest tick's job runs, and whether jobs live in another partition: then one that
    #: is asked to stop does so later.
    runs: bool = False
    away: bool = False

    def look(self, now_ms: int) -> None:
        """All ticks up to now that were not decided on."""
        if self.paused:
            self.cursor_ms = now_ms
            return
        ticks = self.ticks(self.cursor_ms, now_ms)
        self.cursor_ms = now_ms
        kept = [tick for tick in ticks if now_ms - tick <= self.catch_up_ms]
        missed = [tick for tick in kept if now_ms - tick >= 5_000]
        if self.misfire is Misfire.SKIP:
            kept = kept[len(missed) :]
        elif self.misfire is Misfire.FIRE_ONCE:
            kept = missed[-1:] + kept[len(missed) :]
        self.skipped += len(ticks) - len(kept)
        for tick in kept:
            self.judge(tick)

    def judge(self, tick: int) -> None:
        """A tick that is to fire, if the job before lets it."""
        stops = self.overlap is Overlap.CANCEL_OTHER
        if not self.open or self.overlap is Overlap.ALLOW or (stops and not self._heeds_later):
            self.fired.append(tick)
            self.open, self.runs = True, False
        elif stops:
            self.skipped += bool(self.buffered)
            self.buffered = tick
        elif self.overlap is Overlap.BUFFER_ONE and not self.buffered:
            self.buffered = tick
        else:
            self.skipped += 1

    @property
    def _heeds_later(self) -> bool:
        return self.runs or self.away

    def ends(self) -> None:
        """The newest tick's job ends."""
        self.open = self.runs = False
        if self.buffered:
            self.fired.append(self.buffered)
            self.buffered, self.open = 0, True

    def pauses(self, now_ms: int, *, paused: bool) -> None:
        """People stop it, or let it go on; a tick that waits is left out."""
        if paused is not self.paused:
            self.paused, self.cursor_ms = paused, now_ms
            self.skipped += bool(self.buffered)
            self.buffered = 0


STEPS: Final = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 6)),
    st.tuples(st.just("down"), st.sampled_from([1, 2, 3, 4, 8, 40])),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("start"), st.just(0)),
    st.tuples(st.sampled_from(["pause", "resume", "trigger", "put"]), st.just(0)),
)


def agree(rig: Rig) -> None:
    """The journal and a snapshot come to the same state."""
    replayed = rig.replayed()
    recovered = Partition(rig.config)
    cursor = rig.partition.snapshot()
    while (part := cursor.next_slice(3)) is not None:
        recovered.load_slice(msgspec.msgpack.decode(msgspec.msgpack.encode(part)))
    recovered.finish_replay()
    for other in (replayed, recovered):
        audit(other)
        assert other.state_hash() == rig.partition.state_hash()
        assert other.stats() == rig.partition.stats()
