"""Quarantine: who gets nothing for a while, who does not, and how it ends."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core.effect import Announce, Effect, SendQuarantine
from tenure.master.core.health import ENDS, PROBE_MS, WINDOW_MS
from tenure.master.core.record import JobFault, Policy, RetryPolicy
from tenure.master.core.volatile import SessionMarked
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, Rig, held, of_type, report_row

NAMES = ("one", "two")
SICK, WELL = 1, 2
#: Failures after which a worker is in quarantine, by default.
FAILURES = CONFIG.quarantine_failures


def rig_of(*, names: tuple[str, ...] = NAMES, failures: int = FAILURES) -> Rig:
    """Two workers that run the same jobs."""
    rig = Rig(replace(CONFIG, quarantine_failures=failures))
    for session_id in (SICK, WELL):
        rig.open_session(session_id, names=names)
    return rig


def end(
    rig: Rig,
    session_id: int,
    name: str,
    outcome: AttemptOutcome = AttemptOutcome.FAILED,
    category: ErrorCategory = ErrorCategory.TRANSIENT,
) -> list[Effect]:
    """A worker gets a new job of a name and ends its first attempt; what is told of that."""
    job_id = rig.submit_one(Policy(name=name, queue=name))
    (row,) = rig.grant(session_id)
    assert row.job_id == job_id
    fault = JobFault("app.Error", "it broke", category=category)
    is_well = outcome is AttemptOutcome.COMPLETED
    told = report_row(row, outcome, fault=None if is_well else fault)
    decision = rig.do(commands.ReportAttempts(session_id=session_id, rows=[told], jitter=[0.5]))
    if not is_well:
        rig.do(commands.CancelJobs(job_ids=[job_id], reason=""))
    return list(decision.effects)


def succeed(rig: Rig, session_id: int, name: str) -> list[Effect]:
    """A worker does a job well."""
    return end(rig, session_id, name, AttemptOutcome.COMPLETED)


def fail_often(rig: Rig, times: int = FAILURES, **how: ErrorCategory) -> None:
    """One worker fails at jobs of both names, the other one completes some."""
    for number in range(times):
        name = NAMES[number % 2]
        end(rig, SICK, name, **how)
        if number < 2:
            succeed(rig, WELL, name)


def beat(rig: Rig, session_id: int = SICK) -> list[Effect]:
    """A heartbeat of a worker without leases; what is told of it."""
    return list(rig.renew(session_id, 10_000).effects)


def is_given(rig: Rig, session_id: int = SICK) -> bool:
    """Whether a worker would get a job now; whoever gets it hands it back."""
    job_id = rig.submit_one(Policy(name="one", queue="one"))
    rows = rig.grant(session_id)
    if rows:
        rig.give_back(*rows, session_id=session_id)
    rig.do(commands.CancelJobs(job_ids=[job_id], reason=""))
    return bool(rows)


def test_who_fails_at_what_others_complete_gets_nothing() -> None:
    """It is told why, the operator is told, and others go on."""
    rig = rig_of()
    fail_often(rig, FAILURES - 1)
    assert of_type(beat(rig), SendQuarantine) == []
    end(rig, SICK, NAMES[0])
    decision = rig.renew(SICK, 10_000)
    (told,) = of_type(decision.effects, SendQuarantine)
    assert (told.session_id, told.lifted) == (SICK, False)
    assert "16 jobs of 2 names" in told.reason
    assert decision.effects[-1] == Announce(event="quarantined", counts={"workers": 1})
    marked = SessionMarked(session_id=SICK, since_ms=rig.now_ms, by_hand=False)
    assert [event for event in decision.events if isinstance(event, SessionMarked)] == [marked]
    assert not is_given(rig, SICK)
    assert is_given(rig, WELL)
    assert of_type(beat(rig), SendQuarantine) == []


def test_a_report_is_judged_at_once() -> None:
    """Who fails fast fails many jobs between two heartbeats: the next report is enough."""
    rig = rig_of()
    fail_often(rig)
    effects = end(rig, SICK, NAMES[0])
    assert len(of_type(effects, SendQuarantine)) == 1


def _others_fail_too(rig: Rig) -> None:
    for number in range(2 * ENDS):
        for session_id in (SICK, WELL):
            end(rig, session_id, NAMES[number % 2])


def _one_name_only(rig: Rig) -> None:
    for _ in range(2 * ENDS):
        end(rig, SICK, "one")
        succeed(rig, WELL, "one")


def _often_enough_well(rig: Rig) -> None:
    for number in range(4 * ENDS):
        name = NAMES[number % 2]
        (succeed if number % 3 == 0 else end)(rig, SICK, name)
        succeed(rig, WELL, name)


def _nobody_else_does_better(rig: Rig) -> None:
    for number in range(FAILURES):
        end(rig, SICK, NAMES[number % 2])
        if number < 2:
            succeed(rig, SICK, NAMES[number])


def _asked_to_stop(rig: Rig) -> None:
    for number in range(2 * ENDS):
        end(rig, SICK, NAMES[number % 2], outcome=AttemptOutcome.CANCELLED)
        succeed(rig, WELL, NAMES[number % 2])


def _slowly(rig: Rig) -> None:
    for _ in range(2 * ENDS):
        fail_often(rig, 1)
        rig.pass_time(WINDOW_MS // 10)
        beat(rig, SICK)
        beat(rig, WELL)


def _switched_off(rig: Rig) -> None:
    fail_often(rig, 2 * ENDS)


@pytest.mark.parametrize(
    ("history", "failures"),
    [
        (_others_fail_too, FAILURES),
        (_one_name_only, FAILURES),
        (_often_enough_well, FAILURES),
        (_nobody_else_does_better, FAILURES),
        (_asked_to_stop, FAILURES),
        (_slowly, FAILURES),
        (_switched_off, 0),
    ],
)
def test_who_is_not_to_blame_goes_on(history: Callable[[Rig], None], failures: int) -> None:
    """It may be the jobs, one name, bad luck, or nobody's fault; or it is switched off."""
    rig = rig_of(failures=failures)
    history(rig)
    assert of_type(beat(rig), SendQuarantine) == []
    assert is_given(rig, SICK)


