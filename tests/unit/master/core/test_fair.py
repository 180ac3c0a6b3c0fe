"""Fair shares: what each tenant and queue gets, whatever the others do."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.master.core.fair import QUANTUM, Flow, Level, LevelWalk
from tenure.master.core.record import Policy
from tenure.master.core.settings import QueueSettings, TenantSettings
from tenure.protocol.vocabulary import FairBy
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import Rig

EXAMPLES: Final = max(200, settings().max_examples)
WEIGHTS = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 5.0])


class Source(Flow):
    """A flow with a backlog."""

    __slots__ = ("backlog", "given", "own_weight")

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.own_weight = weight
        self.backlog = 0
        self.given = 0

    @property
    def weight(self) -> float:
        return self.own_weight


class Link:
    """Flows that share one taker; as dispatch does it, without all the rest."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.level: Level[Source] = Level()
        self.flows = [Source(weight) for weight in weights]

    def arrive(self, index: int, jobs: int) -> None:
        """A flow has more to give."""
        flow = self.flows[index]
        flow.backlog += jobs
        if flow.backlog and not flow.active:
            self.level.turn(flow, True)

    def take(self, jobs: int) -> None:
        """Takes jobs in one decision, then charges them."""
        walk = LevelWalk(self.level)
        turns: list[tuple[Source, int]] = []
        left = {flow: flow.backlog for flow in self.flows}
        while jobs and (flow := walk.first()) is not None:
            run = min(left[flow], jobs, jobs if walk.is_alone() else QUANTUM)
            if not run:
                walk.drop(flow)
                continue
            walk.charge(flow, run)
            turns.append((flow, run))
            left[flow] -= run
            jobs -= run
        for flow, run in turns:
            self.level.charge(flow, run)
            flow.given += run
            flow.backlog -= run
        for flow in self.flows:
            if flow.active and not flow.backlog:
                self.level.turn(flow, False)


@given(
    weights=st.lists(WEIGHTS, min_size=2, max_size=6),
    steps=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 3, 20, 100]), st.integers(0, 40)),
        max_size=60,
    ),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_shares_are_within_one_quantum_for_any_arrivals(
    weights: list[float], steps: list[tuple[int, int, int]]
) -> None:
    """While two flows have something to give, what they give differs by one quantum of each.

    The bound holds between any two moments between which both were backlogged all the time, idle
    flows that come back included, and whatever is taken at once.
    """
    link = Link(weights)
    #: For each pair: the least and the largest lead of the first since both are backlogged.
    leads: dict[tuple[int, int], tuple[float, float]] = {}
    for index, arriving, taking in steps:
        link.arrive(index % len(weights), arriving)
        link.take(taking)
        for i, a in enumerate(link.flows):
            for j, b in enumerate(link.flows[:i]):
                if not (a.backlog and b.backlog):
                    leads.pop((i, j), None)
                    continue
                lead = a.given / a.weight - b.given / b.weight
                least, most = leads.get((i, j), (lead, lead))
                leads[i, j] = least, most = min(least, lead), max(most, lead)
                assert most - least <= QUANTUM / a.weight + QUANTUM / b.weight + 1e-6


