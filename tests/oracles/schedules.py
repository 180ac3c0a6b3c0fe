"""S13: a schedule's ticks fire once each, and none is left out but by a rule of its own.

Which ticks there are is found by brute force (``calendar``), and which job a tick has is derived
anew here. What is decided on is in the journal: how a schedule's cursor moves, and the jobs before
that, in its partition or, through the outbox, in another one. So, by the journal's order and times:

- Each job of a schedule is that of one of its ticks, or of a trigger that somebody asked for. No
  tick has two, over all failovers; none fires before its time, nor while the schedule is paused.
- A tick that the cursor passes over without its job was later than the catch-up window; or missed,
  where ``SKIP`` leaves out all of these, and ``FIRE_ONCE`` all but the newest; or it came while the
  job of the one before had not ended (``SKIP``; ``BUFFER_ONE``, with one that waited already), as
  far as its partition had been told. What these rules forbid does not fire, either; nor does, with
  ``CANCEL_OTHER``, what comes before that job has ended.
- A tick that is kept until the one before has ended fires when it may, unless people pause or
  change the schedule first: then it goes on with the first tick from then on. With ``CANCEL_OTHER``
  that job has been asked to stop, and a newer tick takes the place of one that is kept.
- Once all is well again no tick waits for its decision for longer than ``DECIDED_WITHIN_MS``.
- What was acknowledged, a schedule or a trigger's job, is there.

A schedule is known by the contents of its jobs, so no other job may have those.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from tests.oracles.calendar import ticks_between
from tests.oracles.facts import (
    CancelAsked,
    Cursor,
    Fact,
    Plan,
    Requeued,
    ScheduleDeleted,
    SchedulePaused,
    SchedulePut,
    Sent,
    Settled,
    Submitted,
    Taken,
    TermBegan,
    Ticked,
    Withdrawn,
    last_ms,
)
from tests.oracles.history import SCHEDULE, TRIGGER, Row
from tests.oracles.verdict import Violation

#: A tick that is later was missed: nobody led, or the leader stood still.
MISSED_MS: Final = 5_000
DECIDED_WITHIN_MS: Final = 15_000
#: Times that are looked at beyond the last one, to see that nothing is left out.
_AHEAD_MS: Final = 60_000
_ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "GONE"})
#: What is said to a job for which a tick waits.
GIVES_WAY: Final = "the next tick of its schedule waits for its end"

#: (tenant, name)
Name = tuple[str, str]


def check_schedules(
    facts: Mapping[int, Sequence[Fact]],
    rows: Sequence[Row],
    *,
    partitions: int,
    drained: bool,
) -> list[Violation]:
    """All schedules of a run.

    Args:
        facts: Of each partition, in journal order.
        rows: The history.
        partitions: How many there are.
        drained: Whether all was well again at the end, for long enough.
    """
    owners: dict[str, Name] = {}
    for found in facts.values():
        for fact in found:
            if isinstance(fact, SchedulePut):
                owners[fact.plan.content] = (fact.tenant, fact.name)
    violations = _check_answered(rows, owners)
    if not owners:
        return violations
    letters = {
        (source, fact.target, fact.number): fact
        for source, found in facts.items()
        for fact in found
        if isinstance(fact, Sent)
    }
    ticks: dict[str, Name] = {}
    for partition, found in facts.items():
        desk = _Desk(partition, partitions, letters, owners)
        for fact in found:
            desk.see(fact)
        desk.end()
        if drained:
            desk.check_decided(last_ms(found))
        violations += desk.violations
        ticks |= desk.ticks
    return violations + _check_jobs(facts, rows, owners, ticks)


def _check_answered(rows: Sequence[Row], owners: Mapping[str, Name]) -> list[Violation]:
    """Schedules that were acknowledged."""
    return [
        Violation("S13", row.schedule, "it was acknowledged to be so, and never was")
        for row in rows
        if row.f == SCHEDULE and row.type == "ok"
        if owners.get(row.hash) != (row.tenant, row.schedule)
    ]


def _check_jobs(
    facts: Mapping[int, Sequence[Fact]],
    rows: Sequence[Row],
    owners: Mapping[str, Name],
    ticks: Mapping[str, Name],
) -> list[Violation]:
    """Each job of a schedule has a tick or a trigger, and is there once."""
    violations = []
    there: dict[str, Name] = {}
    sent: set[str] = set()
    for found in facts.values():
        for fact in found:
            if isinstance(fact, Sent) and fact.message.kind == "submit":
                sent.add(fact.message.job)
            elif isinstance(fact, Submitted) and fact.content in owners:
                if fact.job in there:
                    violations.append(Violation("S13", fact.job, "it was submitted twice"))
                there[fact.job] = owners[fact.content]
    acked = {row.job for row in rows if row.f == TRIGGER and row.type == "ok"}
    violations += [
        Violation("S13", job, "its trigger was acknowledged, and it is not there")
        for job in sorted(acked - set(there) - sent)
    ]
    asked: dict[Name, int] = {}
    for row in rows:
        if row.f == TRIGGER and row.type in ("invoke", "ok", "fail"):
            name = (row.tenant, row.schedule)
            asked[name] = asked.get(name, 0) + (1 if row.type == "invoke" else -1)
    for job, name in there.items():
        if job in ticks or job in acked:
            continue
        asked[name] = asked.get(name, 0) - 1
        if asked[name] < 0:
            violations.append(Violation("S13", job, f"no tick of {name} and no trigger has it"))
    return violations


def tick_job(partition: int, tenant: str, name: str, tick_ms: int, fires_ms: int) -> str:
    """The id of a tick's job: a UUIDv7 of when it fires, its random half told by which it is."""
    bits = _bits(tenant, name, tick_ms) & (1 << 62) - 1
    head = fires_ms << 80 | 7 << 76 | partition << 64
    return str(uuid.UUID(int=head | 2 << 62 | bits))


