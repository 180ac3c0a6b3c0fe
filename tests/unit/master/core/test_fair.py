"""Fair shares: what each tenant and queue gets, whatever the others do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from heapq import heappop, heappush
from itertools import combinations
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.command import CloseSession, LeaseRow
from tenure.master.core.fair import QUANTUM, Flow, Level, LevelWalk
from tenure.master.core.record import Policy
from tenure.master.core.settings import QueueSettings, TenantSettings
from tenure.protocol.vocabulary import FairBy, Verdict
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, Rig, held

WEIGHTS: Final = st.floats(0.2, 5.0)
#: So near to each other that shares show after few grants.
NEAR_WEIGHTS: Final = st.floats(1.0, 2.0)


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


#: Of tenants and their queues.
FLOWS: Final = [("t0", "a"), ("t0", "b"), ("t1", "a"), ("t1", "b"), ("t2", "a")]


class Market:
    """Tenants and queues with weights, and what those who share one kind of worker get of each."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.rig = Rig(audited=False)
        tenants = dict.fromkeys(tenant for tenant, _ in FLOWS)
        own = zip(FLOWS, weights, strict=False)
        self.weights: dict[tuple[str, ...], float] = dict(own)
        self.weights |= {(t,): w for t, w in zip(tenants, weights[len(FLOWS) :], strict=True)}
        for key, weight in self.weights.items():
            kind = TenantSettings if len(key) == 1 else QueueSettings
            self.rig.configure(key, kind(weight=weight))
        self.backlog = Counter[tuple[str, ...]]()
        self.given = Counter[tuple[str, ...]]()
        self.there: list[int] = []
        self._came = 0
        self.come()
        #: For each pair: the least and the largest lead of one since both are backlogged.
        self._leads: dict[tuple[tuple[str, ...], ...], tuple[float, float]] = {}

    def arrive(self, flow: tuple[str, str], jobs: int) -> None:
        """A queue has more to give."""
        self.rig.submit(jobs, Policy(name="job", tenant=flow[0], queue=flow[1]))
        self._count(self.backlog, flow, jobs)

    def take(self, session_id: int, jobs: int) -> None:
        """A worker gets jobs, and has soon done them."""
        for row in self.rig.grant(session_id, jobs):
            policy = self.rig.record(row.job_id).policy
            self._count(self.given, (policy.tenant, policy.queue), 1)
            self._count(self.backlog, (policy.tenant, policy.queue), -1)
            self.rig.report(row)
        # What it was sent has arrived.
        self.rig.accept(session_id, 1_000_000)

    def leave(self, session_id: int) -> None:
        """A worker goes; when the last one of its kind does, nobody remembers what they took."""
        self.rig.do(CloseSession(session_id=session_id))
        self.there.remove(session_id)
        if not self.there:
            self.come()
            self._leads = {}

    def come(self) -> None:
        """Another worker of the kind comes."""
        self._came += 1
        self.there.append(self._came)
        self.rig.open_session(self._came, slots=64)

    def fail_over(self) -> None:
        """A new term begins: all flows stand even."""
        self.rig.crash(window_ms=0)
        self.there = []
        self.come()
        self._leads = {}

    def judge(self) -> None:
        """While two have something to give, what they give differs by one quantum of each."""
        weights = self.weights
        for a, b in combinations(weights, 2):
            if a[:-1] != b[:-1]:
                continue
            if not (self.backlog[a] and self.backlog[b]):
                self._leads.pop((a, b), None)
                continue
            lead = self.given[a] / weights[a] - self.given[b] / weights[b]
            least, most = self._leads.get((a, b), (lead, lead))
            self._leads[a, b] = least, most = min(least, lead), max(most, lead)
            assert most - least <= QUANTUM / weights[a] + QUANTUM / weights[b] + 1e-6

    def _count(self, counter: Counter[tuple[str, ...]], flow: tuple[str, str], jobs: int) -> None:
        counter[flow] += jobs
        counter[flow[:1]] += jobs


@given(
    weights=st.lists(WEIGHTS, min_size=8, max_size=8),
    steps=st.lists(
        st.tuples(
            st.sampled_from([*["arrive"] * 5, *["take"] * 6, "come", "leave", "fail over"]),
            st.integers(0, 4),
            st.integers(1, 40),
        ),
        min_size=10,
        max_size=40,
    ),
)
def test_tenants_and_queues_keep_to_their_shares_whatever_happens(
    weights: list[float], steps: list[tuple[str, int, int]]
) -> None:
    """For any arrivals, who is backlogged gets its share to within one quantum, on both levels.

    Workers of a kind come and go meanwhile, and leaders do.
    """
    market = Market(weights)
    for what, index, jobs in steps:
        match what:
            case "arrive":
                market.arrive(FLOWS[index], jobs)
            case "take":
                market.take(market.there[index % len(market.there)], jobs)
            case "come":
                market.come()
            case "leave":
                market.leave(market.there[index % len(market.there)])
            case _:
                market.fail_over()
        market.judge()