@given(
    weights=st.lists(WEIGHTS, min_size=2, max_size=5),
    batch=st.integers(1, 70),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_idle_flows_earn_nothing(weights: list[float], batch: int) -> None:
    """A flow that comes back after a long time gets its share from then on, and no more."""
    link = Link(weights)
    for index in range(1, len(weights)):
        link.arrive(index, 10_000)
    link.take(2_000)
    link.arrive(0, 10_000)
    before = [flow.given for flow in link.flows]
    for _ in range(20):
        link.take(batch)
    fair = 20 * batch * weights[0] / sum(weights)
    assert abs(link.flows[0].given - before[0] - fair) <= 2 * QUANTUM * len(weights)


def test_who_is_alone_takes_all_at_once() -> None:
    """Turns are short only while somebody waits for theirs."""
    link = Link([1.0, 1.0])
    link.arrive(0, 1_000)
    link.take(1_000)
    assert [flow.given for flow in link.flows] == [1_000, 0]


def _shared(rig: Rig, names: dict[tuple[str, str], float]) -> Counter[tuple[str, str]]:
    """Runs jobs of queues that are all backlogged; how many of each were granted."""
    for tenant, queue in names:
        rig.submit(600, Policy(name="job", tenant=tenant, queue=queue))
    rig.open_session(1, slots=64)
    granted: Counter[tuple[str, str]] = Counter()
    for size in (1, 3, 64, 7, 30) * 5:
        for row in rig.grant(1, size):
            policy = rig.record(row.job_id).policy
            granted[policy.tenant, policy.queue] += 1
            rig.report(row)
    return granted


@given(tenants=st.lists(st.tuples(WEIGHTS, st.lists(WEIGHTS, min_size=1, max_size=3)), max_size=3))
@settings(max_examples=EXAMPLES, deadline=None)
def test_shares_are_those_of_the_weights_when_all_are_backlogged(
    tenants: list[tuple[float, list[float]]],
) -> None:
    """Tenants get grants by their weights, and each one's queues by theirs: within 5 %."""
    rig = Rig(audited=False)
    fair: dict[tuple[str, str], float] = {}
    whole = sum(weight for weight, _ in tenants)
    for t, (weight, queues) in enumerate(tenants):
        rig.configure((f"t{t}",), TenantSettings(weight=weight))
        for q, own in enumerate(queues):
            rig.configure((f"t{t}", f"q{q}"), QueueSettings(weight=own))
            fair[f"t{t}", f"q{q}"] = weight / whole * own / sum(queues)
    granted = _shared(rig, fair)
    audit(rig.partition)
    total = sum(granted.values())
    emptied = any(count == 600 for count in granted.values())
    for name, share in fair.items():
        assert emptied or abs(granted[name] - share * total) <= 0.05 * total


def test_time_counts_where_it_is_to_count() -> None:
    """A queue whose jobs take four times as long gets a fourth of the grants: the same time."""
    rig = Rig(audited=False)
    run_ms = {"long": 4_000, "short": 1_000}
    for queue in run_ms:
        rig.configure(("default", queue), QueueSettings(fair_by=FairBy.TIME))
        rig.submit(600, Policy(name="job", queue=queue))
    rig.open_session(1, slots=1)
    spent: Counter[str] = Counter()
    for _ in range(300):
        row = rig.grant_one()
        queue = rig.record(row.job_id).policy.queue
        rig.start(row)
        rig.now_ms += run_ms[queue]
        rig.renew(1, 1_000_000)
        rig.accept(1, 1_000_000)
        rig.report(row)
        spent[queue] += run_ms[queue]
    assert abs(spent["long"] - spent["short"]) <= 0.05 * sum(spent.values())


def test_a_weight_counts_from_the_next_grant() -> None:
    """A changed weight says how what is granted from now on is shared."""
    rig = Rig(audited=False)
    for queue in ("a", "b"):
        rig.submit(400, Policy(name="job", queue=queue))
    rig.open_session(1)
    assert _queues(rig, 80) == {"a": 40, "b": 40}
    rig.configure(("default", "a"), QueueSettings(weight=3.0))
    shares = _queues(rig, 320)
    assert abs(shares["a"] - 240) <= 2 * QUANTUM


def _queues(rig: Rig, jobs: int) -> Counter[str]:
    return Counter(rig.record(row.job_id).policy.queue for row in rig.grant(1, jobs))


def test_priority_0_comes_first_in_its_queue_only() -> None:
    """An urgent job overtakes all of its own queue, and takes no other queue's turn."""
    rig = Rig()
    rig.submit(40, Policy(name="job", queue="a"))
    rig.submit(40, Policy(name="job", queue="b"), priority=0)
    rig.open_session(1)
    assert _queues(rig, 32) == {"a": 16, "b": 16}


def test_other_kinds_of_workers_share_for_themselves() -> None:
    """What one kind of worker takes is no debt of a queue towards another kind's takings."""
    rig = Rig()
    for queue in ("a", "b"):
        rig.submit(200, Policy(name="job", queue=queue))
    rig.open_session(1, queues=("a",), slots=100)
    rig.open_session(2, slots=100)
    rig.grant(1, 100)
    assert _of_session(rig, 2, 48) == {"a": 24, "b": 24}


def _of_session(rig: Rig, session_id: int, jobs: int) -> Counter[str]:
    rows = rig.grant(session_id, jobs)
    return Counter(rig.record(row.job_id).policy.queue for row in rows)


def test_tags_are_a_terms_own() -> None:
    """A new term begins with nobody ahead of anybody."""
    rig = Rig()
    rig.submit(20, Policy(name="job", queue="a"))
    rig.open_session(1)
    rig.grant(1, 10)
    rig.crash()
    assert not state_of(rig.partition).lanes.skills()
