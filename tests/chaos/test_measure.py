"""What a chaos run says of itself: what must not be there is named when it is planted."""

from __future__ import annotations

import random

import pytest

from tests.chaos import faults_below  # noqa: F401 - declares its faults
from tests.chaos.app import ASKED
from tests.chaos.arena import Kill, queues_of
from tests.chaos.faults import FAULTS, chosen
from tests.chaos.measure import (
    Execution,
    Failover,
    announcements,
    executions_of,
    failovers_of,
    hand_overs_of,
    is_old,
    lost_offices,
    name_restarted,
    quantiles,
)
from tests.chaos.process import Event
from tests.chaos.rounds import Strike, draw
from tests.chaos.starts import Starts
from tests.oracles.history import QUIT, START, Row

JOB = "01a202f4-a52f-7000-81d6-ee73a3b7d735"
#: The tokens of three terms of partition 0.
OLD, NEXT, LATER = (f"00000001{revision:016x}" for revision in (10, 20, 30))


def event(at_ms: float, process: str, name: str, term: int, why: str = "") -> Event:
    """A master's line about the office of partition 0."""
    fields = {"event": name, "partition": 0, "term": f"1.{term}", "why": why}
    return Event(at_ms, f"{process}.0.log", fields)


def strike(name: str, since_ms: float, until_ms: float, *hurt: str) -> Strike:
    """A fault that was injected."""
    return Strike(fault=FAULTS[name], since_ms=since_ms, until_ms=until_ms, hurt=hurt)


def failover(at_ms: float) -> Failover:
    """Of partition 0, with nothing counted yet."""
    return Failover(
        partition=0,
        at_ms=at_ms,
        killed="master-1.0.log",
        term="1.20",
        alone=True,
        new_leader_ms=0.0,
        first_grant_ms=0.0,
        in_flight=0,
    )


def job(number: int) -> str:
    """The id of a job of partition 0."""
    return f"{JOB[:-2]}{number:02d}"


def row(at_ms: float, kind: str, f: str, number: int, *, lease: str = "", detail: str = "") -> Row:
    """A worker's row about one job."""
    return Row(
        wall=0,
        boottime=at_ms,
        process="worker-1",
        incarnation="i",
        type=kind,  # type: ignore[arg-type]
        f=f,
        call=number,
        job=job(number),
        lease=lease,
        detail=detail,
    )


def starts(*begun: tuple[float, str]) -> Starts:
    """Jobs that started under a token."""
    return Starts(
        row(at_ms, "ok", START, number, lease=f"{token}{number:024d}")
        for number, (at_ms, token) in enumerate(begun)
    )


def work(until_ms: float) -> list[tuple[float, str]]:
    """What a partition starts that has enough to do."""
    return [(until_ms - 5 * number, OLD) for number in range(50, 0, -1)]


def test_a_failover_is_timed_from_the_kill_of_who_led() -> None:
    """Kills of those that lead nothing are none, and neither is a zombie's late word."""
    events = [
        event(0, "master-2", "leader", 5),
        event(10, "master-1", "leader", 10),
        event(11, "master-2", "follower", 5, "office lost"),
        event(7_000, "master-3", "leader", 20),
    ]
    kills = [Kill(900.0, "master-2", "master-2.0.log"), Kill(1_000.0, "master-1", "master-1.0.log")]
    sent = {"master-1.0.log": [(0, 3), (1, 9)]}
    (found,) = failovers_of(kills, sent, events, starts((2_000, OLD), (9_000, NEXT)), [])
    assert (found.killed, found.new_leader_ms, found.first_grant_ms) == (
        "master-1.0.log",
        6_000.0,
        8_000.0,
    )
    assert (found.in_flight, found.alone) == (1, True)


@pytest.mark.parametrize(
    ("strikes", "count"),
    [
        ([], 1),
        ([strike("etcd-leader-killed", 0, 1_000)], 1),
        ([strike("leader-paused", 0, 1_000, "master-2")], 1),
        ([strike("leader-paused", 0, 1_000, "master-1")], 0),
        ([strike("etcd-paused", 0, 1_000)], 0),
    ],
)
def test_an_office_lost_for_no_reason_is_a_false_failover(
    strikes: list[Strike], count: int
) -> None:
    """Only what may cost this master its office excuses it."""
    events = [event(2_000, "master-1", "follower", 10, "office lost")]
    assert len(lost_offices(events, strikes).for_nothing) == count


