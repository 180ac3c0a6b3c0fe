"""A core that follows a journal, and then leads: it has and does what the leader would have."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.bulk import BatchSpec
from tenure.master.core.command import AdvanceBatch, CreateBatch, OpenWorkflow, SealWorkflow
from tenure.master.core.event import JobsSubmitted, TermOpened
from tenure.master.core.partition import Partition
from tenure.master.core.query import Filter
from tenure.master.core.ticks import tick_job_id
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import BatchKind, BatchState, JobState, Misfire, Overlap
from tests.unit.master.core.audit import audit, gates, state_of
from tests.unit.master.core.planner import EVERY_MS, changed, end, pause, put, schedule
from tests.unit.master.core.rig import START_MS, Rig
from tests.unit.master.core.town import Town

PENDING: Final = Filter(states=frozenset({JobState.PENDING}))


class Follower:
    """A standby of a partition.

    Args:
        rig: The partition's leader; what it has journaled so far was read.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._read = len(rig.journal)
        self.partition = rig.replayed()

    def follow(self, upto: int | None = None) -> Partition:
        """Reads on, to the end or to an event, and lets go of what is over."""
        upto = len(self._rig.journal) if upto is None else upto
        for seq, event in enumerate(self._rig.events()[self._read : upto], self._read + 1):
            self.partition.replay(event, seq)
        self._read = max(self._read, upto)
        self.partition.pass_time()
        return self.partition

    def lead(self) -> None:
        """The leader is gone; this one reads the rest of its journal and opens a term."""
        rig, standby = self._rig, self.follow()
        standby.finish_replay()
        audit(standby)
        cold = rig.replayed()
        assert standby.state_hash() == cold.state_hash()
        rig.partition = standby
        rig.open_term()
        opened = rig.events()[-1]
        assert isinstance(opened, TermOpened)
        cold.apply(opened)
        assert gates(state_of(standby)) == gates(state_of(cold))


# One thing each.


def test_ticks_that_have_fired_are_let_go_of() -> None:
    """A standby has one time to look at each schedule, not one for each tick that there was."""
    rig = Rig()
    put(rig, changed(overlap=Overlap.ALLOW))
    follower = Follower(rig)
    for _ in range(50):
        rig.pass_time(EVERY_MS)
        standby = follower.follow()
    timers = state_of(standby).timetable.timers
    assert [due for due, _ in timers.things()] == [schedule(rig).cursor.due_ms]
    assert standby.next_tick_ms() == START_MS + 51 * EVERY_MS
    pause(rig)
    rig.pass_time(2 * EVERY_MS)
    rig.submit_one()
    assert follower.follow().next_tick_ms() is None


def test_a_tick_that_is_due_and_did_not_fire_is_kept() -> None:
    """Its time is over by the journal, but the leader died before: whoever leads next fires it."""
    rig = Rig()
    put(rig)
    follower = Follower(rig)
    rig.now_ms += EVERY_MS + 5
    rig.submit_one()
    assert follower.follow().next_tick_ms() == START_MS + EVERY_MS
    follower.lead()
    rig.fire()
    rig.fire()
    job_id = tick_job_id(0, ("default", "s"), START_MS + EVERY_MS, START_MS + EVERY_MS)
    assert rig.state(job_id) is JobState.PENDING
    assert schedule(rig).cursor.fired == 1


def test_sticky_keys_are_bound_to_who_runs_their_jobs() -> None:
    """And to nobody for what has ended: a worker may be gone that a new leader never heard of."""
    rig = Rig()
    rig.open_session(1)
    follower = Follower(rig)
    rig.submit_one(sticky_key="runs")
    rig.grant_one()
    rig.submit_one(sticky_key="over")
    rig.report(rig.grant_one())
    over = rig.submit_one(sticky_key="over")
    waits = rig.submit_one(sticky_key="runs")
    follower.lead()
    rig.open_session(8, "stranger")
    assert [row.job_id for row in rig.grant(8, 9)] == [over]
    rig.open_session(9, "w1")
    assert waits in {row.job_id for row in rig.grant(9, 9)}


def test_a_sticky_key_is_bound_to_who_began_its_newest_job() -> None:
    """In whatever order the workers are known: the newest of those that run is what counts."""
    for session_ids in ((1, 2), (2, 1)):
        rig = Rig()
        for session_id in session_ids:
            rig.open_session(session_id)
        follower = Follower(rig)
        rig.submit_one(sticky_key="s")
        rig.grant_one(session_ids[0])
        rig.do(commands.DrainSession(session_id=session_ids[0]))
        rig.submit_one(sticky_key="s")
        rig.grant_one(session_ids[1])
        waits = rig.submit_one(sticky_key="s")
        follower.lead()
        for session_id in (1, 2):
            rig.open_session(10 + session_id, f"w{session_id}")
        first, newest = session_ids
        assert rig.grant(10 + first, 9) == []
        assert waits in {row.job_id for row in rig.grant(10 + newest, 9)}


# All of it at once.


