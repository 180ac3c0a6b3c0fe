"""Etcd's key space in the place of a client of it, on virtual time."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.errors import Compacted, EtcdError
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.protocol.fence import Token
from tenure.testing.simetcd.mvcc import Mvcc
from tenure.testing.simetcd.refusal import Refusal

KEYS = ClusterKeys("/t").partition(3)
OFFICE_REVISION = 4
TOKEN = Token(2, OFFICE_REVISION)
STALE = Token(2, OFFICE_REVISION - 1)

#: What happens at a call: nothing, an error instead, an error after it was done, or something
#: else first.
Step = EtcdError | tuple[EtcdError] | Callable[[], object] | None


async def passed(seconds: float) -> None:
    """Virtual time passes."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.call_later(seconds, over.set)
    await over.wait()


class Keyspace:
    """Etcd's keys, in the place of a client.

    Attributes:
        mvcc: The keys.
        steps: What happens at the next calls, one by one; then nothing.
        always: What every call ends in.
        txns: What was asked, and when.
        ranges: What was asked: (key, limit, revision).
        requests: The same, whole.
        compactions: Up to which revisions.
        answer_after_s: How long the next answers take.
    """

    def __init__(self) -> None:
        self.mvcc = Mvcc()
        self.steps: list[Step] = []
        self.always: EtcdError | None = None
        self.txns: list[tuple[float, pb.TxnRequest]] = []
        self.ranges: list[tuple[bytes, object, object]] = []
        self.requests: list[pb.RangeRequest] = []
        self.compactions: list[int] = []
        self.answer_after_s: list[float] = []
        for key, value in ((KEYS.epoch, b"2"), (KEYS.batch(0), b"genesis"), (KEYS.office, b"me")):
            self.put(key, value)
        assert self.mvcc.get(KEYS.office, 99).create_revision == OFFICE_REVISION

    def put(self, key: bytes, value: bytes = b"put") -> None:
        """Writes a key behind the journal's back."""
        self._change(op.put(key, value))

    def delete(self, key: bytes, end: bytes = b"") -> None:
        """Deletes keys behind the journal's back."""
        self._change(op.delete(key, end))

    def _change(self, change: pb.RequestOp) -> None:
        self.mvcc.txn(pb.TxnRequest(success=[change]), self.mvcc.revision)

    async def txn(
        self,
        compare: Sequence[pb.Compare] = (),
        success: Sequence[pb.RequestOp] = (),
        failure: Sequence[pb.RequestOp] = (),
    ) -> pb.TxnResponse:
        request = pb.TxnRequest(compare=compare, success=success, failure=failure)
        self.txns.append((asyncio.get_running_loop().time(), request))
        return await self._answer(lambda: self.mvcc.txn(request, self.mvcc.revision))

    async def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        descending: bool = False,
    ) -> pb.RangeResponse:
        order = pb.RangeRequest.DESCEND if descending else pb.RangeRequest.NONE
        request = pb.RangeRequest(
            key=key,
            range_end=range_end,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            sort_order=order,
        )
        self.ranges.append((key, limit, revision))
        self.requests.append(request)
        return await self._answer(lambda: self.mvcc.range(request, self.mvcc.revision))

    async def compact(self, revision: int) -> None:
        self.compactions.append(revision)
        await self._answer(pb.TxnResponse)

    async def _answer(self, do: Callable[[], Any]) -> Any:
        step = self.steps.pop(0) if self.steps else self.always
        if isinstance(step, EtcdError):
            raise step
        if callable(step):
            step()
        try:
            answer = do()
        except Refusal as refusal:
            raise Compacted(refusal.detail) from None
        answer.header.revision = self.mvcc.revision
        if self.answer_after_s:
            await passed(self.answer_after_s.pop(0))
        if isinstance(step, tuple):
            raise step[0]
        return answer