def test_an_office_that_an_old_etcd_revoked_is_told_apart() -> None:
    """A fault that should cost none excuses a loss only where etcd is known to revoke wrongly."""
    events = [event(2_000, "master-1", "follower", 10, "office lost")]
    strikes = [strike("etcd-leader-paused", 0, 1_000)]
    assert [len(each) for each in lost_offices(events, strikes)] == [1, 0]
    assert [len(each) for each in lost_offices(events, strikes, old_etcd=True)] == [0, 1]
    both = [*strikes, strike("etcd-paused", 0, 1_000)]
    assert lost_offices(events, both, old_etcd=True) == ([], [])


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("3.4.23", True),
        ("3.4.31", False),
        ("3.5.0", True),
        ("3.5.13", True),
        ("3.5.14", False),
        ("3.6.4", False),
    ],
)
def test_which_etcd_revokes_leases_that_are_renewed(version: str, old: bool) -> None:
    """The mend is in the newest of each line."""
    assert is_old(version) == old


HAND_OVER = [
    event(1_000, "master-1", "follower", 10, "handed over"),
    event(1_200, "master-2", "leader", 20),
]


def test_a_hand_over_is_no_false_failover_and_is_timed() -> None:
    """From the last start under the old token, which comes before who gave it up says so."""
    assert lost_offices(HAND_OVER, []) == ([], [])
    (one,) = hand_overs_of(HAND_OVER, starts(*work(600), (600, OLD), (1_500, NEXT)), [])
    assert (one.by, one.to, one.alone) == ("master-1.0.log", "master-2.0.log", True)
    assert one.first_grant_ms == 900.0


@pytest.mark.parametrize(
    ("begun", "took_ms"),
    [
        # What was granted before and starts late neither shortens a pause nor ends it.
        ([(600, OLD), (1_300, OLD), (1_500, NEXT)], [500.0]),
        ([(600, OLD), (1_500, NEXT), (1_600, OLD)], [900.0]),
        # The next term starts nothing, the one after it does.
        ([(600, OLD), (8_000, LATER)], [7_400.0]),
        # Nobody had started anything before.
        ([(1_500, NEXT)], [500.0]),
        # The run was over.
        ([(600, OLD)], []),
    ],
)
def test_a_pause_is_what_workers_have_of_it(
    begun: list[tuple[float, str]], took_ms: list[float]
) -> None:
    """Between the last start of before and the first one under a newer token."""
    found = hand_overs_of(HAND_OVER, starts(*begun), [])
    assert [one.first_grant_ms for one in found] == took_ms


def test_a_hand_over_without_work_is_told_apart() -> None:
    """Where all workers are gone their jobs are withheld; where a client is, there are none."""
    found = starts(*work(600), (600, OLD), (6_500, NEXT))
    for struck, alone in (
        (strike("workers-killed", 0, 20_000), False),
        (strike("worker-killed", 0, 20_000), True),
        (strike("workers-killed", 7_000, 20_000), True),
        (strike("narrow-line", 0, 20_000, "client-1"), False),
        (strike("narrow-line", 0, 20_000, "worker-1"), True),
    ):
        (one,) = hand_overs_of(HAND_OVER, found, [struck])
        assert (one.alone, one.first_grant_ms) == (alone, 5_900.0), struck.fault.name


def test_a_hand_over_of_withheld_jobs_is_told_apart() -> None:
    """A failover that misses workers withholds what they ran, for a lease TTL."""
    hand_over = [
        event(20_000, "master-1", "follower", 10, "handed over"),
        event(20_200, "master-2", "leader", 20),
    ]
    found = starts(*work(19_500), (19_500, OLD), (21_700, NEXT))
    for at_ms, alone in ((4_000, True), (6_000, False), (20_100, True)):
        events = [event(at_ms, "master-1", "suspect", 10), *hand_over]
        (one,) = hand_overs_of(sorted(events, key=lambda e: e.at_ms), found, [])
        assert one.alone is alone, at_ms


@pytest.mark.parametrize(
    ("before", "alone"),
    [
        (work(600), True),
        (work(600)[1:], False),
        # That was long ago.
        ([*work(-4_400), (-4_300, OLD)], False),
        ([], False),
    ],
)
def test_a_hand_over_of_a_partition_that_starts_hardly_anything_is_told_apart(
    before: list[tuple[float, str]], alone: bool
) -> None:
    """All that was submitted runs, so that nothing had to wait for the next leader."""
    begun = starts(*before, (600, OLD), (2_700, NEXT))
    (one,) = hand_overs_of(HAND_OVER, begun, [])
    assert (one.alone, one.first_grant_ms) == (alone, 2_100.0)


def test_a_killed_leader_leads_no_more() -> None:
    """Its death is announced for it, in its time; kills of others are nothing to offices."""
    events = [event(0, "master-1", "leader", 10), event(3_000, "master-2", "leader", 20)]
    kills = [Kill(1_000.0, "master-1", "master-1.0.log"), Kill(500.0, "worker-1", "worker-1.0.log")]
    said = [(one.at_ms, one.incarnation, one.event) for one in announcements(events, kills)]
    assert said == [
        (0, "master-1.0.log", "leader"),
        (1_000.0, "master-1.0.log", "ended"),
        (3_000, "master-2.0.log", "leader"),
    ]


