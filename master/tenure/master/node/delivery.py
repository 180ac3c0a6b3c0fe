"""Effects to workers and waiters, as parts of the envelopes that are filling up."""

import logging
from collections.abc import Iterable
from typing import Final, Protocol, TypeAlias

from tenure.master.core.effect import (
    SendAssignment,
    SendCancels,
    SendCheckpointAcks,
    SendHeartbeatAck,
    SendQuarantine,
    SendRevokes,
    SendVerdicts,
)
from tenure.master.core.record import JobRecord, Policy
from tenure.master.node.hub import WorkerHub
from tenure.master.node.link import WorkerLink, lease_ref
from tenure.protocol.errors import TenureError
from tenure.protocol.fence import Token
from tenure.protocol.vocabulary import TERMINAL
from tenure.v1 import worker_pb2

_LOGGER: Final = logging.getLogger(__name__)
#: What a worker goes by of a policy: name, timeout in milliseconds, whether at most once, content
#: type, error types that are not retried.
Word: TypeAlias = SendVerdicts | SendCheckpointAcks | SendRevokes | SendCancels | SendQuarantine
_Terms: TypeAlias = tuple[str, int, bool, str, tuple[str, ...]]


class ResultSink(Protocol):
    """Who waits for results: a stream or a unary call."""

    def add(self, record: JobRecord) -> None:
        """Takes one job's result from its record, which is terminal and durable."""

    def fail(self, error: TenureError) -> None:
        """The leader stepped down: ask the next one."""


class Waiters:
    """Who waits for which job of one partition."""

    def __init__(self) -> None:
        self._sinks: dict[str, list[ResultSink]] = {}

    def add(self, job_ids: Iterable[str], sink: ResultSink) -> None:
        """The sink gets each job's result when it is terminal and durable."""
        sinks = self._sinks
        for job_id in job_ids:
            sinks.setdefault(job_id, []).append(sink)

    def discard(self, job_id: str, sink: ResultSink) -> None:
        """The sink no longer wants to know."""
        sinks = self._sinks.get(job_id)
        if sinks is not None and sink in sinks:
            sinks.remove(sink)
            if not sinks:
                del self._sinks[job_id]

    def settle(self, record: JobRecord) -> None:
        """A job is terminal and durable."""
        if record.state in TERMINAL:
            for sink in self._sinks.pop(record.job_id, ()):
                sink.add(record)

    def abandon(self, error: TenureError) -> None:
        """Nobody here will know any more."""
        sinks = {id(sink): sink for waiting in self._sinks.values() for sink in waiting}
        self._sinks.clear()
        for sink in sinks.values():
            sink.fail(error)


