"""Rows of the table of faults, one test each, on one cluster of real processes.

All tests share a lightly loaded site: three etcd members, three masters with four partitions, three
workers, four clients, everything through the proxy. Each strikes one fault and asserts what must
come of it; every client must go on afterwards, and at the end the court judges the whole run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import product

import grpc
import msgspec
import pytest

from tenure.protocol.ids import mint, partition_of
from tenure.v1 import cluster_pb2, common_pb2, jobs_pb2, jobs_pb2_grpc
from tests.chaos.audit import token_text
from tests.chaos.faults import frozen
from tests.chaos.measure import Measured
from tests.chaos.scenarios import role_is
from tests.chaos.site import Site, site
from tests.oracles.facts import Closed, Granted, Settled, token_of
from tests.oracles.history import END, RESULT, START, SUBMIT, Recorder, hash_of, read_history

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site; its end is the judgement of all that these tests did."""
    with site(tmp_path_factory.mktemp("rows")) as found:
        yield found


@pytest.mark.fault(6)
def test_row_06_a_leader_paused_for_less_than_its_office_is_good_for(here: Site) -> None:
    """It goes on under its old token."""
    lost = here.lost()
    here.strike("leader-paused-shortly")
    assert here.lost() == lost


@pytest.mark.fault(17)
def test_row_17_a_job_that_hangs_while_its_worker_heartbeats(here: Site) -> None:
    """Each attempt ends at its timeout, and with the last one the job."""
    flags = ("--jobs", "1", "--hold-s", "100", "--timeout-s", "0.5")
    client, _ = here.run_jobs(*flags, "--queue", here.arena.queues[0])
    rows = [row for row in read_history(here.arena.cluster.history) if row.type == "ok"]
    (result,) = [row for row in rows if row.process == client.name and row.f == RESULT]
    assert result.state == "FAILED"
    assert sum(row.f == START and row.job == result.job for row in rows) == 4


@pytest.mark.fault(22)
def test_row_22_etcds_leader_stands_still(here: Site) -> None:
    """Masters turn to the other members; nobody loses an office."""
    lost = here.lost()
    member = here.arena.raft_leader()
    with here.struck("etcd's leader stands still"):
        member.pause()
        try:
            here.goes_on()
        finally:
            member.resume()
    assert here.lost() == lost


@pytest.mark.fault(31)
def test_row_31_connections_cut_after_k_bytes(here: Site) -> None:
    """Wherever in a submit, a report or a batch: what is sent again has one effect."""
    links = here.arena.links
    leader = here.arena.leader_of(0).name
    ways = (("client-1", "*"), ("worker-1", "*"), (leader, "m?"))
    with here.struck("connections cut"):
        for place, (k, pair) in enumerate(product((0, 1, 8, 9, 17, 40, 111, 300, 701), ways)):
            rule = links.make(*pair, way="up", cut_after=k, reset=bool(place % 2))
            assert links.wait_cut(rule, 10)


@pytest.mark.fault(32)
def test_row_32_connections_reset_again_and_again(here: Site) -> None:
    """Everybody dials again; no connection and no memory is left behind."""
    with here.bounded():
        here.strike("resets")


@pytest.mark.fault(33)
def test_row_33_etcd_is_far_away(here: Site) -> None:
    """With 100 ms more to a quorum batches grow, half the throughput stays, and each office."""
    lost = here.lost()
    leader = here.arena.leader_of(0).name
    rate, size = here.rate("client-1", 4), here.batch_size(0, 2)
    with (
        here.struck("etcd far away"),
        here.arena.links.spoiled(leader, "m?", delay_ms=50),
    ):
        here.goes_on()
        far_rate, far_size = here.rate("client-1", 4), here.batch_size(0, 2)
    assert far_rate >= rate / 2
    assert far_size >= 1.2 * size
    assert here.lost() == lost


@pytest.mark.fault(34)
def test_row_34_a_narrow_line(here: Site) -> None:
    """With 256 kbit/s to the masters a worker and a client go on, and nobody's memory grows."""
    with (
        here.bounded(),
        here.struck("narrow line"),
        here.arena.links.spoiled("worker-1", "master-*", bytes_per_s=32_000),
        here.arena.links.spoiled("client-1", "master-*", bytes_per_s=32_000),
    ):
        here.goes_on()