def test_few_jobs_that_fail_again_and_again_are_their_own_fault() -> None:
    """However often: there have to be several."""
    rig = rig_of()
    for name in NAMES:
        end(rig, SICK, name)
        succeed(rig, WELL, name)
    for name in NAMES:
        rig.submit_one(Policy(name=name, queue=name, retry=RetryPolicy(max_attempts=1_000)))
    for _ in range(ENDS):
        for row in rig.grant(SICK, credit=2):
            rig.fail(row, session_id=SICK)
        rig.pass_time(7_000)
        beat(rig, WELL)
        assert of_type(beat(rig, SICK), SendQuarantine) == []


def test_five_jobs_are_several() -> None:
    """Four are not, however few failures it takes; the reason names the last job's name."""
    rig = rig_of(failures=1)
    for name in NAMES:
        end(rig, SICK, name)
        succeed(rig, WELL, name)
    for name in NAMES:
        end(rig, SICK, name)
    assert of_type(beat(rig), SendQuarantine) == []
    end(rig, SICK, "one")
    (told,) = of_type(beat(rig), SendQuarantine)
    assert told.reason == (
        "5 jobs of 2 names have failed there lately that other workers complete, "
        "the last one of one"
    )


@pytest.mark.parametrize("late", [False, True])
def test_lately_is_five_minutes(late: bool) -> None:
    """To the millisecond, for failures and for what others complete; a success undoes nothing."""
    rig = rig_of()
    fail_often(rig, FAILURES - 1)
    rig.now_ms += WINDOW_MS + late
    beat(rig)
    succeed(rig, SICK, "one")
    end(rig, SICK, "two")
    assert len(of_type(beat(rig), SendQuarantine)) == (not late)


def test_the_last_two_who_completed_a_job_are_known() -> None:
    """So there is always another one than who fails, however often both have completed it."""
    rig = rig_of()
    rig.open_session(3, names=NAMES)
    end(rig, 3, "one")
    for session_id in (WELL, 3):
        for name in NAMES:
            succeed(rig, session_id, name)
    rig.now_ms += 1
    for session_id in (WELL, SICK):
        for name in NAMES:
            succeed(rig, session_id, name)
    for number in range(FAILURES):
        end(rig, SICK, NAMES[number % 2])
    rig.now_ms += WINDOW_MS
    assert len(of_type(beat(rig), SendQuarantine)) == 1


