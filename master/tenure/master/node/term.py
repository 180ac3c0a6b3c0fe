"""One term of one partition: the owner loop between the inbox, the core and the commit gate.

```
 RPC handlers ──post──► inbox ──turn──► core.decide ──► core.apply ──► gate ──commit──► effects
                                  ▲                                              (replies, grants,
 timers, window, dispatch ────────┘                                               verdicts, acks)
```
Only the owner loop changes the partition. A turn is synchronous; between turns the loop runs
everything else, so what arrives meanwhile is one batch for the next turn.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, cast

from tenure.master.core.command import (
    CloseTerm,
    CloseWindow,
    Command,
    Dispatch,
    FireTimers,
    Intake,
    OpenTerm,
    PushDeadlines,
    PutSchedule,
    ReportAttempts,
    ResolveDependents,
    RestartLeases,
    SaveCheckpoints,
    SubmitJobs,
    TriggerSchedule,
)
from tenure.master.core.effect import (
    Announce,
    Decision,
    Deliver,
    Effect,
    NotifySettled,
    Reply,
    SendAssignment,
    SendCancels,
    SendCheckpointAcks,
    SendHeartbeatAck,
    SendQuarantine,
    SendRevokes,
    SendVerdicts,
    SubmitReply,
)
from tenure.master.core.event import DurableEvent
from tenure.master.core.explain import Explaining
from tenure.master.core.partition import Partition
from tenure.master.core.record import JobRecord
from tenure.master.node import turning_away
from tenure.master.node.changes import Changes
from tenure.master.node.clock import TermClock
from tenure.master.node.delivery import Delivery
from tenure.master.node.gate import CommitGate
from tenure.master.node.grants import Grants
from tenure.master.node.hub import WorkerHub
from tenure.master.node.inbox import Answer, Inbox, ignore
from tenure.master.node.keeper import Keeper
from tenure.master.node.port import Rng
from tenure.master.node.ramp import Ramp
from tenure.master.node.turning_away import busy, frozen, stale_token
from tenure.master.node.unsettled import InParts, Unsettled
from tenure.master.node.watch import Watch
from tenure.protocol.errors import TenureError, error_of
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason, Refusal

_log = logging.getLogger(__name__)

_COMMANDS_A_TURN: Final = 64
#: A turn ends with the command that brings it to so many rows: nothing else is heard meanwhile.
_ROWS_A_TURN: Final = 512
TIMER_ROWS: Final = 256
_DEPENDENT_ROWS: Final = 512
_GRANTS_A_TURN: Final = 512
_WINDOW_MS: Final = 2_500

#: Commands that the term gives itself: if one cannot be decided, nothing will go on.
_OWN: Final = frozenset({OpenTerm, CloseTerm, CloseWindow, FireTimers, Dispatch, ResolveDependents})


class Term:
    """Leads one partition from the moment its state is recovered.

    Args:
        partition: The recovered state.
        changes: The last changes of jobs before the term.
        gate: Commits its events.
        keeper: Knows whether the office is ours.
        token: The office's token.
        clock: The term's clock.
        rng: Draws jitter.
        hub: The workers' streams.
        announce: Prints a line for operators: event name and fields.
        intake: Says which new jobs the store has room for.
        bytes_max: Says what the partition may keep: a store's quota may change within a term.
    """

    def __init__(
        self,
        *,
        partition: Partition,
        changes: Changes,
        gate: CommitGate,
        keeper: Keeper,
        token: Token,
        clock: TermClock,
        rng: Rng,
        hub: WorkerHub,
        announce: Callable[[str, Mapping[str, object]], None],
        intake: Callable[[], Intake] = lambda: Intake.OPEN,
        bytes_max: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.partition = partition
        self.number = partition.config.partition
        self.gate = gate
        self.token = token
        self.clock = clock
        #: True from the commit of TermOpened until the term ends: commands are taken.
        self.open = False
        #: True once the term's last event has been posted: nothing but HOLD is answered.
        self.closing = False
        self._keeper = keeper
        self._rng = rng
        self._hub = hub
        self._announce = announce
        self._intake = intake
        self._bytes_max = bytes_max
        self._delivery = Delivery(partition=self.number, token=token, hub=hub)
        self.waiters = self._delivery.waiters
        self.watch = Watch(
            number=self.number,
            committed_seq=lambda: gate.committed_seq,
            applied_seq=lambda: partition.next_seq - 1,
            changes=changes,
            record_changes=partition.watch_changes,
        )
        partition.watch_changes(True)
        self._inbox = Inbox()
        self._applied_answers: dict[int, Answer] = {}
        self._answer_number = 0
        self._grants = Grants(
            partition=partition, gate=gate, hub=hub, clock=clock, send=self._release
        )
        #: Who waits to read what has not committed yet, in the order in which they are answered.
        self._readers: dict[asyncio.Future[None], None] = {}
        #: What callers are told once the term has ended.
        self._ended: TenureError | None = None
        #: Submits of jobs whose parents elsewhere are being asked about.
        self._unsettled = Unsettled()
        self.batch_made = asyncio.Event()
        #: Set by the first grant.
        self.granted = asyncio.Event()
        #: Told when messages for other partitions may leave.
        self.deliver: Callable[[Deliver], None] = lambda effect: None
        self._wake = asyncio.Event()
        self._turns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self._ramp = Ramp()
        gate.on_commit = self._wake.set
        # Nobody waits for an operator to free space: what was applied has an unknown outcome.
        gate.on_full = partial(self._answer_unknown, "its store has no space left")
        keeper.kept = self

    # What the keeper asks (see ``keeper.Kept``).

    def turns(self) -> int:
        """How often the owner loop has turned; asking makes it turn once more."""
        self._wake.set()
        if not self.open or self.closing:
            # The loop does not run yet, or no more; what is awaited is a commit.
            self._turns += 1
        return self._turns

    def stuck_ms(self) -> int:
        """How long the oldest batch has been on its way; 0: none is."""
        return self.gate.stuck_ms()

    def freeze(self) -> None:
        """The office cannot be proved: who waits here is sent to look for another leader."""
        error = frozen(self.number)
        self._answer_unknown("its leader cannot prove its office now")
        self._inbox.refuse_asked(error)
        self._turn_away(error)

    def thaw(self) -> None:
        """The office was held all along: every lease's TTL starts anew, and an open window."""
        self.watch.resume()
        self._inbox.put_first(RestartLeases())
        self._wake.set()

    def resume(self, gap_ms: int) -> None:
        """The process stood still: push all deadlines before anything buffered is judged."""
        self._inbox.put_first(PushDeadlines(gap_ms=gap_ms))
        self._wake.set()

    # What handlers ask.

    @property
    def judging(self) -> bool:
        """Whether heartbeats and reports can be judged now; else they are answered with HOLD."""
        return self.open and not self.closing and not self._keeper.frozen

    def post(self, command: Command, answer: Answer = ignore, *, size: int = 0) -> None:
        """Queues a command for the owner loop; ``answer`` is called once, after the commit.

        Args:
            command: What to do.
            answer: Gets the reply, or the error.
            size: Bytes of its payloads or results.
        """
        if self._ended is not None:
            answer(self._ended)
        elif answer is not ignore and self._keeper.frozen:
            # Workers' messages are kept for the thaw; a client had better ask another master.
            answer(frozen(self.number))
        elif self._inbox.put(command, answer, size):
            self._wake.set()
        else:
            answer(busy(self.number))

    def nudge(self) -> None:
        """Makes the owner loop turn: something it looks at has changed."""
        self._wake.set()

    async def ask(self, command: Command, *, size: int = 0) -> Reply:
        """Posts a command and waits for its reply; ``size`` as for ``post``.

        Raises:
            TenureError: The command was refused, or its outcome is not known.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answer(reply: Reply | TenureError) -> None:
            if future.done():
                return
            if isinstance(reply, TenureError):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.post(command, answer, size=size)
        return await future

    def explain(self, job_id: JobId) -> Explaining | None:
        """Why a job does not run; None: there is no such job."""
        now_ms = self.clock.now_ms()
        halt = turning_away.STORE_FULL if self.gate.full else self._ramp.halt(now_ms)
        return self.partition.explain(job_id, self._hub.credits(), now_ms, halt)

    def no_space(self, command: Command) -> TenureError:
        """The answer to a command while the store has no space.

        New work is refused. What may be in the batch that is held, sent a second time, is not
        called refused: it may commit yet.
        """
        if self._keeper.frozen:
            # Another may lead by now, whose store has space: clients had better look for it.
            return frozen(self.number)
        if turning_away.may_be_held(self.partition, self.gate.committed_seq, command):
            return self._unknown("its store has no space left")
        return turning_away.no_space(self.number)

    async def readable(self, seq: int) -> None:
        """Waits until what was applied up to ``seq`` may be shown.

        Raises:
            TenureError: The office cannot be proved now, or the term has ended.
        """
        if seq > self.gate.committed_seq:
            done = asyncio.get_running_loop().create_future()
            self._readers[done] = None
            self.gate.notify(seq, done)
            try:
                await done
            finally:
                self._readers.pop(done, None)
        self.check_office()

    def check_office(self) -> None:
        """Holds before anything is read that no commit guards.

        Raises:
            TenureError: FROZEN: the office cannot be proved now, so another may lead by now; or
                the term has ended.
        """
        if self._ended is not None:
            raise self._ended
        if self._keeper.frozen:
            raise frozen(self.number)

    # The owner loop.

    async def begin(self, incarnation: str, *, window: bool) -> None:
        """Commits TermOpened and opens the term to workers and clients.

        Args:
            incarnation: This master process.
            window: Whether leases may be out that their workers must re-declare first.

        Raises:
            CorruptJournal: The journal knows a newer term: the store was set back.
        """
        window_ms = _WINDOW_MS if window else 0
        command = OpenTerm(token=self.token, incarnation=incarnation, window_ms=window_ms)
        refused: list[TenureError] = []

        def answer(reply: Reply | TenureError) -> None:
            # OUTCOME_UNKNOWN is said while the store is full: the event waits, and commits later.
            if isinstance(reply, TenureError) and reply.reason is not Reason.OUTCOME_UNKNOWN:
                refused.append(reply)

        decided_ms = self.clock.now_ms()
        self._do(command, answer, decided_ms)
        await self.gate.settled(self.partition.next_seq - 1)
        if refused:
            raise stale_token(self.number, refused[0])
        now_ms = self.clock.now_ms()
        if window:
            # Workers may declare from now on: what the commit took is not taken from them.
            self._do(PushDeadlines(gap_ms=now_ms - decided_ms), ignore, now_ms)
            self._ramp.start(now_ms + window_ms)
        self.open = True
        self._hub.open_partition(self)
        self._wake.set()

    async def own(self) -> None:
        """Turns until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._turns += 1
            if self._keeper.may_act():
                self._turn()
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Hands over in order: grants nothing more and commits TermClosed."""
        self.closing = True
        self._do(CloseTerm(), ignore, self.clock.now_ms())
        await self.gate.settled(self.partition.next_seq - 1)

    def abandon(self, error: TenureError) -> None:
        """Ends the term for all who wait: what was applied has an unknown outcome."""
        self.open = False
        self._ended = error
        if self._timer is not None:
            self._timer.cancel()
        self._inbox.refuse(error)
        self._answer_unknown("its leader stepped down")
        self._grants.abandon()
        self._turn_away(error)

    def _answer_unknown(self, why: str) -> None:
        unknown = self._unknown(why)
        self._unsettled.abandon(unknown)
        answers = list(self._applied_answers.values())
        self._applied_answers.clear()
        for answer in answers:
            answer(unknown)

    def _unknown(self, why: str) -> TenureError:
        return turning_away.unknown_outcome(self.number, why)

    def _turn_away(self, error: TenureError) -> None:
        """Tells all who wait to see something that it will not be shown here."""
        for reader in self._readers:
            if not reader.done():
                reader.set_exception(error)
        self.waiters.abandon(error)
        self.watch.abandon(error)

    def _turn(self) -> None:
        now_ms = self.clock.now_ms()
        inbox = self._inbox
        rows = 0
        for _ in range(min(len(inbox), _COMMANDS_A_TURN)):
            if rows >= _ROWS_A_TURN:
                break
            command, answer = inbox.take()
            if isinstance(command, SubmitJobs | ReportAttempts):
                rows += len(command.rows)
            if isinstance(command, SubmitJobs | TriggerSchedule):
                command = replace(command, intake=self._intake(), bytes_max=self._bytes_max())
            elif isinstance(command, PutSchedule | SaveCheckpoints):
                command = replace(command, bytes_max=self._bytes_max())
            if self.gate.full and answer is not ignore:
                answer(self.no_space(command))
            else:
                self._do(command, answer, now_ms)
        if self.closing:
            return
        if self._timer_due(now_ms):
            command = FireTimers(
                rows_max=TIMER_ROWS,
                jitter=self._draw(TIMER_ROWS),
                intake=self._intake(),
                bytes_max=self._bytes_max(),
            )
            self._do(command, ignore, now_ms)
        if self.open:
            self._look_at_window(now_ms)
            self._resolve_dependents(now_ms)
            self._dispatch(now_ms)
        self._arm(now_ms)
        if inbox:
            self._wake.set()

    def _do(self, command: Command, answer: Answer, now_ms: int) -> None:
        partition = self.partition
        decision = self._decide(command, now_ms)
        if isinstance(decision, Refusal):
            self._hold_answer(answer, error_of(decision), now_ms)
            return
        seq = partition.next_seq - 1
        durable: list[DurableEvent] = []
        for event in decision.events:
            partition.apply(event)
            if seq != partition.next_seq - 1:
                # It got a seq: it is durable.
                seq += 1
                durable.append(cast(DurableEvent, event))
        if durable:
            self.gate.add(*durable)
        for effect in decision.effects:
            if isinstance(effect, SendAssignment):
                self._grants.assign(effect, seq)
            elif isinstance(effect, SendHeartbeatAck):
                # It rests on no event: workers must not lose their leases to a slow or full store.
                self._release(effect)
            else:
                self.gate.hold(seq, lambda effect=effect: self._release(effect))  # type: ignore[misc]
        self._hold_answer(answer, decision.reply, now_ms)
        for job_id, refusal in partition.drain_answers():
            self.gate.hold(seq, lambda j=job_id, r=refusal: self._unsettled.settle(j, r))  # type: ignore[misc]
        if changes := partition.drain_changes():
            self.gate.hold(seq, lambda: self.watch.record(changes))

    def _decide(self, command: Command, now_ms: int) -> Decision | Refusal:
        try:
            return self.partition.decide(command, now_ms)
        except Exception as error:
            if type(command) in _OWN:
                raise
            # Deciding changes nothing, so only this command is lost. Raised on, it would end this
            # master, and each one after it that the command is sent to again.
            _log.error(
                "Could not decide a %s",
                type(command).__name__,
                exc_info=error,
                extra={"action": "decide_failed", "partition": self.number},
            )
            return Refusal(
                reason=Reason.INTERNAL,
                message=f"expected partition {self.number} to decide the call, but it failed "
                "inside and nothing was changed; see the master's log",
                metadata={"partition": str(self.number)},
            )

    def _hold_answer(self, answer: Answer, reply: Reply | TenureError, now_ms: int) -> None:
        """Answers when all so far has committed; or when it is known that jobs' parents exist."""
        if answer is ignore:
            return
        self._answer_number += 1
        number = self._answer_number
        self._applied_answers[number] = answer

        def release(reply: Reply | TenureError = reply) -> None:
            if self._applied_answers.pop(number, None) is not None:
                answer(reply)
                if isinstance(answer, InParts) and isinstance(reply, SubmitReply):
                    self._unsettled.add_late(reply, answer.late, now_ms)

        if isinstance(reply, SubmitReply) and reply.unsettled and not isinstance(answer, InParts):
            self._unsettled.add(reply, release, now_ms)
        else:
            self.gate.hold(self.partition.next_seq - 1, release)

    def _release(self, effect: Effect) -> None:
        delivery = self._delivery
        match effect:
            case SendAssignment():
                delivery.assignment(effect)
                if not self.granted.is_set():
                    self.granted.set()
                    self._announce("first_grant", {"partition": self.number})
            case (
                SendVerdicts()
                | SendCheckpointAcks()
                | SendRevokes()
                | SendCancels()
                | SendQuarantine()
            ):
                delivery.word(effect)
            case SendHeartbeatAck():
                backlog = self.partition.backlog_for(effect.session_id)
                delivery.heartbeat_ack(effect, backlog)
            case NotifySettled():
                delivery.settled([r for r in effect.records if self._may_show(r)])
            case Deliver():
                self.deliver(effect)
            case Announce():
                self._announce(effect.event, {"partition": self.number, **effect.counts})

    def _may_show(self, record: JobRecord) -> bool:
        """Whether a job is as it has committed: it may have got a new run that has not."""
        if record.seq <= self.gate.committed_seq:
            return True
        return self.partition.get(record.job_id) is not record

    def _look_at_window(self, now_ms: int) -> None:
        if self.partition.window_due(now_ms):
            self._ramp.start(now_ms)
            self._do(CloseWindow(jitter=self._draw(TIMER_ROWS)), ignore, now_ms)

    def _resolve_dependents(self, now_ms: int) -> None:
        if self._unsettled:
            silent = turning_away.silent_parents(self.number)
            due_ms = self._unsettled.expire(now_ms, silent)
            if due_ms is not None:
                self._arm_at(now_ms, due_ms)
        if self.gate.full or not self.partition.has_dependents_due():
            return
        self._do(ResolveDependents(rows_max=_DEPENDENT_ROWS), ignore, now_ms)
        if self.partition.has_dependents_due():
            self._wake.set()

    def _dispatch(self, now_ms: int) -> None:
        # What cannot be journaled for nobody knows how long is better not begun.
        if self.gate.full or self.partition.window_open or not self.partition.has_ready():
            return
        credits = self._hub.credits()
        grants_max = min(_GRANTS_A_TURN, self._ramp_room(now_ms))
        if not credits or grants_max <= 0:
            return
        command = Dispatch(
            credits=credits, committed_seq=self.gate.committed_seq, grants_max=grants_max
        )
        granted = self._hub.granted_total
        self._do(command, ignore, now_ms)
        granted = self._hub.granted_total - granted
        self._ramp.granted(granted)
        if granted and self.partition.has_ready() and self._hub.has_credit():
            self._wake.set()

    def _ramp_room(self, now_ms: int) -> int:
        room = self._ramp.room(now_ms)
        if room is None:
            return _GRANTS_A_TURN
        if room <= 0:
            self._arm_at(now_ms, now_ms + 20)
        return room

    def _timer_due(self, now_ms: int) -> bool:
        due_ms = self.partition.next_timer_ms()
        return due_ms is not None and due_ms <= now_ms

    def _arm(self, now_ms: int) -> None:
        for due_ms in (self.partition.next_timer_ms(), self.partition.window_ends_ms):
            if due_ms is not None:
                self._arm_at(now_ms, due_ms)

    def _arm_at(self, now_ms: int, due_ms: int) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            # The term's clock may be a hair behind the loop's: what has fired is armed again.
            if now_ms < self._timer_ms <= due_ms and self._timer.when() > loop.time():
                return
            self._timer.cancel()
        self._timer_ms = due_ms
        self._timer = loop.call_later(max(0, due_ms - now_ms) / 1000, self._wake.set)

    def _draw(self, count: int) -> list[float]:
        draw = self._rng.random
        return [draw() for _ in range(count)]