@pytest.mark.parametrize(
    ("journaled", "strikes", "named", "excused"),
    [
        ({"a"}, [], [(JOB, "")], {}),
        (set(), [], [(JOB, "first grant not committed at the kill")], {}),
        (
            {"a"},
            [strike("worker-killed", 400, 600, "worker-1")],
            [],
            {"its worker was hurt: worker-killed": 1},
        ),
        ({"a"}, [strike("worker-killed", 400, 600, "worker-2")], [(JOB, "")], {}),
        ({"a"}, [strike("worker-drained", 400, 600, "worker-1")], [(JOB, "")], {}),
        # A fault that costs leases excuses those of the worker or the leader that it has struck.
        (
            {"a"},
            [strike("leader-unplugged", 400, 600, "master-1")],
            [],
            {"its leader was hurt: leader-unplugged": 1},
        ),
        ({"a"}, [strike("leader-unplugged", 400, 600, "master-2")], [(JOB, "")], {}),
        ({"a"}, [strike("worker-clock-fast", 400, 600, "worker-2")], [(JOB, "")], {}),
    ],
)
def test_a_job_started_again_while_its_worker_lived_is_named(
    journaled: set[str],
    strikes: list[Strike],
    named: list[tuple[str, str]],
    excused: dict[str, int],
) -> None:
    """With its excuse, if the grant was never written; with none, if it was; and none is lost."""
    found = failover(1_000.0)
    executions = [
        Execution(JOB, "a", "worker-1", 500.0, 2_000.0),
        Execution(JOB, "b", "worker-2", 9_000.0, 9_500.0),
    ]
    events = [event(100, "master-1", "leader", 10), event(8_000, "master-2", "leader", 20)]
    home = Execution(JOB.replace("7000", "7001"), "c", "worker-1", 500.0, 2_000.0)
    name_restarted([found], [*executions, home], journaled, strikes, events)
    assert found.restarted == named
    assert found.excused == excused


def test_a_failure_ends_an_execution() -> None:
    """One that fails and is tried again was not started again while it ran; one that is told to
    stop was.
    """
    rows = [
        row(1.0, "ok", START, 1, lease="a"),
        row(2.0, "ok", QUIT, 1, lease="a", detail="RuntimeError()"),
        row(5.0, "ok", START, 1, lease="b"),
        row(6.0, "ok", QUIT, 1, lease="b", detail=ASKED),
        row(7.0, "ok", START, 1, lease="c"),
    ]
    assert executions_of(rows) == [
        Execution(job(1), "a", "worker-1", 1.0, 2.0, failed=True),
        Execution(job(1), "b", "worker-1", 5.0, 6.0),
        Execution(job(1), "c", "worker-1", 7.0, float("inf")),
    ]


def test_a_retry_is_no_restart() -> None:
    """A job that ran on through a failover, failed and is tried again was not started again."""
    found = failover(1_000)
    executions = [
        Execution(JOB, "a", "worker-1", 500.0, 2_000.0, failed=True),
        Execution(JOB, "b", "worker-2", 9_000.0, 9_500.0),
    ]
    name_restarted([found], executions, {"a"}, [], [])
    assert found.restarted == []
    early = Execution(JOB, "b", "worker-2", 1_500.0, 9_500.0)
    name_restarted([found], [executions[0], early], {"a"}, [], [])
    assert found.restarted == [(JOB, "")]


def test_quantiles() -> None:
    """Minimum, median, the 99th of a hundred, maximum."""
    assert quantiles([]) == {}
    found = quantiles([float(number) for number in range(1, 101)])
    assert found == {"count": 100, "min": 1.0, "median": 50.5, "p99": 99.0, "max": 100.0}


def test_faults_are_chosen_by_name_and_by_row() -> None:
    """A row's number chooses each fault of that row; a word that names none is refused."""
    assert [fault.name for fault in chosen("7, worker-killed")] == [
        "leader-paused",
        "worker-killed",
    ]
    assert {fault.name for fault in chosen("22")} == {"etcd-leader-paused", "etcd-leader-half-cut"}
    assert chosen("") == list(FAULTS.values())
    with pytest.raises(ValueError, match="expected a fault's name or row"):
        chosen("earthquake")


def test_a_seed_draws_the_same_faults() -> None:
    """And all of them distinct."""
    every = list(FAULTS.values())
    drawn = [draw(random.Random(7), every, 3) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len({fault.name for fault in drawn[0]}) == 3


def test_each_partition_has_a_queue() -> None:
    """So that every one of them gets a load."""
    assert len(set(queues_of(4))) == 4
