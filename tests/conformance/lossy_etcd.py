"""Stores and a client for the tests of the store in etcd: answers get lost on request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.errors import OutcomeUnknown
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.election.etcd import EtcdElection, EtcdOffice
from tenure.master.election.port import Candidate
from tenure.master.etcd_store import EtcdStore, EtcdUrl, open_etcd_store
from tenure.master.journal.etcd import EtcdJournal
from tenure.master.journal.port import HaltRecord, SealedBatch
from tenure.protocol.fence import Token
from tests.conformance.etcd_site import Site

ALICE = Candidate(incarnation="11111111", name="alice", address="127.0.0.1:1")
BOB = Candidate(incarnation="22222222", name="bob", address="127.0.0.1:2")


@asynccontextmanager
async def opened(
    site: Site, candidate: Candidate = ALICE, *, partitions: int | None = None, ttl_s: int = 6
) -> AsyncIterator[EtcdStore]:
    """A store, closed at the end."""
    store = await open_etcd_store(
        site.url,
        candidate,
        partitions=partitions,
        wall_ms=1_000,
        office_ttl_s=ttl_s,
        dial=site.dial,
    )
    try:
        yield store
    finally:
        await store.close()


class LossyClient(EtcdClient):
    """A client whose next transactions lose their request, or their answer, as told."""

    def __init__(self, site: Site) -> None:
        parsed = EtcdUrl.parse(site.url)
        super().__init__(parsed.endpoints, tls=parsed.trust(), dial=site.dial)
        self.keys = ClusterKeys(parsed.prefix)
        #: One word a transaction, first come first served: "pass", "drop" or "mute".
        self.script: list[str] = []
        #: Runs once, after the next mute transaction has been applied.
        self.after_mute: Callable[[], Awaitable[object]] | None = None
        self.sent = 0

    async def txn(
        self,
        compare: Sequence[pb.Compare] = (),
        success: Sequence[pb.RequestOp] = (),
        failure: Sequence[pb.RequestOp] = (),
    ) -> pb.TxnResponse:
        self.sent += 1
        word = self.script.pop(0) if self.script else "pass"
        if word == "drop":
            raise OutcomeUnknown("the request was lost")
        answer = await super().txn(compare, success, failure)
        if word == "mute":
            if self.after_mute is not None:
                hook, self.after_mute = self.after_mute, None
                await hook()
            raise OutcomeUnknown("the answer was lost")
        return answer


def batch(number: int, text: str = "") -> SealedBatch:
    """A batch as the journal sees it: bytes."""
    return SealedBatch(number=number, data=f"batch {number} {text}".encode())


async def numbers(journal: EtcdJournal, first: int = 0) -> list[int]:
    """The numbers that a read yields."""
    return [sealed.number async for sealed in journal.read(first)]


async def won(election: EtcdElection) -> EtcdOffice:
    """Campaign, and win."""
    office = await election.campaign()
    assert office is not None
    return office


#: Every kind of guarded mutation, once.
MUTATIONS: dict[str, Callable[[EtcdJournal, Token], Awaitable[object]]] = {
    "append": lambda journal, token: journal.append(token, batch(3, "mine")),
    "write_slice": lambda journal, token: journal.write_slice(token, "s2", 0, b"mine"),
    "publish_snapshot": lambda journal, token: journal.publish_snapshot(token, "s2", b"mine"),
    "truncate": lambda journal, token: journal.truncate(token, 2),
    "truncate nothing": lambda journal, token: journal.truncate(token, 0),
    "halt": lambda journal, token: journal.halt(token, HaltRecord(batch_number=1, detail="mine")),
}