class Delivery:
    """Fills envelopes for one term.

    Args:
        partition: Whose term it is.
        token: The term's token.
        hub: The workers' streams.
    """

    def __init__(self, *, partition: int, token: Token, hub: WorkerHub) -> None:
        self._partition = partition
        self._token = token
        self._hub = hub
        self.waiters = Waiters()

    def assignment(self, effect: SendAssignment) -> None:
        """Grants; their credit was spent when they were decided on."""
        link = self._hub.get(effect.session_id)
        if link is None:
            return
        records = [row.record for row in effect.rows]
        size = sum([len(record.payload) for record in records]) + 96 * len(records)
        size += sum([len(saved.data) for r in records if (saved := r.checkpoint) is not None])
        part = link.instruction(self._partition, self._token, size)
        assignment = part.assignment
        assignment.number = effect.number
        #: By policies' identities, as telling equal ones takes long, and by what is told of them.
        indexes: dict[int, int] = {}
        told: dict[_Terms, int] = {}
        add = assignment.grants.add
        for row in effect.rows:
            record = row.record
            policy = record.policy
            index = indexes.get(id(policy))
            if index is None:
                index = indexes[id(policy)] = _tell(policy, assignment, told)
            # Set one by one, a row takes a third of the time that it takes by keywords.
            grant = add()
            grant.job_id = record.job_id
            grant.seq = row.lease_seq
            grant.attempt = row.attempt
            grant.payload = record.payload
            if index:
                grant.options = index
            if record.run:
                grant.run = record.run
            if row.deadline_ms:
                grant.deadline_ms = row.deadline_ms
            if record.checkpoint is not None:
                grant.checkpoint = record.checkpoint.data
        link.settle(len(effect.rows))

    def word(self, effect: Word) -> None:
        """What a worker is told of leases of its, or of itself."""
        link = self._hub.get(effect.session_id)
        if link is None:
            return
        match effect:
            case SendVerdicts():
                self._verdicts(link, effect)
            case SendCheckpointAcks():
                self._checkpoint_acks(link, effect)
            case SendRevokes():
                self._revokes(link, effect)
            case SendCancels():
                self._cancels(link, effect)
            case SendQuarantine():
                self._quarantine(link, effect)

    def _verdicts(self, link: WorkerLink, effect: SendVerdicts) -> None:
        """Answers to reports."""
        part = link.instruction(self._partition, self._token, 64 * len(effect.rows))
        token, add = self._token, part.verdicts.add
        for job_id, lease, verdict in effect.rows:
            row = add()
            row.verdict = verdict  # type: ignore[assignment]
            lease_ref(row.lease, job_id, lease, token)

    def heartbeat_ack(self, effect: SendHeartbeatAck, backlog: int) -> None:
        """An answer to a heartbeat, with the backlog as a hint."""
        link = self._hub.get(effect.session_id)
        if link is not None:
            part = link.instruction(self._partition, self._token)
            part.heartbeat_ack.number = effect.number
            part.backlog = backlog

    def _checkpoint_acks(self, link: WorkerLink, effect: SendCheckpointAcks) -> None:
        """Saved states that are durable."""
        part = link.instruction(self._partition, self._token, 64 * len(effect.rows))
        for job_id, lease, number in effect.rows:
            ack = part.checkpoint_acks.add(number=number)
            lease_ref(ack.lease, job_id, lease, self._token)

    def _revokes(self, link: WorkerLink, effect: SendRevokes) -> None:
        """Leases that are lost, or wanted back."""
        part = link.instruction(self._partition, self._token)
        for job_id, lease in effect.rows:
            row = part.revokes.add(unless_started=effect.unless_started, reason=effect.reason)
            lease_ref(row.lease, job_id, lease, self._token)

    def _cancels(self, link: WorkerLink, effect: SendCancels) -> None:
        """Jobs that should stop."""
        part = link.instruction(self._partition, self._token)
        for job_id, lease in effect.rows:
            lease_ref(part.cancels.add(), job_id, lease, self._token)

    def _quarantine(self, link: WorkerLink, effect: SendQuarantine) -> None:
        """That it gets nothing, or does again: it tells all masters."""
        _LOGGER.warning(
            "worker %s (%s) %s",
            link.hello.name,
            link.hello.incarnation,
            "is released from quarantine: it has done a job well"
            if effect.lifted
            else f"is in quarantine, it gets nothing for a while: {effect.reason}",
            extra={"action": "quarantine", "partition": self._partition},
        )
        wish = link.envelope().quarantine
        wish.reason, wish.by_hand, wish.lifted = effect.reason, False, effect.lifted

    def settled(self, records: list[JobRecord]) -> None:
        """Results for those who wait."""
        settle = self.waiters.settle
        for record in records:
            settle(record)


def _tell(policy: Policy, assignment: worker_pb2.Assignment, told: dict[_Terms, int]) -> int:
    """The index of what the worker of some jobs goes by; where else they differ is not told."""
    name, at_most_once, content_type = policy.name, policy.at_most_once, policy.content_type
    timeout_ms, non_retryable = policy.timeout_ms, policy.retry.non_retryable
    terms = name, timeout_ms, at_most_once, content_type, non_retryable
    index = told.get(terms)
    if index is None:
        index = told[terms] = len(told)
        options = assignment.options.add(
            name=name, at_most_once=at_most_once, content_type=content_type
        )
        if timeout_ms:
            options.timeout.FromMilliseconds(timeout_ms)
        if non_retryable:
            options.retry.non_retryable.extend(non_retryable)
    return index
