"""One stream to one master, without I/O: what arrives, and what is to be sent.

```
 opened ──Hello──► greeted ──Welcome──► serving ──(Goodbye)──► ended
```
The master announces the partitions it leads; what belongs to a partition is the business of
``partition``, credit that of ``credit``. This module has what is the stream's own: the greeting,
the clock of heartbeats, and the proof of life.
"""

from collections.abc import Callable
from typing import Final

from tenure.protocol.token_wire import token_of
from tenure.v1 import worker_pb2
from tenure.worker.credit import CreditLine
from tenure.worker.partition import REPORT_BYTES_MAX, Partition
from tenure.worker.port import Rng

LEASE_TTL_MS_DEFAULT: Final = 15_000
HEARTBEAT_MS_DEFAULT: Final = 5_000
#: Heartbeats come this much earlier or later, so that workers do not beat in step.
HEARTBEAT_JITTER: Final = 0.1
#: A master that has not welcomed us by then is dialled again.
WELCOME_MS_MAX: Final = 10_000
#: Envelopes stay below this, and ``REPORT_BYTES_MAX``, by leaving partitions for the next one.
ENVELOPE_ROWS_MAX: Final = 512


class Session:
    """The worker's side of one stream.

    Attributes:
        address: The master's address, as dialled.
        master: The master's name; empty before its Welcome.
        partitions: What is open here.
        credit: What this master may still grant.
        turn: Rises with each grant over any of the worker's streams.
        proven_ms: When the newest message that the master has answered was sent. Whatever it sends
            from now on happened later, by its clock too.
    """

    def __init__(
        self,
        address: str,
        hello: worker_pb2.Hello,
        rng: Rng,
        now_ms: int,
        vitals: Callable[[int], worker_pb2.Vitals] | None = None,
    ) -> None:
        """A stream that is being opened.

        Args:
            address: Of its master.
            hello: What the worker says of itself.
            rng: For jitter.
            now_ms: The time.
            vitals: How the worker does at a time; None: it does not tell.
        """
        self.address = address
        self.master = ""
        self.masters: list[str] = []
        self.partitions: dict[int, Partition] = {}
        self.credit = CreditLine()
        self.turn = 0
        self.lease_ttl_ms = LEASE_TTL_MS_DEFAULT
        self.heartbeat_interval_ms = HEARTBEAT_MS_DEFAULT
        self.proven_ms = now_ms
        self.goodbye: str | None = None
        self._hello: worker_pb2.Hello | None = hello
        self._opened_ms = now_ms
        self._rng = rng
        self._beat_ms = now_ms
        self._vitals = vitals
        self._vitals_due = vitals is not None

    # What the master says. The arbiter routes it here.

    def welcome(self, welcome: worker_pb2.Welcome) -> None:
        """The master has taken our Hello."""
        self.master = welcome.master or self.address
        self.masters = list(welcome.masters)
        if welcome.HasField("lease_ttl"):
            self.lease_ttl_ms = welcome.lease_ttl.ToMilliseconds()
        if welcome.HasField("heartbeat_interval"):
            self.heartbeat_interval_ms = welcome.heartbeat_interval.ToMilliseconds()

    def credit_acked(self, number: int) -> None:
        """The master goes by this limit now."""
        sent = self.credit.ack(number)
        if sent is not None:
            self.proven_ms = max(self.proven_ms, sent.sent_ms)

    def instructed(
        self, partition: Partition, said: worker_pb2.PartitionInstruction, now_ms: int
    ) -> None:
        """What the master says of one partition, if it may still say it."""
        grants = len(said.assignment.grants) if said.HasField("assignment") else 0
        # The master has spent this credit, whatever becomes of the grants.
        self.credit.granted += grants
        if not partition.is_open(token_of(said.token), self):
            return
        if said.HasField("heartbeat_ack"):
            sent_ms = partition.heartbeat_answered(said.heartbeat_ack.number, now_ms)
            if sent_ms is not None:
                self.proven_ms = max(self.proven_ms, sent_ms)
        if said.HasField("hold"):
            partition.heartbeat_held(said.hold.number)
        if grants:
            partition.assign(said.assignment, self.proven_ms)
        if said.checkpoint_acks:
            partition.checkpoints_safe(said.checkpoint_acks)
        if said.verdicts:
            partition.judge(said.verdicts)
        if said.revokes:
            partition.revoke(said.revokes)
        if said.cancels:
            partition.cancel(said.cancels)
        if said.logs:
            partition.want_logs(said.logs)
        if said.backlog or said.HasField("heartbeat_ack"):
            partition.backlog = partition.backlog_told = said.backlog
        elif grants:
            partition.backlog = max(0, partition.backlog - grants)

    @property
    def backlog(self) -> int:
        """Ready jobs behind this stream that the worker could run."""
        return sum(partition.backlog for partition in self.partitions.values())

    # Time.

    def tick(self, now_ms: int) -> None:
        """Sends what has waited for company, and heartbeats when they are due."""
        for partition in self.partitions.values():
            partition.tick(now_ms)
        if now_ms < self._beat_ms or not self.partitions:
            return
        for partition in self.partitions.values():
            partition.heartbeat()
        self.tell_vitals()
        spread = 1 + HEARTBEAT_JITTER * (2 * self._rng.random() - 1)
        self._beat_ms = now_ms + int(self.heartbeat_interval_ms * spread)

    def tell_vitals(self) -> None:
        """The master is to hear how the worker does."""
        self._vitals_due = self._vitals is not None

    def is_deaf(self, now_ms: int) -> bool:
        """Whether the master has left us without an answer for too long: dial again.

        A deposed leader that cannot know it yet acks no credit while a grant of its waits for a
        store that is out of its reach. What it might still send has to be reserved for it; over a
        new stream it has nothing.
        """
        if not self.master:
            return now_ms - self._opened_ms >= WELCOME_MS_MAX
        if not self.partitions:
            sent_ms = self.credit.oldest_unacked_ms
            return sent_ms is not None and now_ms - sent_ms >= self.lease_ttl_ms
        waited = [
            now_ms - sent_ms
            for partition in self.partitions.values()
            if (sent_ms := partition.oldest_unanswered_ms) is not None
        ]
        return bool(waited) and max(waited) >= self.lease_ttl_ms

    def next_wake_ms(self) -> int | None:
        """When ``tick`` or ``is_deaf`` has something to say next."""
        if not self.master:
            return self._opened_ms + WELCOME_MS_MAX
        if self.partitions:
            return self._beat_ms
        return None

    # What the worker says.

    @property
    def silent(self) -> bool:
        """Whether there is nothing to say."""
        if self._hello is not None or self.goodbye is not None or not self.credit.silent:
            return False
        if self._vitals_due:
            return False
        return all(partition.silent for partition in self.partitions.values())

    def flush(self, now_ms: int) -> worker_pb2.SessionRequest | None:
        """The next envelope, or None if there is nothing to say. Call until it is None."""
        request = worker_pb2.SessionRequest()
        said = False
        if self._hello is not None:
            request.hello.CopyFrom(self._hello)
            self._hello = None
            # The proof that a Welcome gives is as old as this.
            self.proven_ms = now_ms
            said = True
        if self._vitals_due and self._vitals is not None:
            request.vitals.CopyFrom(self._vitals(now_ms))
            self._vitals_due = False
            said = True
        limit = self.credit.news(now_ms)
        if limit is not None:
            request.credit.number = limit.number
            request.credit.limit = limit.limit
            said = True
        rows = size = 0
        for partition in self.partitions.values():
            if partition.silent or rows >= ENVELOPE_ROWS_MAX or size >= REPORT_BYTES_MAX:
                continue
            update = request.updates.add()
            size += partition.fill(update, now_ms)
            rows += len(update.reports)
            said = True
        if not said and self.goodbye is not None:
            request.goodbye.reason = self.goodbye
            self.goodbye = None
            said = True
        return request if said else None