def test_what_others_complete_is_known_as_long_as_somebody_is_watched() -> None:
    """Another one that was watched, too, and is gone, takes nothing of it along."""
    rig = rig_of()
    rig.open_session(3, names=NAMES)
    end(rig, 3, "one")
    fail_often(rig)
    rig.do(commands.CloseSession(session_id=3))
    assert len(of_type(beat(rig), SendQuarantine)) == 1


@pytest.mark.parametrize(("successes", "wait_ms"), [(ENDS, 0), (1, WINDOW_MS + 1)])
def test_who_does_well_again_is_not_watched(successes: int, wait_ms: int) -> None:
    """None of its last ends is a failure, or none of lately."""
    rig = rig_of()
    end(rig, SICK, "one")
    rig.now_ms += wait_ms
    beat(rig)
    for _ in range(successes):
        assert state_of(rig.partition).health.watching
        succeed(rig, SICK, "one")
    assert not state_of(rig.partition).health.watching


def test_reports_on_a_stream_that_is_gone_are_judged_by_nobody() -> None:
    """Their worker has another one, or is gone, too."""
    rig = rig_of()
    end(rig, SICK, "one")
    decision = rig.do(commands.ReportAttempts(session_id=99, rows=[], jitter=[0.5]))
    assert decision.events == ()


def test_one_name_is_enough_for_who_runs_no_other() -> None:
    """An application may have a single job."""
    rig = rig_of(names=("one",))
    for number in range(FAILURES):
        end(rig, SICK, "one")
        if not number:
            succeed(rig, WELL, "one")
    assert len(of_type(beat(rig), SendQuarantine)) == 1


