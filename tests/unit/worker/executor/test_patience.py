"""Timeouts, graces and lost slots, by themselves: no thread, no loop, no real time."""

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.executor.outbox import Outbox
from tenure.worker.executor.patience import (
    BEGIN_MS,
    GRACE_MS,
    RELEASE_GRACE_MS,
    Patience,
    grace_ms,
)
from tenure.worker.held import AttemptResult, HeldJob, Terms
from tenure.worker.port import FactKind
from tests.unit.worker.masters import TOKEN, job_id

ABANDONED, FREED, STARTED = FactKind.ABANDONED, FactKind.FREED, FactKind.STARTED
CANCELLED, COMPLETED = AttemptOutcome.CANCELLED, AttemptOutcome.COMPLETED
TIMED_OUT, RELEASED = AttemptOutcome.TIMED_OUT, AttemptOutcome.RELEASED
LOST = AttemptOutcome.LOST
TIMEOUT_MS = 2_000


class Room:
    """Where nothing runs: notes what is asked of it, and is the clock as well."""

    def __init__(self, *, rest_ms: int | None = None, deadly: bool = False) -> None:
        self.now_ms = 100_000
        self.asked: list[tuple[HeldJob, AttemptOutcome]] = []
        self.killed: list[HeldJob] = []
        self.replaced: list[HeldJob] = []
        #: The count at each time that it has risen.
        self.told: list[int] = []
        self.outbox = Outbox(lambda: None)
        self.patience = Patience(self, self, self.outbox, None, self._note_lost)
        self._rest_ms = rest_ms
        self._deadly = deadly
        self._jobs = 0

    def begin(self, timeout_ms: int = TIMEOUT_MS) -> HeldJob:
        """A job that has begun, and has said so."""
        job = self._job(timeout_ms)
        assert job.begin(self.now_ms)
        self.hear(STARTED, job)
        return job

    def claim(self) -> HeldJob:
        """A job that somebody is about to begin."""
        job = self._job(timeout_ms=0)
        assert job.claim()
        return job

    def _job(self, timeout_ms: int) -> HeldJob:
        self._jobs += 1
        return HeldJob(
            job_id=job_id(self._jobs),
            partition=0,
            token=TOKEN,
            seq=self._jobs,
            terms=Terms("work", timeout_ms),
            expires_ms=1 << 60,
        )

    def hear(self, kind: FactKind, job: HeldJob) -> None:
        """There is something to say about a job."""
        self.outbox.post(kind, job)
        self.facts()

    def facts(self) -> list[FactKind]:
        """What is said by now."""
        return [kind for kind, _ in self.patience.hear(self.outbox.take())]

    def pass_time(self, ms: int) -> None:
        """Lets it be later."""
        self.now_ms += ms
        self.patience.tick(self.now_ms)

    # The clock.

    def boot_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms

    # The means.

    def ask(self, job: HeldJob, outcome: AttemptOutcome) -> int:
        self.asked.append((job, outcome))
        return grace_ms(outcome) if self._rest_ms is None else self._rest_ms

    def kill(self, job: HeldJob) -> bool:
        self.killed.append(job)
        return self._deadly

    def replace(self, job: HeldJob) -> None:
        self.replaced.append(job)

    def _note_lost(self) -> None:
        self.told.append(self.patience.lost)


def outcome_of(job: HeldJob) -> AttemptOutcome | None:
    """How its attempt has ended."""
    return None if job.result is None else job.result.outcome


def test_a_job_is_asked_at_its_timeout_and_given_up_after_its_grace() -> None:
    """Neither sooner; then it is reported, its slot is another job's, and its code is counted."""
    room = Room()
    job = room.begin()
    room.pass_time(TIMEOUT_MS - 1)
    assert room.asked == []
    room.pass_time(1)
    assert room.asked == [(job, TIMED_OUT)]
    room.pass_time(GRACE_MS - 1)
    assert (job.result, room.replaced) == (None, [])
    room.pass_time(1)
    assert outcome_of(job) is TIMED_OUT
    assert (room.replaced, room.facts(), room.told) == ([job], [ABANDONED], [1])
    room.hear(FREED, job)
    assert room.patience.lost == 0


