"""All workers' streams of one master, and the terms they are opened to.

Credit belongs to a stream, so the terms of one master share it through the hub: whichever turns
first spends it. Terms see streams only by their session ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenure.master.core.command import (
    CloseSession,
    Command,
    DrainSession,
    MarkSession,
    OpenSession,
    UndrainSession,
)
from tenure.master.node.link import WorkerLink
from tenure.protocol.fence import Token
from tenure.protocol.token_wire import token_to_wire
from tenure.v1 import worker_pb2

if TYPE_CHECKING:
    from tenure.master.node.term import Term


class WorkerHub:
    """The streams of this master process."""

    def __init__(self) -> None:
        self._links: dict[int, WorkerLink] = {}
        #: Links with credit, in the order they got it (a dict for its order).
        self._creditors: dict[int, WorkerLink] = {}
        self._last_session_id = 0
        #: Terms that workers may talk to, by partition.
        self.terms: dict[int, Term] = {}
        #: Grants sent in all.
        self.granted_total = 0

    # Streams.

    def connect(self, hello: worker_pb2.Hello, now_ms: int = 0) -> WorkerLink:
        """A new stream, at a time of the boot clock; it is opened to every term that is open."""
        self._last_session_id += 1
        link = WorkerLink(self._last_session_id, hello, now_ms)
        self._links[link.session_id] = link
        for term in self.terms.values():
            self._introduce(link, term)
        return link

    def disconnect(self, link: WorkerLink) -> None:
        """A stream has ended; its leases stay as they are."""
        self._links.pop(link.session_id, None)
        self._creditors.pop(link.session_id, None)
        self._tell_terms(CloseSession(session_id=link.session_id))
        link.rouse()

    def get(self, session_id: int) -> WorkerLink | None:
        """A stream by its session id."""
        return self._links.get(session_id)

    def links(self) -> list[WorkerLink]:
        """All streams."""
        return list(self._links.values())

    def argument_schema(self, job_name: str) -> str:
        """What a job takes as all workers say that run it; "": one does not, or another thing."""
        said = {
            link.hello.argument_schemas.get(job_name, "")
            for link in self._links.values()
            if job_name in link.hello.job_names
        }
        return said.pop() if len(said) == 1 else ""

    # What workers say of themselves.

    def take_vitals(self, link: WorkerLink, vitals: worker_pb2.Vitals, now_ms: int) -> None:
        """A worker told how it does; the terms hear whether it takes work."""
        draining, quarantine = link.draining, link.quarantine
        link.take_vitals(vitals, now_ms)
        session_id = link.session_id
        if link.draining is not draining:
            self._tell_terms(
                DrainSession(session_id=session_id)
                if link.draining
                else UndrainSession(session_id=session_id)
            )
        # The time that it has lasted is no news.
        if (said := _mark(link)) != quarantine and (said or quarantine):
            link.quarantine = said
            self._tell_terms(_marking(link) or MarkSession(session_id=session_id, reason=None))

    def _tell_terms(self, command: Command) -> None:
        for term in self.terms.values():
            term.post(command)

    # Credit.

    def take_credit(self, link: WorkerLink, limit: worker_pb2.CreditLimit) -> None:
        """A worker said how much it would take."""
        link.take_credit(limit)
        self._sort_in(link)
        for term in self.terms.values():
            term.nudge()

    def spend(self, session_id: int, grants: int) -> None:
        """Counts grants against a stream's credit, from their decision on."""
        self.granted_total += grants
        link = self._links.get(session_id)
        if link is not None:
            link.spend(grants)
            self._sort_in(link)

    def refund(self, session_id: int, grants: int) -> None:
        """Gives credit back: the grants will never be sent."""
        link = self._links.get(session_id)
        if link is not None:
            link.refund(grants)
            self._sort_in(link)

    def credits(self) -> list[tuple[int, int]]:
        """(session id, credit) of all streams that have some."""
        return [(link.session_id, link.credit) for link in self._creditors.values()]

    def has_credit(self) -> bool:
        """Whether any stream would take a grant."""
        return bool(self._creditors)

    def _sort_in(self, link: WorkerLink) -> None:
        if link.credit > 0:
            self._creditors[link.session_id] = link
        else:
            self._creditors.pop(link.session_id, None)

    # Terms.

    def open_partition(self, term: Term) -> None:
        """A term serves: every worker is told and declares its leases."""
        self.terms[term.number] = term
        for link in self._links.values():
            self._introduce(link, term)

    def close_partition(self, partition: int, token: Token, hint: str) -> None:
        """A term has ended: every worker is told."""
        self.terms.pop(partition, None)
        for link in self._links.values():
            link.envelope().closed.add(partition=partition, token=token_to_wire(token), hint=hint)

    def close_all(self) -> None:
        """Ends every stream after what is queued has been sent."""
        for link in self._links.values():
            link.close()

    def _introduce(self, link: WorkerLink, term: Term) -> None:
        hello = link.hello
        link.envelope().opened.add(partition=term.number, token=token_to_wire(term.token))
        term.post(
            OpenSession(
                session_id=link.session_id,
                incarnation=hello.incarnation,
                worker=hello.name,
                job_names=frozenset(hello.job_names),
                queues=frozenset(hello.queues),
                slots=hello.slots,
                labels=tuple(sorted(hello.labels.items())),
            )
        )
        if link.draining:
            term.post(DrainSession(session_id=link.session_id))
        marking = _marking(link)
        if marking is not None:
            term.post(marking)


def _mark(link: WorkerLink) -> tuple[str, bool] | None:
    """Why a worker is in quarantine by its own word, and whether an operator wants it."""
    vitals = link.vitals
    if vitals is None or not vitals.HasField("quarantine"):
        return None
    return vitals.quarantine.reason, vitals.quarantine.by_hand


def _marking(link: WorkerLink) -> MarkSession | None:
    """What the terms are told of a worker in quarantine."""
    if link.vitals is None or link.quarantine is None:
        return None
    reason, by_hand = link.quarantine
    for_ms = max(0, link.vitals.quarantine.for_ms)
    return MarkSession(session_id=link.session_id, reason=reason, by_hand=by_hand, for_ms=for_ms)