@given(
    tenants=st.lists(
        st.tuples(NEAR_WEIGHTS, st.lists(NEAR_WEIGHTS, min_size=1, max_size=2)),
        min_size=1,
        max_size=2,
    )
)
def test_shares_are_those_of_the_weights_when_all_are_backlogged(
    tenants: list[tuple[float, list[float]]],
) -> None:
    """Tenants get grants by their weights, and each one's queues by theirs: within 5 % of it."""
    rig = Rig(audited=False)
    fair: dict[tuple[str, str], float] = {}
    whole = sum(weight for weight, _ in tenants)
    for t, (weight, queues) in enumerate(tenants):
        rig.configure((f"t{t}",), TenantSettings(weight=weight))
        for q, own in enumerate(queues):
            rig.configure((f"t{t}", f"q{q}"), QueueSettings(weight=own))
            fair[f"t{t}", f"q{q}"] = weight / whole * own / sum(queues)
    rig.open_session(1, slots=10_000)
    # So many that one quantum of the smallest and one of another are five per cent of its share.
    total = round(2 * QUANTUM / 0.05 / min(fair.values()))
    for (tenant, queue), share in fair.items():
        rig.submit(round(1.2 * share * total), Policy(name="job", tenant=tenant, queue=queue))
    granted: Counter[tuple[str, str]] = Counter()
    for size in (1, 3, 64, 7, total):
        for row in rig.grant(1, min(size, total - granted.total())):
            policy = rig.record(row.job_id).policy
            granted[policy.tenant, policy.queue] += 1
        rig.accept(1, 1_000_000)
    assert granted.total() == total
    for name, share in fair.items():
        assert abs(granted[name] - share * total) <= 0.05 * share * total


@given(
    queues=st.lists(
        st.tuples(NEAR_WEIGHTS, st.integers(50, 4_000), st.sampled_from(FairBy)),
        min_size=2,
        max_size=4,
    ),
    slots=st.integers(1, 4),
    dies_at=st.integers(0, 80),
)
def test_time_is_shared_where_it_counts(
    queues: list[tuple[float, int, FairBy]], slots: int, dies_at: int
) -> None:
    """What queues take, in seconds or in grants, each by its weight, differs by what runs at once.

    A queue that counts time is charged with how long its jobs ran; beside it, a grant of a queue
    that counts grants is one second. So it stays, in each term.
    """
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40, accept_timeout_ms=1 << 40), audited=False)
    spent = [0.0] * len(queues)
    for index, (weight, _, fair_by) in enumerate(queues):
        rig.configure(("default", f"q{index}"), QueueSettings(weight=weight, fair_by=fair_by))
        rig.submit(50, Policy(name="job", queue=f"q{index}"))
    costs = [max(ms, 1_000) / 1_000 if by is FairBy.TIME else 1.0 for _, ms, by in queues]
    bounds = [2 * slots * cost / weight for (weight, *_), cost in zip(queues, costs, strict=True)]
    rig.open_session(1, slots=slots)
    running: list[tuple[int, int, LeaseRow]] = []
    for turn in range(40):
        if turn == dies_at:
            rig.crash(window_ms=0)
            running, spent = [], [0.0] * len(queues)
            rig.open_session(1, "other", slots=slots)
        for row in rig.grant(1, slots - len(running)):
            index = int(rig.record(row.job_id).policy.queue[1:])
            rig.start(row)
            heappush(running, (rig.now_ms + queues[index][1], index, row))
        rig.now_ms, index, row = heappop(running)
        rig.report(row)
        run_ms, fair_by = queues[index][1:]
        spent[index] += run_ms / 1_000 if fair_by is FairBy.TIME else 1.0
        for a, b in combinations(range(len(queues)), 2):
            lead = spent[a] / queues[a][0] - spent[b] / queues[b][0]
            assert abs(lead) <= bounds[a] + bounds[b]