def test_what_ends_within_its_grace_keeps_its_slot() -> None:
    """How it has ended is its own word."""
    room = Room()
    job = room.begin()
    room.pass_time(TIMEOUT_MS)
    assert job.finish(AttemptResult(COMPLETED), room.now_ms)
    room.pass_time(GRACE_MS)
    assert outcome_of(job) is COMPLETED
    assert (room.killed, room.replaced, room.told) == ([], [], [])


def test_the_first_wish_counts() -> None:
    """A job that was cancelled is asked once, and given up as cancelled, whatever comes after."""
    room = Room()
    job = room.begin()
    room.patience.stop(job, CANCELLED)
    room.pass_time(TIMEOUT_MS)
    room.patience.stop(job, RELEASED)
    assert room.asked == [(job, CANCELLED)]
    room.pass_time(GRACE_MS - TIMEOUT_MS)
    assert outcome_of(job) is CANCELLED


def test_a_worker_that_ends_waits_less() -> None:
    """What is to be handed back has its own grace."""
    room = Room()
    job = room.begin()
    room.patience.stop(job, RELEASED)
    room.pass_time(RELEASE_GRACE_MS)
    assert outcome_of(job) is RELEASED


def test_what_gets_no_time_is_given_up_at_once() -> None:
    """A thread cannot be asked again."""
    room = Room(rest_ms=0)
    job = room.begin()
    room.patience.stop(job, TIMED_OUT)
    assert outcome_of(job) is TIMED_OUT
    assert room.told == [1]


def test_what_can_be_killed_loses_no_slot() -> None:
    """Its end is told by whoever runs it, and its slot is freed with that."""
    room = Room(deadly=True)
    job = room.begin()
    room.pass_time(TIMEOUT_MS)
    room.pass_time(GRACE_MS)
    assert room.killed == [job]
    assert (job.result, room.replaced, room.told) == (None, [], [])


def test_each_lost_slot_is_told() -> None:
    """With the count as it is then: what has ended meanwhile is not in it."""
    room = Room()
    first, second, third = (room.begin(timeout_ms=0) for _ in range(3))
    for job in (first, second):
        room.patience.stop(job, CANCELLED)
        room.pass_time(GRACE_MS)
    room.hear(FREED, first)
    room.patience.stop(third, CANCELLED)
    room.pass_time(GRACE_MS)
    assert room.told == [1, 2, 2]


def test_jobs_that_have_ended_wake_nobody() -> None:
    """The next time to look is that of a job that runs; with none there is no such time."""
    room = Room()
    short, long = room.begin(), room.begin(2 * TIMEOUT_MS)
    assert room.patience.next_ms() == room.now_ms + TIMEOUT_MS
    short.finish(AttemptResult(COMPLETED), room.now_ms)
    assert room.patience.next_ms() == room.now_ms + 2 * TIMEOUT_MS
    long.finish(AttemptResult(COMPLETED), room.now_ms)
    assert room.patience.next_ms() is None


def test_a_job_that_was_taken_back_begins_anew() -> None:
    """The alarm of its first start is not its second one's."""
    room = Room()
    job = room.begin()
    room.pass_time(TIMEOUT_MS - 1)
    job.started_ms = room.now_ms
    room.hear(STARTED, job)
    room.pass_time(1)
    assert room.asked == []
    room.pass_time(TIMEOUT_MS - 1)
    assert room.asked == [(job, TIMED_OUT)]


def test_what_is_about_to_begin_is_not_given_up_before_it_has() -> None:
    """Who has claimed it frees its slot if it does not begin; if it does, it is given up then."""
    room = Room(rest_ms=0)
    idle, begun = room.claim(), room.claim()
    for job in (idle, begun):
        room.patience.stop(job, LOST)
    begun.started_ms = room.now_ms
    assert room.patience.next_ms() == room.now_ms + BEGIN_MS
    room.pass_time(BEGIN_MS)
    assert (idle.result, outcome_of(begun)) == (None, LOST)
    assert (room.replaced, room.told) == ([begun], [1])
    idle.freed = True
    room.pass_time(BEGIN_MS)
    assert (idle.result, room.patience.next_ms()) == (None, None)


def test_a_job_that_went_back_is_not_given_up() -> None:
    """A cancel may meet one whose lease had lapsed when its turn came: its slot is free by then."""
    room = Room()
    job = room.begin()
    room.patience.stop(job, CANCELLED)
    job.freed = True
    room.pass_time(GRACE_MS)
    assert (job.result, room.replaced, room.facts(), room.told) == (None, [], [], [])