def _bits(tenant: str, name: str, tick_ms: int) -> int:
    text = f"{tenant}\0{name}\0{tick_ms}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _home(tenant: str, queue: str, partitions: int) -> int:
    digest = blake2b(f"{tenant}\0{queue}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


class _Schedule:
    """One schedule, as far as the journal was read."""

    def __init__(self, name: Name, plan: Plan, now_ms: int) -> None:
        self.name = name
        self.plan = plan
        self.paused = False
        #: All ticks up to here were decided on.
        self.frontier_ms = 0
        self.buffered_ms = 0
        self.last_job = ""
        #: Whether nobody waits for the end of that job.
        self.unwatched = False
        self._known: list[int] = []
        self._looked_ms = 0
        self.restart(now_ms)

    def restart(self, now_ms: int) -> None:
        """Goes on with the first tick from now on."""
        self.frontier_ms = max(now_ms, self.plan.start_ms - 1)
        self.buffered_ms = 0
        self._known, self._looked_ms = [], self.frontier_ms

    def ticks(self, until_ms: int) -> list[int]:
        """All that were not decided on, up to a time."""
        until_ms = min(until_ms, self.plan.end_ms or until_ms)
        self._looked_ms = max(self._looked_ms, self.frontier_ms)
        if until_ms > self._looked_ms:
            plan = self.plan
            self._known += ticks_between(plan.cron, plan.zone, self._looked_ms, until_ms)
            self._looked_ms = until_ms
        first = bisect_right(self._known, self.frontier_ms)
        return self._known[first : bisect_right(self._known, until_ms)]

    def fires_ms(self, tick_ms: int) -> int:
        """When a tick fires."""
        jitter_ms = self.plan.jitter_ms
        if not jitter_ms:
            return tick_ms
        self.ticks(tick_ms + jitter_ms)
        after = bisect_right(self._known, tick_ms)
        if after < len(self._known):
            jitter_ms = min(jitter_ms, self._known[after] - tick_ms)
        return tick_ms + _bits(*self.name, tick_ms) % jitter_ms

    def next_fires_ms(self, tick_ms: int, within_ms: int) -> int | None:
        """When the tick behind this one fires, if that is by some time."""
        self.ticks(within_ms)
        after = bisect_right(self._known, tick_ms)
        return self.fires_ms(self._known[after]) if after < len(self._known) else None


class _Desk:
    """The schedules of one partition."""

    def __init__(
        self,
        partition: int,
        partitions: int,
        letters: Mapping[tuple[int, int, int], Sent],
        owners: Mapping[str, Name],
    ) -> None:
        self.violations: list[Violation] = []
        #: Jobs of ticks, and whose.
        self.ticks: dict[str, Name] = {}
        self._partition = partition
        self._partitions = partitions
        self._letters = letters
        self._owners = owners
        self._schedules: dict[Name, _Schedule] = {}
        #: Jobs of schedules: when each came, here or into the outbox.
        self._came_ms: dict[str, int] = {}
        #: Those here that have not ended, those elsewhere of which that is known, and all that were
        #: asked to stop.
        self._open: set[str] = set()
        self._over: set[str] = set()
        self._stopped: set[str] = set()
        self._ended_ms: dict[str, int] = {}
        self._term_ms = 0
        self._now_ms = 0
        self._epoch = ""

    def see(self, fact: Fact) -> None:
        """The next fact."""
        match fact:
            case Submitted() if fact.content in self._owners:
                self._came_ms.setdefault(fact.job, fact.at_ms)
                self._open.add(fact.job)
                self._now_ms = fact.at_ms
            case Sent():
                self._post(fact)
            case Taken():
                letter = self._letters.get((fact.source, self._partition, fact.number))
                if letter is not None and letter.message.kind == "tell":
                    self._hear(letter, fact.at_ms)
            case Settled() | Withdrawn():
                self._open.discard(fact.job)
                if isinstance(fact, Settled):
                    self._ended_ms[fact.job] = fact.at_ms
                    if fact.reason == GIVES_WAY:
                        self._stopped.add(fact.job)
            case Requeued() if fact.job in self._came_ms:
                self._open.add(fact.job)
                self._stopped.discard(fact.job)
            case CancelAsked():
                self._stopped.add(fact.job)
            case TermBegan():
                self._term_ms = self._now_ms = fact.at_ms
                self._begin(fact.token[:8])
            case SchedulePut() | SchedulePaused() | ScheduleDeleted() | Ticked():
                self._now_ms = fact.at_ms
                self._change(fact)
            case _:
                pass

    def _begin(self, epoch: str) -> None:
        """In a cluster that was set back nobody waits for word of what was before."""
        if self._epoch not in ("", epoch):
            self._over.update(self._came_ms)
        self._epoch = epoch

    def _post(self, fact: Sent) -> None:
        message = fact.message
        if message.kind == "submit" and message.content in self._owners:
            self._came_ms.setdefault(message.job, fact.at_ms)
        elif message.kind == "cancel":
            self._stopped.add(message.job)

    def _hear(self, letter: Sent, at_ms: int) -> None:
        if letter.message.outcome in _ENDED:
            self._over.add(letter.message.job)
            self._ended_ms[letter.message.job] = at_ms

    def _change(self, fact: SchedulePut | SchedulePaused | ScheduleDeleted | Ticked) -> None:
        name = (fact.tenant, fact.name)
        schedule = self._schedules.get(name)
        if isinstance(fact, SchedulePut):
            self._put(name, schedule, fact)
            return
        if schedule is None:
            self._say(name, f"seq {fact.seq}: there is no such schedule")
            return
        match fact:
            case SchedulePaused():
                self._leave(schedule)
                schedule.restart(fact.at_ms)
                schedule.paused = fact.paused
                self._check_next(schedule, fact.cursor, fact.at_ms)
            case ScheduleDeleted():
                self._leave(schedule)
                del self._schedules[name]
            case Ticked():
                self._tick(schedule, fact)

    def _put(self, name: Name, schedule: _Schedule | None, fact: SchedulePut) -> None:
        plan, at_ms = fact.plan, fact.at_ms
        if schedule is None:
            schedule = self._schedules[name] = _Schedule(name, plan, at_ms)
        else:
            anew = schedule.paused or fact.paused or _timing(plan) != _timing(schedule.plan)
            if anew:
                self._leave(schedule)
            schedule.plan = plan
            if anew:
                schedule.restart(at_ms)
        schedule.paused = fact.paused
        self._check_next(schedule, fact.cursor, at_ms)

    def _leave(self, schedule: _Schedule) -> None:
        """The schedule begins anew: a tick may have fired, and its cursor not have moved yet."""
        for tick_ms in schedule.ticks(self._now_ms + schedule.plan.jitter_ms)[:1]:
            job = self._job_of(schedule, tick_ms)
            if job in self._came_ms:
                self.ticks[job] = schedule.name

    def _fired(self, schedule: _Schedule, job: str) -> None:
        self.ticks[job] = schedule.name
        schedule.last_job = job
        schedule.unwatched = schedule.plan.overlap == "ALLOW" and not self._is_here(job)

    def _job_of(self, schedule: _Schedule, tick_ms: int) -> str:
        plan = schedule.plan
        target = _home(plan.tenant, plan.queue, self._partitions)
        return tick_job(target, *schedule.name, tick_ms, schedule.fires_ms(tick_ms))

    def _is_busy(self, schedule: _Schedule) -> bool:
        """Whether the newest tick's job has not ended, as far as is known here."""
        job = schedule.last_job
        if not job or schedule.unwatched:
            return False
        return job in self._open if self._is_here(job) else job not in self._over

    def _is_here(self, job: str) -> bool:
        return int(job[15:18], 16) == self._partition

    def _check_next(self, schedule: _Schedule, cursor: Cursor, now_ms: int) -> None:
        """The cursor stands before the first tick that was not decided on."""
        plan, next_ms = schedule.plan, cursor.next_ms
        near = schedule.ticks(now_ms + _AHEAD_MS)
        far = not near and ticks_between(plan.cron, plan.zone, next_ms - 1, next_ms) == [next_ms]
        if next_ms != (near[0] if near else 0) and not far:
            self._say(schedule.name, f"at {now_ms} it waits for {next_ms}, its ticks are {near}")

    def _tick(self, schedule: _Schedule, fact: Ticked) -> None:
        now_ms, cursor = fact.at_ms, fact.cursor
        if schedule.buffered_ms and cursor.buffered_ms != schedule.buffered_ms:
            if not self._gives_place(schedule, cursor):
                self._fire_kept(schedule, now_ms)
            schedule.buffered_ms = 0
        passed_ms = cursor.next_ms - 1 if cursor.next_ms else now_ms
        for tick_ms in schedule.ticks(min(passed_ms, now_ms + _AHEAD_MS)):
            if schedule.paused:
                self._say(schedule.name, f"tick {tick_ms} was decided on while it was paused")
            for wrong in self._decide(schedule, tick_ms, now_ms, cursor):
                self._say(schedule.name, f"tick {tick_ms} {wrong}")
        schedule.frontier_ms = max(schedule.frontier_ms, passed_ms)
        if cursor.buffered_ms not in (0, schedule.buffered_ms):
            self._say(schedule.name, f"tick {cursor.buffered_ms} is kept, which is no new one")
        if cursor.last_job != schedule.last_job:
            self._say(schedule.name, f"{cursor.last_job} is told to be its last job")
        self._check_next(schedule, cursor, now_ms)

    def _gives_place(self, schedule: _Schedule, cursor: Cursor) -> bool:
        """Whether a newer tick is kept instead of the one that was."""
        kept_ms = schedule.buffered_ms
        newer = schedule.plan.overlap == "CANCEL_OTHER" and cursor.buffered_ms > kept_ms
        return newer and self._job_of(schedule, kept_ms) not in self._came_ms

    def _fire_kept(self, schedule: _Schedule, now_ms: int) -> None:
        """The tick that was kept is kept no more."""
        tick_ms = schedule.buffered_ms
        job = self._job_of(schedule, tick_ms)
        if job not in self._came_ms:
            self._say(schedule.name, f"tick {tick_ms} was kept, and left out at {now_ms}")
            return
        if self._is_busy(schedule):
            self._say(schedule.name, f"tick {tick_ms} was kept, and fired before its time")
        self._fired(schedule, job)

    def _decide(
        self, schedule: _Schedule, tick_ms: int, now_ms: int, cursor: Cursor
    ) -> Iterator[str]:
        """One tick that the cursor has passed; whatever is wrong with what it came to."""
        plan, job = schedule.plan, self._job_of(schedule, tick_ms)
        busy, fired = self._is_busy(schedule), job in self._came_ms
        late_ms = self._came_ms.get(job, now_ms) - schedule.fires_ms(tick_ms)
        barred = self._barred(schedule, tick_ms, late_ms)
        if late_ms < 0:
            yield f"was decided on {-late_ms} ms before its time"
        if fired:
            if barred:
                yield f"fired, though {barred}"
            if busy and plan.overlap != "ALLOW":
                yield f"fired while {schedule.last_job} had not ended"
            self._fired(schedule, job)
        elif cursor.buffered_ms == tick_ms:
            stopped = plan.overlap == "CANCEL_OTHER" and schedule.last_job in self._stopped
            if barred or not (stopped or (busy and plan.overlap == "BUFFER_ONE")):
                yield f"is kept, though {barred or 'it could have been decided on'}"
            schedule.buffered_ms = tick_ms
        elif not barred and not (
            busy
            and (plan.overlap == "SKIP" or (plan.overlap == "BUFFER_ONE" and schedule.buffered_ms))
        ):
            yield "was left out, and no rule says so"

    def _barred(self, schedule: _Schedule, tick_ms: int, late_ms: int) -> str:
        """Why a tick that is so late does not fire; empty: it does, if no other is in its way."""
        plan = schedule.plan
        if late_ms > plan.catch_up_ms:
            return f"it was {late_ms} ms late"
        if late_ms < MISSED_MS or plan.misfire == "FIRE_ALL":
            return ""
        if plan.misfire == "SKIP":
            return f"it was missed by {late_ms} ms"
        decided_ms = schedule.fires_ms(tick_ms) + late_ms
        following_ms = schedule.next_fires_ms(tick_ms, decided_ms)
        if following_ms is not None and decided_ms - following_ms >= MISSED_MS:
            return f"it was missed by {late_ms} ms, and so was a newer one"
        return ""

    def end(self) -> None:
        """The journal is read; it may end before the cursor behind a tick that has fired."""
        for schedule in self._schedules.values():
            self._leave(schedule)

    def check_decided(self, now_ms: int) -> None:
        """At the end nothing that was due is left."""
        for schedule in self._schedules.values():
            waiting = [] if schedule.paused else schedule.ticks(now_ms)
            for tick_ms in waiting:
                due_ms = max(schedule.fires_ms(tick_ms), self._term_ms)
                came = self._job_of(schedule, tick_ms) in self._came_ms
                if now_ms - due_ms > DECIDED_WITHIN_MS and not came:
                    self._say(schedule.name, f"nobody has decided on tick {tick_ms}")
            if schedule.buffered_ms and not schedule.paused and not self._is_busy(schedule):
                ended_ms = self._ended_ms.get(schedule.last_job, 0)
                if now_ms - max(ended_ms, self._term_ms, self._now_ms) > DECIDED_WITHIN_MS:
                    self._say(schedule.name, f"tick {schedule.buffered_ms} is kept for nobody")

    def _say(self, name: Name, wrong: str) -> None:
        self.violations.append(Violation("S13", "/".join(name), wrong))


def _timing(plan: Plan) -> tuple[object, ...]:
    return plan.cron, plan.zone, plan.jitter_ms, plan.start_ms, plan.end_ms
