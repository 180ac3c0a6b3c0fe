"""Grants between their decision and their way to the worker.

First grants leave at once. Others are written ahead: they are held until their decision has
committed, and those that are decided on meanwhile pass them. So a worker gets assignments in the
order in which they are sent, and that is when each gets its number.
"""

from collections.abc import Callable

from tenure.master.core.command import SendHeld
from tenure.master.core.effect import Effect, SendAssignment
from tenure.master.core.partition import Partition
from tenure.master.node.clock import TermClock
from tenure.master.node.gate import CommitGate
from tenure.master.node.hub import WorkerHub
from tenure.protocol.errors import error_of
from tenure.protocol.refusal import Refusal


class Grants:
    """Those of one term.

    Args:
        partition: Gives numbers.
        gate: Says when a decision has committed.
        hub: Keeps the credit, which is spent when grants are decided on.
        clock: The term's.
        send: Sends an assignment.
    """

    def __init__(
        self,
        *,
        partition: Partition,
        gate: CommitGate,
        hub: WorkerHub,
        clock: TermClock,
        send: Callable[[Effect], None],
    ) -> None:
        self._partition = partition
        self._gate = gate
        self._hub = hub
        self._clock = clock
        self._send = send
        #: How many wait for their commit, by session.
        self._held: dict[int, int] = {}

    def assign(self, effect: SendAssignment, seq: int) -> None:
        """Sends grants, or holds them until all up to ``seq`` has committed."""
        session_id, grants = effect.session_id, len(effect.rows)
        self._hub.spend(session_id, grants)
        if not effect.write_ahead:
            self._send(effect)
            return
        self._held[session_id] = self._held.get(session_id, 0) + grants
        self._gate.hold(seq, lambda: self._send_held(effect))

    def _send_held(self, held: SendAssignment) -> None:
        session_id = held.session_id
        left = self._held.pop(session_id) - len(held.rows)
        if left:
            self._held[session_id] = left
        command = SendHeld(session_id=session_id, rows=held.rows)
        decision = self._partition.decide(command, self._clock.now_ms())
        if isinstance(decision, Refusal):
            raise error_of(decision)
        for event in decision.events:
            self._partition.apply(event)
        for effect in decision.effects:
            self._send(effect)

    def abandon(self) -> None:
        """The term has ended: what is held will never be sent, and its credit comes back."""
        for session_id, grants in self._held.items():
            self._hub.refund(session_id, grants)
        self._held.clear()