class Cluster:
    """Two partitions whose leader-to-be follow; the first has schedules, workflows and a batch."""

    def __init__(self) -> None:
        self.town = Town(2)
        self.home, self.away = self.town.rigs
        self.followers = [Follower(rig) for rig in self.town.rigs]
        #: So many of the home's events have left it: they cannot be lost.
        self.committed = 0
        self.workflows: list[JobId] = []
        self.batches = 0
        spec = {"misfire": Misfire.FIRE_ALL, "overlap": Overlap.ALLOW, "catch_up_ms": 10**9}
        put(self.home, changed(policy=self.town.policy(0), **spec), "near")
        put(self.home, changed(policy=self.town.policy(1), **spec), "far")
        self.commit()

    def commit(self) -> None:
        """What was decided is durable, and what was to be said is said."""
        self.away.now_ms = max(self.away.now_ms, self.home.now_ms)
        self.town.calm()
        self.committed = len(self.home.journal)

    def step(self, step: str, count: int) -> None:
        """One thing that happens."""
        home, town = self.home, self.town
        match step:
            case "time":
                home.pass_time(count * EVERY_MS // 2)
            case "commit":
                self.commit()
            case "follow":
                # It reads nothing that may be lost yet.
                self.followers[0].follow(self.committed)
                self.followers[1].follow()
            case "submit":
                parent, _ = town.submit(1)
                town.submit(0, [parent])
                home.submit(1, town.policy(0), sticky_key="s")
            case "open":
                self._open_workflow()
            case "seal" if self.workflows:
                home.do(SealWorkflow(workflow_id=self.workflows.pop(), members=2))
            case "batch":
                self._cancel_some(count)
            case "work":
                self._work(count)
            case "die":
                self.die(count)

    def die(self, lost: int) -> None:
        """The home's leader dies, and its last events with it; its standby leads."""
        home = self.home
        keep = max(self.committed, len(home.journal) - lost)
        del home.journal[keep:]
        self.followers[0].lead()
        self.followers[0] = Follower(home)
        self.workflows = [w for w in self.workflows if self._is_open(w)]
        self.commit()

    def _open_workflow(self) -> None:
        home = self.home
        workflow_id = home.mint()
        home.do(OpenWorkflow(workflow_id=workflow_id, name="w", tenant="t", seal_within_ms=600_000))
        first = commands.SubmitRow(
            home.mint(), 0, b"", "", parents=(workflow_id,), workflow_id=workflow_id
        )
        then = commands.SubmitRow(
            home.mint(),
            0,
            b"",
            "",
            parents=(workflow_id, first.job_id),
            workflow_id=workflow_id,
        )
        home.submit_rows([first, then], self.town.policy(0))
        self.workflows.append(workflow_id)

    def _is_open(self, workflow_id: JobId) -> bool:
        return workflow_id in state_of(self.home.partition).workflows.records

    def _cancel_some(self, rows: int) -> None:
        """A batch that is under way goes on by one slice; if there is none, one is made."""
        home = self.home
        running = [b for b in home.partition.batches() if b.state is BatchState.RUNNING]
        if not running:
            self.batches += 1
            spec = BatchSpec(kind=BatchKind.CANCEL, filter="state = PENDING")
            home.do(CreateBatch(batch_id=f"b{self.batches}", spec=spec, matched=0))
            return
        scan = home.partition.scan(PENDING, before_ordinal=running[0].cursor)
        home.do(
            AdvanceBatch(batch_id=running[0].batch_id, scan=scan, rows_max=rows, looks_max=2 * rows)
        )

    def _work(self, count: int) -> None:
        """New workers take jobs; some are left running."""
        for rig in self.town.rigs:
            session_id = 1 + len(rig.journal) * 1_000 + len(state_of(rig.partition).sessions)
            rig.open_session(session_id)
            for row in rig.grant(session_id, count)[1:]:
                rig.report(row, session_id=session_id)

    def ticks(self) -> list[JobId]:
        """The ids of all jobs that the two schedules should have made by now."""
        ticks = range(START_MS + EVERY_MS, self.home.now_ms + 1, EVERY_MS)
        return [
            tick_job_id(partition, ("default", name), tick, tick)
            for name, partition in (("near", 0), ("far", 1))
            for tick in ticks
        ]

    def submitted(self, rig: Rig) -> list[JobId]:
        """All jobs that a partition's journal has ever submitted, in order."""
        submits = (event for event in rig.events() if isinstance(event, JobsSubmitted))
        return [row.job_id for event in submits for row in event.rows]


STEPS = st.one_of(
    st.tuples(st.sampled_from(["time", "time", "work", "batch"]), st.integers(1, 5)),
    st.tuples(st.sampled_from(["commit", "follow", "submit", "open", "seal"]), st.just(0)),
    st.tuples(st.just("die"), st.integers(0, 4)),
)


@given(steps=st.lists(STEPS, max_size=25))
def test_a_standby_has_all_that_its_leader_had(steps: list[tuple[str, int]]) -> None:
    """S9, S13: with schedules, messages on their way, workflows and batches under way.

    Whoever takes over fires each tick that is due, and no tick twice, whatever was lost.
    """
    cluster = Cluster()
    for step, count in steps:
        cluster.step(step, count)
    cluster.home.pass_time(EVERY_MS)
    cluster.die(0)
    for follower, rig in zip(cluster.followers, cluster.town.rigs, strict=True):
        assert follower.follow().state_hash() == rig.partition.state_hash()
    cluster.home.pass_time(1_000)
    cluster.commit()
    found = [job_id for rig in cluster.town.rigs for job_id in cluster.submitted(rig)]
    assert len(found) == len(set(found))
    assert set(cluster.ticks()) <= set(found)


def test_a_warm_standby_fires_what_its_leader_left() -> None:
    """The leader dies with three ticks decided on and not committed: they fire, each once."""
    cluster = Cluster()
    cluster.step("follow", 0)
    cluster.step("time", 7)
    assert schedule(cluster.home, "near").cursor.fired == 3
    cluster.step("die", 100)
    cluster.home.pass_time(1_000)
    cluster.commit()
    for rig, name in zip(cluster.town.rigs, ("near", "far"), strict=True):
        assert schedule(cluster.home, name).cursor.fired == 3
        assert len(cluster.submitted(rig)) == 3
    end(cluster.away, schedule(cluster.home, "far").cursor.last_job_id)
    cluster.commit()
    assert not state_of(cluster.home.partition).outbox.targets()
