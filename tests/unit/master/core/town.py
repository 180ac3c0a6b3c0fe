"""Several partitions under test, and the roads between them: they lose, repeat and delay."""

from collections.abc import Sequence
from random import Random

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow, SubmitRow
from tenure.master.core.config import PartitionConfig
from tenure.master.core.effect import Deliver, SubmitReply, Taken
from tenure.master.core.message import Message
from tenure.master.core.outbox import Numbered
from tenure.master.core.record import Policy
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId, home_partition, partition_of
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig, of_type


class Town:
    """Partitions whose messages are carried by hand.

    Args:
        partitions: How many.
        audited: As in ``Rig``.
        config: Of all of them; their numbers are filled in.
    """

    def __init__(self, partitions: int = 2, *, audited: bool = True, **config: object) -> None:
        self.rigs = [
            Rig(
                PartitionConfig(partition=number, partitions=partitions, **config),  # type: ignore[arg-type]
                audited=audited,
            )
            for number in range(partitions)
        ]
        self.queues = [self._queue(number) for number in range(partitions)]

    def _queue(self, partition: int) -> str:
        names = (f"q{number}" for number in range(1_000))
        count = len(self.rigs)
        return next(n for n in names if home_partition("default", n, count) == partition)

    def policy(self, partition: int, **options: object) -> Policy:
        """A policy for jobs of a partition."""
        return Policy(name="job", queue=self.queues[partition], **options)  # type: ignore[arg-type]

    def submit(
        self, partition: int, parents: Sequence[JobId] = (), **options: object
    ) -> tuple[JobId, SubmitReply]:
        """Submits one job; gives its id and the reply."""
        rig = self.rigs[partition]
        row = SubmitRow(rig.mint(), 0, b"", "", parents=tuple(parents))
        return row.job_id, rig.submit_rows([row], self.policy(partition, **options))

    def rig_of(self, job_id: JobId) -> Rig:
        """The partition of a job."""
        return self.rigs[partition_of(job_id)]

    def state(self, job_id: JobId) -> JobState:
        """A job's state."""
        return self.rig_of(job_id).state(job_id)

    def end(self, job_id: JobId, outcome: AttemptOutcome = AttemptOutcome.COMPLETED) -> None:
        """Runs the one job that is ready in its partition, which is this one."""
        rig = self.rig_of(job_id)
        if 1 not in state_of(rig.partition).sessions:
            rig.open_session(1)
        row = rig.grant_one()
        assert row.job_id == job_id
        rig.accept(1, state_of(rig.partition).sessions[1].assignment)
        self.report(row, outcome)

    def report(self, row: LeaseRow, outcome: AttemptOutcome) -> None:
        """Reports a job to its partition."""
        self.rig_of(row.job_id).report(row, outcome)

    # Messages.

    def resolve(self, partition: int, rows_max: int = 512) -> bool:
        """Decides on dependents once, if any are due."""
        rig = self.rigs[partition]
        if not rig.partition.has_dependents_due():
            return False
        decision = rig.do(commands.ResolveDependents(rows_max=rows_max))
        assert decision.events
        for effect in of_type(decision.effects, Deliver):
            assert rig.partition.outbox_targets()[effect.target] == effect.upto
        return True

    def waiting(self, source: int, target: int, count: int = 64) -> list[Numbered]:
        """The oldest messages on their way."""
        return self.rigs[source].partition.outbox_after(target, 0, count)

    def take(
        self, source: int, target: int, row: Numbered, after: int = 0, token: Token | None = None
    ) -> Taken | Refusal:
        """A message arrives."""
        rig = self.rigs[target]
        command = commands.TakeMessage(
            source=source,
            token=token or self.rigs[source].token,
            number=row.number,
            after=after,
            message=row.message,
        )
        decision = rig.partition.decide(command, rig.now_ms)
        if isinstance(decision, Refusal):
            return decision
        assert isinstance(decision.reply, Taken)
        rig.do(command)
        return decision.reply

    def trim(self, source: int, target: int, upto: int) -> None:
        """The answer arrives."""
        self.rigs[source].do(commands.TrimOutbox(target=target, upto=upto))

    def carry(self, source: int, target: int) -> bool:
        """Brings everything that waits, in order, once."""
        rows = self.waiting(source, target)
        after = 0
        for row in rows:
            taken = self.take(source, target, row, after)
            assert isinstance(taken, Taken)
            assert taken.number >= row.number
            after = row.number
        if rows:
            self.trim(source, target, after)
        return bool(rows)

    def calm(self) -> None:
        """Goes on until nothing is to be decided or brought any more."""
        count = len(self.rigs)
        busy = True
        while busy:
            busy = False
            for source in range(count):
                busy |= self.resolve(source)
                for target in range(count):
                    busy |= source != target and self.carry(source, target)

    def stumble(self, rng: Random) -> None:
        """One thing that may go wrong, or right, on one road."""
        count = len(self.rigs)
        source = rng.randrange(count)
        target = rng.choice([number for number in range(count) if number != source])
        rows = self.waiting(source, target)
        match rng.choice(("resolve", "bring", "bring", "repeat", "skip", "trim", "crash")):
            case "resolve":
                self.resolve(source, rng.randint(1, 4))
            case "bring" if rows:
                # The answer is lost.
                after = 0
                for row in rows[: rng.randint(1, 3)]:
                    assert isinstance(self.take(source, target, row, after), Taken)
                    after = row.number
            case "repeat" if rows:
                self.take(source, target, rng.choice(rows[:1]))
            case "skip" if len(rows) > 2:
                # The one before was turned away.
                mark = state_of(self.rigs[target].partition).inbox.get(source).number
                refusal = self.take(source, target, rows[-1], rows[-2].number)
                if rows[-2].number > mark:
                    assert isinstance(refusal, Refusal)
                    assert refusal.reason is Reason.OUT_OF_ORDER
            case "trim" if rows:
                mark = state_of(self.rigs[target].partition).inbox.get(source)
                self.trim(source, target, mark.number)
            case "crash":
                self.rigs[source].crash(window_ms=0)
            case _:
                pass

    def said(self, source: int, target: int) -> list[Message]:
        """What waits, as messages."""
        return [row.message for row in self.waiting(source, target)]
