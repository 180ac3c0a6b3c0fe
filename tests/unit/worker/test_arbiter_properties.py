"""The arbiter under random histories: masters that come, go and are deposed, lost streams, time.

The machine plays masters with three offices each for two partitions, and the executors. It keeps
its own books and compares after each step. Jobs run for long, so the pool is exactly the slots.
"""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from tenure.protocol.fence import Token
from tenure.protocol.ids import partition_of
from tenure.protocol.token_wire import token_of
from tenure.v1 import worker_pb2
from tenure.worker.held import HeldJob
from tenure.worker.session import Session
from tests.unit.worker.rig import Rig, Said

SLOTS = 3
TOKENS = [Token(1, revision) for revision in range(1, 4)]
partitions = st.sampled_from([0, 1])
#: Most words come from the true leader.
honest = st.sampled_from([True, True, True, False])
tokens = st.sampled_from(TOKENS)


#: Names one lease, whatever its partition: the run follows from the other three.
LeaseKey = tuple[str, Token, int]


def key_of(job: HeldJob) -> LeaseKey:
    """The job's lease."""
    return (job.job_id, job.token, job.seq)


class Worker(RuleBasedStateMachine):
    """Random masters against one arbiter."""

    sessions: Bundle[Session] = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(slots=SLOTS)
        self.next_job = 1
        #: What the worker may still be acting on: granted under an office that was open then.
        self.granted: dict[LeaseKey, worker_pb2.LeaseRef] = {}
        self.ended: dict[LeaseKey, HeldJob] = {}
        #: Handed back, and no heartbeat was answered since; and those of which one was, or which
        #: ended otherwise.
        self.returned: set[LeaseKey] = set()
        self.over: set[LeaseKey] = set()
        #: Ended jobs whose reports have arrived since their partition was last opened.
        self.reported: set[str] = set()
        self.highest: dict[int, Token] = {}
        self.offices: dict[int, tuple[Session, Token]] = {}
        self.live: list[Session] = []
        #: Credit by the masters' books: limits on their way, the one taken, and grants sent.
        self.limits: dict[Session, list[worker_pb2.CreditLimit]] = {}
        self.taken: dict[Session, int] = {}
        self.spent: dict[Session, int] = {}

    def hear(self, session: Session) -> Said:
        """Takes down what the worker says, and checks whom it says it to."""
        said = self.rig.hear(session)
        for update in said.updates:
            owner, token = self.offices[update.partition]
            assert owner is session
            assert token_of(update.token) == token
        self.limits[session].extend(said.limits)
        for update in said.updates:
            own = token_of(update.token)
            for ref in update.returned:
                key = (ref.job_id, token_of(ref.token) if ref.HasField("token") else own, ref.seq)
                if key in self.granted and key not in self.over:
                    self.returned.add(key)
        self.reported.update(report.lease.job_id for report in said.reports)
        for key, job in self.ended.items():
            if self.offices.get(job.partition, (None,))[0] is session:
                assert key[0] in self.reported, "a result is on its way as soon as it can be"
        return said

    def speaker(
        self, said_by: Session, token: Token, partition: int, is_honest: bool
    ) -> tuple[Session, Token]:
        """Who says something about a partition: its leader, or anybody."""
        if is_honest and partition in self.offices:
            return self.offices[partition]
        return said_by, token

    @initialize(target=sessions)
    def lead(self) -> Any:
        """A healthy cluster to start with: two masters, each leading a partition."""
        healthy = [self.connect("m1"), self.connect("m2")]
        for partition, session in enumerate(healthy):
            self.open(session, partition, TOKENS[0])
            self.take_credit(session)
        return multiple(*healthy)

    @rule(target=sessions, name=st.sampled_from(["m1", "m2", "m3"]))
    def connect(self, name: str) -> Session:
        """A stream to a master."""
        session = self.rig.connect(name)
        self.live.append(session)
        self.limits[session], self.taken[session], self.spent[session] = [], 0, 0
        return session

    @precondition(lambda self: len(self.live) > 1)
    @rule(session=consumes(sessions))
    def lose(self, session: Session) -> None:
        """A stream breaks."""
        self.rig.arbiter.stream_closed(session)
        self.live.remove(session)
        for partition, (owner, _) in list(self.offices.items()):
            if owner is session:
                del self.offices[partition]

    @rule(session=sessions, partition=partitions, token=tokens)
    def open(self, session: Session, partition: int, token: Token) -> None:
        """A master claims to lead."""
        self.rig.open(session, partition, token)
        if token >= self.highest.get(partition, TOKENS[0]):
            self.highest[partition] = token
            self.offices[partition] = (session, token)
            owed = {key[0] for key, job in self.ended.items() if job.partition == partition}
            self.reported -= owed
            said = self.hear(session).of(partition)
            keys = {key_of(job) for job in self.rig.arbiter.partitions[partition].held.values()}
            (declared,) = said.declared
            unheard = {key[0] for key in self.returned if partition_of(key[0]) == partition}
            held = {key[0] for key in keys}
            assert len(declared) == len(set(declared))
            assert set(declared) == held | unheard
            assert unheard == set(declared) & set(said.returned)
            reported = {report.lease.job_id for report in said.reports}
            assert reported == owed, "whoever opens the partition gets every unjudged report"
        else:
            assert not self.hear(session).of(partition).declared

    @rule(session=sessions, partition=partitions, token=tokens)
    def close(self, session: Session, partition: int, token: Token) -> None:
        """A master says that it leads no more."""
        self.rig.close(session, partition, token)
        if self.offices.get(partition) == (session, token):
            del self.offices[partition]

    @rule(
        session=sessions, partition=partitions, token=tokens, count=st.integers(1, 3), true=honest
    )
    def grant(self, session: Session, partition: int, token: Token, count: int, true: bool) -> None:
        """A master grants, within its credit."""
        session, token = self.speaker(session, token, partition, true)
        count = min(count, self.taken[session] - self.spent[session])
        if count <= 0:
            return
        self.spent[session] += count
        before = len(self.rig.queued)
        numbers = range(self.next_job, self.next_job + count)
        self.next_job += count
        refs = self.rig.grant(session, *numbers, partition=partition, token=token)
        valid = self.offices.get(partition) == (session, token)
        assert len(self.rig.queued) - before == (count if valid else 0)
        if valid:
            for ref in refs:
                self.granted[(ref.job_id, token, ref.seq)] = ref

    @rule()
    def begin(self) -> None:
        """An executor has a free slot."""
        for job in self.rig.begin():
            assert key_of(job) in self.granted
            assert self.rig.now_ms < job.expires_ms

    @precondition(lambda self: self.rig.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A job ends."""
        job = data.draw(st.sampled_from(self.rig.running))
        job.started_ms = self.rig.now_ms - 3_600_000
        self.rig.end(job)
        self.ended[key_of(job)] = job

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), session=sessions, token=tokens, true=honest)
    def judge(self, data: st.DataObject, session: Session, token: Token, true: bool) -> None:
        """A master judges a report; a deposed one's verdict is void."""
        key = data.draw(st.sampled_from(list(self.ended)))
        partition = self.ended[key].partition
        session, token = self.speaker(session, token, partition, true)
        self.rig.judge(session, self.granted[key], partition=partition, token=token)
        if self.offices.get(partition) == (session, token):
            del self.ended[key]
            self.over.add(key)

    @precondition(lambda self: self.granted)
    @rule(
        data=st.data(),
        session=sessions,
        token=tokens,
        unless_started=st.booleans(),
        true=honest,
    )
    def revoke(
        self,
        data: st.DataObject,
        session: Session,
        token: Token,
        unless_started: bool,
        true: bool,
    ) -> None:
        """A master takes a lease back."""
        likely = [key_of(job) for job in self.rig.running + self.rig.queued]
        key = data.draw(st.sampled_from(likely or list(self.granted)))
        partition = partition_of(key[0])
        session, token = self.speaker(session, token, partition, true)
        running = [job for job in self.rig.running if key_of(job) == key]
        self.rig.revoke(
            session,
            self.granted[key],
            unless_started=unless_started,
            partition=partition,
            token=token,
        )
        if self.offices.get(partition) != (session, token):
            return
        said = self.hear(session).of(partition)
        if running and unless_started:
            assert key[0] in said.started
            assert key[0] not in said.returned
        elif not running and key not in self.ended:
            assert key[0] in said.returned

    @rule(session=sessions)
    def listen(self, session: Session) -> None:
        """What the worker has to say is on its way."""
        self.hear(session)

    @rule(session=sessions)
    def take_credit(self, session: Session) -> None:
        """A master takes the next limit that has arrived, and acks it."""
        self.hear(session)
        if self.limits[session]:
            limit = self.limits[session].pop(0)
            self.taken[session] = limit.limit
            self.rig.tell(session, worker_pb2.SessionResponse(credit_acked=limit.number))

    @rule(session=sessions, ack=st.booleans())
    def answer(self, session: Session, ack: bool) -> None:
        """A master answers heartbeats, or holds."""
        before = set(self.returned)
        read: set[str] = set()
        for update in self.hear(session).updates:
            read |= {ref.job_id for ref in update.returned}
            if not update.HasField("heartbeat"):
                continue
            if ack:
                arrived = {
                    key
                    for key in self.returned
                    if partition_of(key[0]) == update.partition
                    and (key in before or key[0] in read)
                }
                self.returned -= arrived
                self.over |= arrived
            _, token = self.offices[update.partition]
            where = {"partition": update.partition, "token": token}
            if ack:
                self.rig.ack(session, update.heartbeat, **where)
            else:
                hold = worker_pb2.Hold(number=update.heartbeat.number)
                self.rig.instruct(session, hold=hold, **where)

    @rule(session=sessions, partition=partitions, backlog=st.integers(0, 100))
    def hint(self, session: Session, partition: int, backlog: int) -> None:
        """A master says how much it has."""
        if partition in self.offices and self.offices[partition][0] is session:
            token = self.offices[partition][1]
            self.rig.instruct(session, partition=partition, token=token, backlog=backlog)

    @rule(ms=st.sampled_from([10, 1_000, 5_000, 14_000]))
    def wait(self, ms: int) -> None:
        """Time passes."""
        self.rig.wait(ms)
        # Results are given up two minutes after their leases have lapsed.
        for key, job in list(self.ended.items()):
            if self.rig.now_ms >= job.expires_ms + 120_000:
                del self.ended[key]
                self.over.add(key)

    @invariant()
    def no_master_can_overfill_the_worker(self) -> None:
        """However late masters hear of limits, what they grant finds a free slot."""
        unended = sum(
            job.result is None
            for partition in self.rig.arbiter.partitions.values()
            for job in partition.held.values()
        )
        assert unended <= SLOTS

    @invariant()
    def no_slot_is_forgotten(self) -> None:
        """Every free slot is offered to a leader, or on its way from one master to another."""
        workload = self.rig.arbiter._workload
        if self.offices:
            unspent = sum(session.credit.unspent for session in self.live)
            assert workload.occupied + unspent >= SLOTS

    @invariant()
    def books_balance(self) -> None:
        """Occupied slots are exactly the leases whose jobs have not ended."""
        held = [
            job
            for partition in self.rig.arbiter.partitions.values()
            for job in partition.held.values()
        ]
        workload = self.rig.arbiter._workload
        assert workload.occupied == sum(job.result is None for job in held)
        assert {key_of(job) for job in held if job.result is not None} == set(self.ended)

    @invariant()
    def open_partitions_are_the_latest_offices(self) -> None:
        """A partition is open where its highest token was last announced, or nowhere."""
        for number, partition in self.rig.arbiter.partitions.items():
            office = self.offices.get(number)
            assert partition.session is (office[0] if office else None)
            if office:
                assert partition.token == office[1]


TestWorker = Worker.TestCase
TestWorker.settings = settings(stateful_step_count=50)