def test_time_counts_where_it_is_to_count() -> None:
    """A queue whose jobs take four times as long gets a fourth of the grants: the same time."""
    rig = Rig(audited=False)
    run_ms = {"long": 4_000, "short": 1_000}
    for queue in run_ms:
        rig.configure(("default", queue), QueueSettings(fair_by=FairBy.TIME))
        rig.submit(100, Policy(name="job", queue=queue))
    rig.open_session(1, slots=1)
    spent: Counter[str] = Counter()
    for _ in range(100):
        row = rig.grant_one()
        queue = rig.record(row.job_id).policy.queue
        rig.start(row)
        rig.now_ms += run_ms[queue]
        rig.renew(1, 1_000_000)
        rig.accept(1, 1_000_000)
        rig.report(row)
        spent[queue] += run_ms[queue]
    assert abs(spent["long"] - spent["short"]) <= 0.05 * sum(spent.values())


@pytest.mark.parametrize("how", ["found", "adopted", "set"])
def test_what_ran_before_it_counted_is_no_debt(how: str) -> None:
    """Of jobs that ran for an hour under the last leader (whose grants are in the journal, or not),
    or before their queue was counted in time, only what they run from then on counts.
    """
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40, accept_timeout_ms=1 << 40), audited=False)
    hour_ms, queues = 3_600_000, ("old", "new")
    settings = QueueSettings(fair_by=FairBy.GRANTS if how == "set" else FairBy.TIME)
    for queue in queues:
        rig.configure(("default", queue), settings)
    rig.submit(50, Policy(name="job", queue="old"))
    rig.open_session(1, slots=100)
    running = rig.grant(1, 50)
    rig.start(*running)
    rig.now_ms += hour_ms
    if how == "set":
        for queue in queues:
            rig.configure(("default", queue), QueueSettings(fair_by=FairBy.TIME))
    else:
        rig.crash(lose=1 if how == "adopted" else 0)
        rows = [held(row, running_ms=hour_ms) for row in running]
        rig.open_session(1, slots=100, declare=rows)
        rig.close_window()
    for row in running:
        assert rig.report(row) is Verdict.ACCEPTED
    for queue in queues:
        rig.submit(40, Policy(name="job", queue=queue))
    shares: Counter[str] = Counter()
    for _ in range(40):
        row = rig.grant_one()
        shares[rig.record(row.job_id).policy.queue] += 1
        rig.start(row)
        rig.now_ms += hour_ms
        rig.report(row)
    assert abs(shares["old"] - shares["new"]) <= 4


def test_a_weight_counts_from_the_next_grant() -> None:
    """A changed weight says how what is granted from now on is shared."""
    rig = Rig(audited=False)
    for queue in ("a", "b"):
        rig.submit(400, Policy(name="job", queue=queue))
    rig.open_session(1)
    assert _queues(rig, 10 * QUANTUM) == {"a": 5 * QUANTUM, "b": 5 * QUANTUM}
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
    assert _queues(rig, 2 * QUANTUM) == {"a": QUANTUM, "b": QUANTUM}


def test_other_kinds_of_workers_share_for_themselves() -> None:
    """What one kind of worker takes is no debt of a queue towards another kind's takings."""
    rig = Rig()
    for queue in ("a", "b"):
        rig.submit(200, Policy(name="job", queue=queue))
    rig.open_session(1, queues=("a",), slots=100)
    rig.open_session(2, slots=100)
    rig.grant(1, 100)
    assert _of_session(rig, 2, 6 * QUANTUM) == {"a": 3 * QUANTUM, "b": 3 * QUANTUM}


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


# Tags.


def flows_of(level: Level[Source], *weights: float) -> list[Source]:
    """Flows with something to give, in this order."""
    flows = [Source(weight) for weight in weights]
    for flow in flows:
        level.turn(flow, True)
    return flows


def order_of(level: Level[Source]) -> list[Source]:
    """The flows in the order in which they would give, each once."""
    walk, found = LevelWalk(level), []
    while (flow := walk.first()) is not None:
        found.append(flow)
        walk.drop(flow)
    return found


@pytest.mark.parametrize(
    ("jobs", "virtual"), [(1, 0.0), (QUANTUM, 0.0), (QUANTUM + 1, 8.0), (2 * QUANTUM + 1, 16.0)]
)
def test_a_turn_moves_its_flow_by_what_it_gave(jobs: int, virtual: float) -> None:
    """By its weight; and the level stands where the last quantum of it began."""
    level: Level[Source] = Level()
    (flow,) = flows_of(level, 2.0)
    assert (flow.tag, flow.debt, level.virtual) == (0.0, 0.0, 0.0)
    level.charge(flow, jobs)
    assert (flow.tag, flow.debt, level.virtual) == (jobs / 2, 0.0, virtual)