def test_errors_of_the_system_weigh_twice() -> None:
    """No job asks for them; nor for a lost child."""
    rig = rig_of()
    fail_often(rig, FAILURES // 2, category=ErrorCategory.SYSTEM)
    assert len(of_type(beat(rig), SendQuarantine)) == 1


def test_the_last_that_runs_a_job_gets_it_nevertheless() -> None:
    """Nobody is put into quarantine, and nobody stays in it, whom no other can stand in for."""
    rig = rig_of()
    fail_often(rig)
    rig.do(commands.DrainSession(session_id=WELL))
    assert of_type(beat(rig), SendQuarantine) == []
    rig.do(commands.UndrainSession(session_id=WELL))
    assert len(of_type(beat(rig), SendQuarantine)) == 1
    assert not is_given(rig)
    rig.do(commands.CloseSession(session_id=WELL))
    assert is_given(rig)
    rig.open_session(3, names=NAMES, queues=("one",))
    assert is_given(rig)
    rig.open_session(4, names=NAMES)
    assert not is_given(rig)


@pytest.mark.parametrize(
    ("own", "others", "stands_in"),
    [
        (("one",), ("one",), True),
        (("one",), ("one", "two"), True),
        (("one", "two"), ("one",), False),
        (("one",), ("two",), False),
    ],
)
def test_who_serves_all_queues_of_another_can_stand_in_for_it(
    own: tuple[str, ...], others: tuple[str, ...], stands_in: bool
) -> None:
    """The same ones, or more."""
    rig = Rig()
    rig.open_session(SICK, names=NAMES, queues=own)
    rig.open_session(WELL, names=NAMES, queues=others)
    rig.do(commands.MarkSession(session_id=SICK, reason="its disk"))
    assert is_given(rig) is not stands_in


@pytest.mark.parametrize("stream", [SICK, 3])
def test_who_is_in_quarantine_keeps_nothing_from_others(stream: int) -> None:
    """Neither what comes next nor jobs of its sticky keys; whichever of its streams the word came
    by.
    """
    rig = rig_of()
    policy = Policy(name="one", queue="one")
    rig.submit_one(policy, sticky_key="s")
    (row,) = rig.grant(SICK)
    rig.open_session(3, "w1", names=NAMES, declare=[held(row)])
    rig.open_session(4, names=NAMES)
    rig.do(commands.MarkSession(session_id=stream, reason="its disk"))
    job_id = rig.submit_one(policy, sticky_key="s")
    rig.dispatch((SICK, 1), (3, 1), (4, 1))
    assert rig.record(job_id).incarnation == "w4"


def test_it_is_tried_with_one_job_and_released_if_that_succeeds() -> None:
    """After a minute one at a time; a failure begins another minute."""
    rig = rig_of()
    fail_often(rig)
    beat(rig)
    rig.pass_time(PROBE_MS // 2)
    beat(rig)
    rig.pass_time(PROBE_MS // 2)
    beat(rig)
    for name in NAMES:
        rig.submit_one(Policy(name=name, queue=name, retry=RetryPolicy(max_attempts=1)))
    (row,) = rig.grant(SICK, credit=2)
    assert rig.grant(SICK, credit=2) == []
    rig.fail(row, session_id=SICK)
    assert rig.grant(SICK, credit=2) == []
    for _ in range(PROBE_MS // 5_000):
        rig.pass_time(5_000)
        beat(rig)
        beat(rig, WELL)
    (row,) = rig.grant(SICK, credit=2)
    rig.report(row, session_id=SICK)
    assert beat(rig)[-2:] == [
        SendQuarantine(session_id=SICK, reason="", lifted=True),
        Announce(event="released", counts={"workers": 1}),
    ]
    rig.submit(3, Policy(name="one", queue="one"))
    assert len(rig.grant(SICK, credit=3)) == 3


def test_an_operators_quarantine_holds_until_they_end_it() -> None:
    """It is not tried, and being the last is no way out."""
    rig = rig_of()
    rig.do(commands.CloseSession(session_id=WELL))
    rig.do(commands.MarkSession(session_id=SICK, reason="mine", by_hand=True, for_ms=PROBE_MS))
    assert not is_given(rig)
    rig.do(commands.MarkSession(session_id=SICK, reason=None))
    assert is_given(rig)


def test_a_mark_that_is_told_again_begins_no_other_minute() -> None:
    """Unless somebody else makes it: it is an operator's from when they say so, and no longer."""
    rig = rig_of()
    mark = commands.MarkSession(session_id=SICK, reason="its disk")
    for command, is_tried in (
        (mark, True),
        (replace(mark, by_hand=True), False),
        (replace(mark, by_hand=True), False),
        (replace(mark, for_ms=PROBE_MS), True),
    ):
        rig.do(command)
        rig.now_ms += PROBE_MS - 1
        rig.do(command)
        rig.now_ms += 1
        beat(rig)
        assert is_given(rig) is is_tried


def test_who_comes_back_by_a_new_stream_begins_anew() -> None:
    """What brought it into quarantine counts no more: its worker says whether it still is there."""
    rig = rig_of()
    fail_often(rig)
    assert of_type(beat(rig), SendQuarantine)
    rig.open_session(3, "w1", names=NAMES)
    assert of_type(beat(rig, 3), SendQuarantine) == []
    assert is_given(rig, 3)


def test_what_fails_in_quarantine_brings_nobody_there_again() -> None:
    """It had those jobs before: they are counted by the minute that begins anew, and by no more."""
    rig = rig_of()
    rows = []
    for number in range(FAILURES):
        rig.submit_one(Policy(name=NAMES[number % 2], queue=NAMES[number % 2]))
        rows += rig.grant(SICK)
    rig.do(commands.MarkSession(session_id=SICK, reason="its disk"))
    for name in NAMES:
        succeed(rig, WELL, name)
    for row in rows:
        rig.fail(row, session_id=SICK)
    rig.open_session(3, "w1", names=NAMES)
    assert of_type(beat(rig, 3), SendQuarantine) == []


def test_what_the_worker_tells_a_new_leader_counts() -> None:
    """Marks are volatile, and taken over with the time that they have lasted."""
    rig = rig_of()
    fail_often(rig)
    beat(rig)
    rig.crash(window_ms=0)
    for session_id in (SICK, WELL):
        rig.open_session(session_id, names=NAMES)
    assert is_given(rig)
    rig.do(commands.MarkSession(session_id=SICK, reason="r", by_hand=False, for_ms=PROBE_MS - 1))
    assert not is_given(rig)
    rig.pass_time(1)
    assert is_given(rig)


@pytest.mark.parametrize("failures", [1, FAILURES])
def test_nothing_is_kept_of_who_is_gone(failures: int) -> None:
    """Neither its failures nor its mark."""
    rig = rig_of()
    fail_often(rig, failures)
    beat(rig)
    health = state_of(rig.partition).health
    assert bool(health.marks) is (failures == FAILURES)
    rig.do(commands.CloseSession(session_id=SICK))
    assert not health.watching


def test_replayed_jobs_are_nobodys_fault() -> None:
    """A journal full of failures puts nobody into quarantine."""
    rig = rig_of()
    fail_often(rig, FAILURES)
    assert not state_of(rig.replayed()).health.watching