@pytest.mark.fault(35)
def test_row_35_a_submit_arrives_twice(here: Site) -> None:
    """The same id is the same job, however often it is sent: it runs once."""
    queue, partition = here.arena.queues[0], 0
    job = mint(partition, time.time_ns() // 1_000_000, random.getrandbits(62))
    text = "sent twice"
    request = jobs_pb2.SubmitJobsRequest(
        options=[common_pb2.JobOptions(name="echo", queue=queue)],
        jobs=[jobs_pb2.JobSpec(job_id=job, payload=msgspec.msgpack.encode([[text], {}]))],
    )
    cluster = here.arena.cluster
    address = cluster.address_of(here.arena.leader_of(partition))
    with (
        Recorder(cluster.history, "twice") as recorder,
        grpc.insecure_channel(address, (("grpc.enable_http_proxy", 0),)) as channel,
    ):
        jobs = jobs_pb2_grpc.JobServiceStub(channel)
        call = recorder.invoke(SUBMIT, hash=hash_of(text))
        answers = [jobs.SubmitJobs(request, timeout=10) for _ in range(3)]
        recorder.write("ok", SUBMIT, call, job=job, hash=hash_of(text))
        call = recorder.invoke(RESULT, job=job)
        ended = jobs.WaitJob(jobs_pb2.WaitJobRequest(job_id=job), timeout=15).result
        content = hash_of(msgspec.msgpack.decode(ended.result))
        recorder.write("ok", RESULT, call, job=job, hash=content, state="COMPLETED")
    assert [list(answer.job_ids) for answer in answers] == [[job]] * 3
    assert [list(answer.existing) for answer in answers] == [[], [0], [0]]
    starts = [row for row in read_history(cluster.history) if (row.f, row.job) == (START, job)]
    assert len(starts) == 1


@pytest.mark.fault(39)
def test_row_39_the_leaders_wall_clock_jumps(here: Site) -> None:
    """An hour forward starts no delayed job early, and expires no lease."""
    lost = here.lost()
    with here.struck("wall clock jumps"):
        for master in here.arena.cluster.masters:
            here.arena.cluster.dials[master.name].set_wall(3_600_000)
        flags = ("--jobs", "8", "--open", "8", "--delay-s", "2")
        client, _ = here.run_jobs(*flags, "--queue", here.arena.queues[0])
        for master in here.arena.cluster.masters:
            here.arena.cluster.dials[master.name].set_wall(0)
    rows = read_history(here.arena.cluster.history)
    asked = {
        row.call: row.boottime
        for row in rows
        if row.process == client.name and row.f == SUBMIT and row.type == "invoke"
    }
    jobs = {
        row.job: asked[row.call]
        for row in rows
        if row.process == client.name and row.f == SUBMIT and row.type == "ok"
    }
    waits = [row.boottime - jobs[row.job] for row in rows if row.f == START and row.job in jobs]
    assert len(waits) == 8
    assert min(waits) >= 2_000
    assert here.lost() == lost


@pytest.mark.fault(51)
def test_row_51_etcd_is_defragmented_under_load(here: Site) -> None:
    """It stalls for a moment, and costs nobody an office."""
    lost = here.lost()
    here.strike("etcd-defragmented")
    assert here.lost() == lost


def test_one_of_a_supervisors_workers_is_killed(here: Site) -> None:
    """Another one takes its place, and the jobs that it ran are run again."""
    lost = here.lost()
    here.strike("worker-group-killed")
    assert here.lost() == lost


def test_a_supervisor_is_killed(here: Site) -> None:
    """Its workers drain, and none is left."""
    lost = here.lost()
    here.strike("supervisor-killed")
    assert here.lost() == lost


# Longer ones.


@pytest.mark.nightly
@pytest.mark.fault(3)
def test_row_03_each_new_leader_is_killed_as_it_takes_office(here: Site) -> None:
    """Replay can be repeated; who comes last finds everything."""
    for _ in range(2):
        kills = len(here.arena.kills)
        here.strike("successor-killed")
        assert len(here.arena.kills) == kills + 2


@pytest.mark.nightly
@pytest.mark.fault(8)
def test_row_08_a_leader_is_held_up_between_its_check_and_its_send(here: Site) -> None:
    """What it sends late carries a token that workers know to be old: no job of it starts."""
    arena, leader, terms = here.arena, here.arena.leader_of(0), here.terms()
    own = [p for p in range(arena.partitions) if arena.leader_of(p) is leader]
    old = {token_text(terms[partition]) for partition in own}
    with (
        here.struck("sends held up", deposes="claimed"),
        arena.claim(leader.name),
        arena.links.spoiled("worker-*", leader.name, way="down", hold=True),
    ):
        # It grants to workers that hear nothing of it, and is stopped with that on its way.
        arena.pause(1)
        with frozen(leader):
            at_ms = here.now_ms()
            led = [arena.cluster.wait_leader(after_ms=at_ms, partition=p) for p in own]
            # Workers hear of the next terms before they hear what was held up.
            arena.pause(2)
    led_ms = max(event.at_ms for event in led)

    def was_dropped(measured: Measured) -> None:
        grants = [fact for fact in measured.verdict.facts if isinstance(fact, Granted)]
        newest = {fact.job: fact.lease for fact in grants}
        starts = [r for r in read_history(arena.cluster.history) if r.f == START]
        known = {row.lease for row in starts if row.boottime < led_ms}
        stale = {
            fact.lease
            for fact in grants
            if token_of(fact.lease) in old and token_of(newest[fact.job]) not in old
        }
        assert stale - known, "no grant was held up: nothing was tried"
        assert not {row.lease for row in starts if row.boottime >= led_ms} & stale

    here.checks.append(was_dropped)


@pytest.mark.nightly
@pytest.mark.fault(9)
def test_row_09_a_leader_stops_and_goes_on_once_a_second(here: Site) -> None:
    """Work goes on, and offices do not go round."""
    lost = here.lost()
    here.strike("leader-flapping")
    assert here.lost() - lost <= here.arena.partitions


@pytest.mark.nightly
@pytest.mark.fault(10)
def test_row_10_a_leaders_event_loop_is_blocked_while_its_threads_live(here: Site) -> None:
    """Keepalives stop with the loop, so another leads."""
    leader = here.arena.leader_of(0)
    with here.struck("loop blocked", deposes="claimed"), here.arena.claim(leader.name):
        at_ms = here.now_ms()
        here.arena.cluster.dials[leader.name].block_loop(10_000)
        found = here.arena.cluster.wait_leader(after_ms=at_ms)
        assert found.process != leader.log.name


@pytest.mark.nightly
@pytest.mark.fault(13)
def test_row_13_a_worker_comes_back_under_its_old_name(here: Site) -> None:
    """It inherits no lease: what its former self ran is started under new ones."""
    here.strike("worker-killed")


@pytest.mark.nightly
@pytest.mark.fault(14)
def test_row_14_all_workers_die(here: Site) -> None:
    """Jobs wait for them; masters use no processor meanwhile, and no more memory."""
    with (
        here.bounded(),
        here.struck("workers killed"),
        here.arena.claim(*here.arena.worker_names),
    ):
        for name in here.arena.worker_names:
            here.arena.kill(here.arena.cluster.processes[name])
        busy = here.busy_share(5.0)
        for name in here.arena.worker_names:
            here.arena.start_worker(name)
    assert busy < 0.5


@pytest.mark.nightly
@pytest.mark.fault(15)
def test_row_15_a_job_kills_whichever_worker_runs_it(here: Site) -> None:
    """It is a dead letter after its budget of losses."""
    assert here.poison(kill_leaders=False) <= 2


@pytest.mark.nightly
@pytest.mark.fault(16)
def test_row_16_a_poison_job_and_the_leader_killed_at_each_attempt(here: Site) -> None:
    """The same bound, and one more for each failover that caught a first grant unwritten."""
    assert here.poison(kill_leaders=True) <= 4


@pytest.mark.nightly
@pytest.mark.fault(20)
def test_row_20_two_of_three_etcd_members_are_away_for_a_minute(here: Site) -> None:
    """All partitions freeze, and thaw under the terms that they had."""
    arena, terms = here.arena, here.terms()
    gone = arena.etcd.members[:2]
    with (
        here.struck("etcd's majority away", deposes="anybody"),
        arena.claim(*(member.name for member in arena.etcd.members)),
    ):
        for member in gone:
            arena.kill_member(member)
        arena.pause(60)
        frozen = here.frozen()
        for member in gone:
            arena.start_member(member)
        arena.etcd.wait_ready()
        arena.pause(8)
    assert frozen == list(range(arena.partitions))
    assert here.terms() == terms


@pytest.mark.nightly
@pytest.mark.fault(21)
def test_row_21_all_of_etcd_stands_still_for_half_a_minute(here: Site) -> None:
    """All partitions freeze, and thaw or are won anew."""
    arena = here.arena
    with (
        here.struck("etcd stands still", deposes="anybody"),
        arena.claim(*(member.name for member in arena.etcd.members)),
    ):
        for member in arena.etcd.members:
            member.pause()
        try:
            arena.pause(30)
            frozen = here.frozen()
        finally:
            for member in arena.etcd.members:
                member.resume()
        arena.etcd.wait_ready()
        arena.pause(8)
    assert frozen == list(range(arena.partitions))


@pytest.mark.nightly
@pytest.mark.fault(25)
def test_row_25_a_leaders_cable_is_pulled(here: Site) -> None:
    """Others lead in time; back again it follows."""
    here.needs("netns")
    leader = here.arena.leader_of(0)
    place = here.arena.cluster.places[leader.name]
    with (
        here.struck("cable pulled", deposes="claimed", costs_leases=True),
        here.arena.claim(leader.name),
    ):
        at_ms = here.now_ms()
        place.unplug()
        try:
            here.arena.cluster.wait_leader(after_ms=at_ms)
        finally:
            place.heal()


@pytest.mark.nightly
@pytest.mark.fault(26)
def test_row_26_a_leader_is_cut_from_the_workers_only(here: Site) -> None:
    """Workers lose their leases or find another leader; then all goes on."""
    here.strike("leader-cut-from-workers")


@pytest.mark.nightly
@pytest.mark.fault(27)
def test_row_27_a_leaders_requests_do_not_reach_etcd(here: Site) -> None:
    """It freezes at its deadline; what arrives late is refused."""
    here.strike("requests-to-etcd-held")


@pytest.mark.nightly
@pytest.mark.fault(28)
def test_row_28_etcds_answers_do_not_reach_the_leader(here: Site) -> None:
    """What it wrote it finds by reading."""
    here.strike("replies-of-etcd-held")


@pytest.mark.nightly
@pytest.mark.fault(29, 36)
def test_row_29_what_a_worker_says_does_not_reach_the_masters(here: Site) -> None:
    """It gives its leases up before they are given to others; what comes late finds new ones."""
    here.strike("worker-unheard")


@pytest.mark.nightly
@pytest.mark.fault(30)
def test_row_30_a_worker_reaches_only_the_zombie(here: Site) -> None:
    """The zombie is frozen and grants nothing; the worker's jobs go to others or wait for it."""
    links, leader = here.arena.links, here.arena.leader_of(0)
    others = [m.name for m in here.arena.cluster.masters if m.name != leader.name]
    address = here.arena.cluster.address_of(leader)
    with (
        here.struck("worker with the zombie", deposes="claimed"),
        here.arena.claim(leader.name, "worker-1"),
    ):
        at_ms = here.now_ms()
        rules = [links.make("worker-1", name, hold=True) for name in others]
        rules.append(links.make(leader.name, "m?", hold=True))
        try:
            led_ms = here.arena.cluster.wait_leader(after_ms=at_ms).at_ms
            for _ in range(8):
                assert role_is(address, cluster_pb2.PARTITION_ROLE_FROZEN)
                here.arena.pause(1)
            until_ms = here.now_ms()
        finally:
            for rule in rules:
                links.drop(rule)
    began = [
        row.job
        for row in read_history(here.arena.cluster.history)
        if row.f == START and row.process == "worker-1" and led_ms < row.boottime < until_ms
    ]
    assert [job for job in began if partition_of(job) == 0] == []


@pytest.mark.nightly
@pytest.mark.fault(37)
def test_row_37_a_report_comes_ten_minutes_late(here: Site) -> None:
    """The masters' clocks go ten minutes on while a worker's words are held: it is judged late.

    Its leases have expired and others have its jobs: what it says of them changes nothing.
    """
    since_ms = here.now_ms()
    with (
        here.struck("late report", deposes="anybody", costs_leases=True),
        here.arena.claim("worker-1"),
        here.arena.links.spoiled("worker-1", "master-*", way="up", hold=True),
    ):
        here.arena.pause(2)
        for master in here.arena.cluster.masters:
            here.arena.cluster.dials[master.name].skip(600_000)
        # Until others have its jobs: a lease's TTL, twice if offices have changed hands meanwhile.
        here.arena.pause(35)
        rows = read_history(here.arena.cluster.history)
    ended = {
        row.job: row.lease
        for row in rows
        if row.process == "worker-1" and row.f == END and row.boottime >= since_ms
    }
    late = {
        ended[row.job]
        for row in rows
        if row.f == START and row.job in ended and row.lease > ended[row.job]
    }

    def was_refused(measured: Measured) -> None:
        facts = measured.verdict.facts
        assert not late & {fact.lease for fact in facts if isinstance(fact, Settled)}

    assert late
    here.checks.append(was_refused)


@pytest.mark.nightly
@pytest.mark.fault(38)
def test_row_38_grants_are_lost_on_their_way(here: Site) -> None:
    """They are found out and given again, at no attempt's cost."""
    since_ms = here.now_ms()
    with here.struck("grants lost"):
        for k in (0, 60, 111, 200, 333, 500, 1_000, 2_000):
            rule = here.arena.links.make("worker-*", "*", way="down", cut_after=k, reset=True)
            assert here.arena.links.wait_cut(rule, 10)
        # A cut strikes a grant by chance. What is held back and then reset is lost for certain.
        with here.arena.links.spoiled("worker-*", "master-*", way="down", hold=True):
            here.arena.pause(0.5)
            here.arena.links.reset("worker-*", "master-*")
    rows = [r for r in read_history(here.arena.cluster.history) if r.boottime >= since_ms]
    jobs = {row.job for row in rows if row.f == RESULT and row.type == "ok"}
    jobs &= {row.job for row in rows if row.f == SUBMIT and row.type == "ok"}
    started = {row.lease for row in rows if row.f == START}

    def cost_nothing(measured: Measured) -> None:
        facts = [f for f in measured.verdict.facts if getattr(f, "job", "") in jobs]
        lost = {f.lease for f in facts if isinstance(f, Granted)} - started
        assert lost, "no grant was lost: nothing was tried"
        assert [f for f in facts if isinstance(f, Closed) and f.charged] == []

    here.checks.append(cost_nothing)


@pytest.mark.nightly
@pytest.mark.fault(40)
def test_row_40_a_failover_between_skewed_masters(here: Site) -> None:
    """The cluster's time does not run back."""
    here.strike("masters-skewed")


@pytest.mark.nightly
@pytest.mark.fault(41)
def test_row_41_a_workers_clock_is_fast(here: Site) -> None:
    """It gives leases up early, never late."""
    here.strike("worker-clock-fast")


@pytest.mark.nightly
@pytest.mark.fault(42)
def test_row_42_a_leader_is_suspended(here: Site) -> None:
    """A minute passed in its sleep: it looks before it acts."""
    here.strike("leader-suspended")


@pytest.mark.nightly
@pytest.mark.fault(44)
def test_row_44_an_etcd_members_disk_is_full(here: Site) -> None:
    """The member dies of it; the cluster serves."""
    here.strike("etcd-disk-full")


@pytest.mark.nightly
@pytest.mark.fault(46)
def test_row_46_an_etcd_members_disk_is_slow(here: Site) -> None:
    """Nothing is acknowledged by it alone; the others carry on."""
    here.strike("etcd-fsync-slow")


@pytest.mark.nightly
@pytest.mark.fault(47)
def test_row_47_an_fsync_of_an_etcd_member_fails(here: Site) -> None:
    """It ends, and comes back with all that was acknowledged."""
    here.strike("etcd-fsync-fails")


@pytest.mark.nightly
@pytest.mark.fault(50)
def test_row_50_etcd_is_compacted_while_a_leader_recovers(here: Site) -> None:
    """It lists again, and has everything."""
    here.strike("etcd-compacted")
