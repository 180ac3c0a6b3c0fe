"""WorkersService: who works, how they do, and whether they get work.

What a worker says of itself is its stream's (``link``); what it runs of a partition, the term's. A
drain is remembered by nobody here: the worker does, and tells all masters (``worker/arbiter.py``).
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote, unquote

from tenure.master.core.query import SessionStatus
from tenure.master.node.hub import WorkerHub
from tenure.master.node.link import WorkerLink
from tenure.master.node.paging import page_size, page_token, place_of
from tenure.master.node.port import Clock
from tenure.master.node.roster import Roster
from tenure.master.node.term import Term
from tenure.master.node.translate import invalid, stamp
from tenure.protocol.errors import Rejected, Unavailable
from tenure.protocol.refusal import Reason
from tenure.v1 import worker_pb2, workers_pb2

#: So many of a worker's leases are shown.
_LEASES_SHOWN: Final = 1_000
#: A worker that is told something answers at once; one that has not by then may be frozen.
_ANSWER_S: Final = 2.0
#: When who was not answered may ask again.
_AGAIN_MS: Final = 1_000
_REASON_CHARS_MAX: Final = 256
#: So many are named where a name is not enough, or is not known.
_NAMED_MOST: Final = 5


class FleetApi:
    """The workers' service, without gRPC: messages in, messages out, errors raised.

    Args:
        roster: Finds the term of a partition, or says who leads it.
        hub: The workers' streams.
        clock: For ages.
    """

    def __init__(self, *, roster: Roster, hub: WorkerHub, clock: Clock) -> None:
        self._roster = roster
        self._hub = hub
        self._clock = clock

    async def list_workers(
        self, request: workers_pb2.ListWorkersRequest
    ) -> workers_pb2.ListWorkersResponse:
        """A page of those connected, in order of name and incarnation. Waits for no commit."""
        size = page_size(request.page_size)
        listed = f"ListWorkers/{request.partition}"
        after = tuple(map(unquote, place_of(request.page_token, listed, 2)))
        term = self._roster.term(request.partition)
        links = sorted((_key(link), link) for link in self._links())
        links = [row for row in links if row[0] > after]
        response = workers_pb2.ListWorkersResponse()
        sessions = _sessions(term)
        for _, link in links[:size]:
            self._fill(response.workers.add(), link, term, sessions)
        if len(links) > size:
            key = links[size - 1][0]
            response.next_page_token = page_token(listed, *(quote(each, safe="") for each in key))
        return response

    async def get_worker(
        self, request: workers_pb2.GetWorkerRequest
    ) -> workers_pb2.GetWorkerResponse:
        """One worker, with what it runs of a partition.

        Raises:
            Rejected: NOT_FOUND, or WORKER_AMBIGUOUS.
        """
        term = self._roster.term(request.partition)
        link = self._find(request.worker)
        response = workers_pb2.GetWorkerResponse()
        worker = response.worker
        self._fill(worker, link, term, _sessions(term))
        worker.job_names.extend(link.hello.job_names)
        for record, holding in term.partition.held_by(link.session_id, _LEASES_SHOWN):
            policy = record.policy
            row = worker.running.add(
                job_id=record.job_id,
                name=policy.name,
                tenant=policy.tenant,
                queue=policy.queue,
                attempt=record.attempt,
                progress=holding.progress,
            )
            stamp(row.granted_at, record.granted_ms)
            stamp(row.started_at, holding.started_ms)
        await term.readable(term.partition.next_seq - 1)
        return response

    async def drain_worker(
        self, request: workers_pb2.DrainWorkerRequest
    ) -> workers_pb2.DrainWorkerResponse:
        """Has a worker take nothing more; returns when it has said so.

        Raises:
            Rejected: NOT_FOUND, WORKER_AMBIGUOUS, or WRONG_STATE: it tells no vitals.
            Unavailable: It has not answered.
        """
        link = self._told(request.worker)
        link.envelope().drain.SetInParent()
        await self._until(link, lambda vitals: vitals.drained, "drain")
        return workers_pb2.DrainWorkerResponse()

    async def undrain_worker(
        self, request: workers_pb2.UndrainWorkerRequest
    ) -> workers_pb2.UndrainWorkerResponse:
        """Has a drained worker take work again; returns when it has said so.

        Raises:
            Rejected: As ``drain_worker``.
            Unavailable: As ``drain_worker``.
        """
        link = self._told(request.worker)
        link.envelope().undrain.SetInParent()
        await self._until(link, lambda vitals: not vitals.drained, "work again")
        return workers_pb2.UndrainWorkerResponse()

    async def quarantine_worker(
        self, request: workers_pb2.QuarantineWorkerRequest
    ) -> workers_pb2.QuarantineWorkerResponse:
        """Has nothing more given to a worker; returns when it has said that it knows.

        Raises:
            Rejected: As ``drain_worker``; or the reason is too long.
            Unavailable: As ``drain_worker``.
        """
        if len(request.reason) > _REASON_CHARS_MAX:
            raise invalid("reason", f"at most {_REASON_CHARS_MAX} characters")
        link = self._told(request.worker)
        wish = link.envelope().quarantine
        wish.reason, wish.by_hand = request.reason, True
        await self._until(link, lambda vitals: vitals.quarantine.by_hand, "be in quarantine")
        return workers_pb2.QuarantineWorkerResponse()

    async def release_worker(
        self, request: workers_pb2.ReleaseWorkerRequest
    ) -> workers_pb2.ReleaseWorkerResponse:
        """Ends a worker's quarantine; returns when it has said so.

        Raises:
            Rejected: As ``drain_worker``.
            Unavailable: As ``drain_worker``.
        """
        link = self._told(request.worker)
        link.envelope().quarantine.lifted = True
        await self._until(link, lambda vitals: not vitals.HasField("quarantine"), "be released")
        return workers_pb2.ReleaseWorkerResponse()

    def _links(self) -> Iterable[WorkerLink]:
        """The newest stream of each worker."""
        return {link.hello.incarnation: link for link in self._hub.links()}.values()

    def _find(self, worker: str) -> WorkerLink:
        """A worker by its incarnation or its name."""
        found = {link.hello.incarnation: link for link in self._links()}
        if worker in found:
            return found[worker]
        named = sorted(i for i, link in found.items() if link.hello.name == worker)
        if len(named) == 1:
            return found[named[0]]
        if named:
            shown = _some(named)
            raise Rejected(
                f"expected one worker named {worker}, but {len(named)} are: {shown}; name one of "
                "them by its incarnation",
                reason=Reason.WORKER_AMBIGUOUS,
                metadata={"worker": worker, "workers": str(len(named)), "incarnations": shown},
                field="worker",
            )
        near = _near(worker, sorted({link.hello.name for link in found.values()}))
        meant = f"; did you mean {near}?" if near else "; see `tenure workers list`"
        raise Rejected(
            f"expected a connected worker named {worker}, but none of {len(found)} is{meant}",
            reason=Reason.NOT_FOUND,
            metadata={"worker": worker, "workers": str(len(found)), "near": near},
            field="worker",
        )

    def _told(self, worker: str) -> WorkerLink:
        """One that can be told something: it answers with its vitals."""
        link = self._find(worker)
        if link.vitals is None:
            raise Rejected(
                f"expected worker {worker} to tell how it does, but it never has: its release "
                "cannot be drained from here; end it with SIGTERM instead",
                reason=Reason.WRONG_STATE,
                metadata={"worker": worker},
                field="worker",
            )
        return link

    async def _until(
        self, link: WorkerLink, heard: Callable[[worker_pb2.Vitals], bool], what: str
    ) -> None:
        """Waits for the worker's answer."""
        name = link.hello.name
        try:
            async with asyncio.timeout(_ANSWER_S):
                while True:
                    await link.news()
                    if self._hub.get(link.session_id) is not link:
                        break
                    if link.vitals is not None and heard(link.vitals):
                        return
        except TimeoutError:
            pass
        raise Unavailable(
            f"expected worker {name} to say within {_ANSWER_S:g} s that it is to {what}, but it "
            "has not: it may yet; ask again, or look at it with `tenure workers get`",
            reason=Reason.DEADLINE_EXCEEDED,
            metadata={"worker": name, "timeout_s": f"{_ANSWER_S:g}"},
            retry_after_ms=_AGAIN_MS,
        )

    def _fill(
        self,
        worker: workers_pb2.Worker,
        link: WorkerLink,
        term: Term,
        sessions: dict[int, SessionStatus],
    ) -> None:
        """All but the names of its jobs, and what it runs."""
        hello, boot_ms = link.hello, self._clock.boot_ms()
        worker.incarnation, worker.name = hello.incarnation, hello.name
        worker.partition = term.number
        worker.queues.extend(hello.queues)
        worker.labels.update(hello.labels)
        worker.build_id, worker.slots = hello.build_id, hello.slots
        worker.job_name_count = len(hello.job_names)
        stamp(worker.connected_at, self._clock.wall_ms() - (boot_ms - link.connected_ms))
        session = sessions.get(link.session_id)
        if session is not None:
            worker.leases = session.leases
            if session.heartbeat_ms:
                age_ms = max(0, term.clock.now_ms() - session.heartbeat_ms)
                worker.heartbeat_age.FromMilliseconds(age_ms)
        if link.vitals is not None:
            worker.vitals.CopyFrom(link.vitals)
            worker.vitals_age.FromMilliseconds(max(0, boot_ms - link.vitals_ms))
        worker.state = _state(link, worker.leases)


def _state(link: WorkerLink, leases: int) -> workers_pb2.WorkerState:
    """What a worker's vitals and leases come to."""
    vitals = link.vitals
    if vitals is not None and link.draining:
        if leases or vitals.slots_used:
            return workers_pb2.WORKER_STATE_DRAINING
        return workers_pb2.WORKER_STATE_DRAINED
    if vitals is not None and vitals.HasField("quarantine"):
        return workers_pb2.WORKER_STATE_QUARANTINED
    if vitals is not None and vitals.HasField("loop_blocked"):
        return workers_pb2.WORKER_STATE_BLOCKED
    return workers_pb2.WORKER_STATE_ACTIVE


def _key(link: WorkerLink) -> tuple[str, str]:
    return link.hello.name, link.hello.incarnation


def _sessions(term: Term) -> dict[int, SessionStatus]:
    return {session.session_id: session for session in term.partition.sessions()}


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_MOST
    return ", ".join(names[:_NAMED_MOST]) + (f" and {more} more" if more > 0 else "")


def _near(name: str, known: list[str]) -> str:
    """Which may be meant; empty: none is like it."""
    import difflib

    return " or ".join(difflib.get_close_matches(name, known, n=3))