def test_a_turn_counts_for_what_its_jobs_cost() -> None:
    """A job of half the cost moves its flow half as far, and the level with it."""
    level: Level[Source] = Level()
    (flow,) = flows_of(level, 4.0)
    level.charge(flow, 2 * QUANTUM, 0.5)
    assert (flow.tag, level.virtual) == (QUANTUM / 4, QUANTUM / 8)


@pytest.mark.parametrize(
    ("debt", "tag", "left"),
    [(3.0, 19.0, 0.0), (-4.0, 12.0, 0.0), (-15.5, 0.5, 0.0), (-16.0, 0.0, 0.0), (-20.0, 0.0, -4.0)],
)
def test_what_is_owed_is_settled_with_the_next_turn(debt: float, tag: float, left: float) -> None:
    """A flow pays what it owes, or gives for less; its tag never falls, so some may be left."""
    level: Level[Source] = Level()
    (flow,) = flows_of(level, 1.0)
    flow.debt = debt
    level.charge(flow, QUANTUM)
    assert (flow.tag, flow.debt) == (tag, left)


@pytest.mark.parametrize(("debt", "tag"), [(-4.0, 17.0), (3.0, 20.0)])
def test_who_was_idle_begins_where_the_level_stands(debt: float, tag: float) -> None:
    """What was owed to it has lapsed; what it owes has not."""
    level: Level[Source] = Level()
    busy, idle = flows_of(level, 1.0, 1.0)
    level.charge(busy, QUANTUM + 1)
    idle.debt = debt
    level.charge(idle, 1)
    assert (idle.tag, idle.debt, level.virtual) == (tag, 0.0, 16.0)


def test_flows_that_stand_alike_go_in_the_order_in_which_they_came() -> None:
    """The first is who began to give first, or was moved there first."""
    level: Level[Source] = Level()
    first, second, third = flows_of(level, 1.0, 1.0, 1.0)
    assert order_of(level) == [first, second, third]
    for flow in (third, first, second):
        level.charge(flow, 5)
    for flow in (first, second, third):
        assert level.heap[0][2] is flow
        level.turn(flow, False)
        level.turn(flow, True)
    assert level.heap[0][2] is first


def test_who_has_nothing_to_give_is_passed_over() -> None:
    """Wherever it stands; once it has something again it goes where it stood, and is there once."""
    level: Level[Source] = Level()
    flows = flows_of(level, *[1.0] * 9)
    for index, flow in enumerate(flows):
        level.charge(flow, index + 1)
    assert order_of(level) == flows
    for flow in (flows[4], flows[0]):
        level.turn(flow, False)
    left = [*flows[1:4], *flows[5:]]
    assert order_of(level) == left
    assert set(level.flows()) == set(left)
    for flow in (flows[4], flows[0]):
        level.turn(flow, True)
    assert order_of(level) == flows
    assert len(level.flows()) == len(level.heap) == len(flows)


def test_a_walk_charges_as_its_level_would_and_changes_nothing() -> None:
    """Whoever was idle begins where the walk has come to; debts are left to the level."""
    level: Level[Source] = Level()
    first, second = flows_of(level, 1.0, 2.0)
    second.debt = 50.0
    walk = LevelWalk(level)
    assert walk.first() is first
    assert not walk.is_alone()
    walk.charge(first, 2 * QUANTUM + 1)
    assert walk.first() is second
    walk.charge(second, 1)
    # From where the last quantum of the first began: 32, and half a job.
    assert walk.first() is second
    walk.charge(second, 1)
    assert walk.first() is first
    walk.charge(second, QUANTUM, 0.5)
    walk.drop(first)
    assert walk.first() is second
    assert walk.is_alone()
    walk.drop(second)
    assert walk.first() is None
    assert [flow.tag for flow in (first, second)] == [0.0, 0.0]
    assert level.virtual == 0.0


def test_a_flow_that_its_level_does_not_list_may_enter_a_walk() -> None:
    """It goes by its own tag among those that are listed, and is there once."""
    level: Level[Source] = Level()
    first, last = flows_of(level, 1.0, 1.0)
    level.charge(first, 1)
    level.charge(last, 9)
    guest = Source(1.0)
    guest.tag = 5.0
    walk = LevelWalk(level)
    for flow in (guest, first, guest):
        walk.enter(flow)
    found = []
    while (flow := walk.first()) is not None:
        found.append(flow)
        walk.drop(flow)
    assert found == [first, guest, last]


def test_what_has_nothing_more_is_charged_nothing_more() -> None:
    """A flow that was dropped stays out of the walk."""
    level: Level[Source] = Level()
    (flow,) = flows_of(level, 1.0)
    walk = LevelWalk(level)
    walk.drop(flow)
    walk.charge(flow, 1)
    assert walk.first() is None
