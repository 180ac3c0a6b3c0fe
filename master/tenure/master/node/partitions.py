"""PartitionService: takes the messages of other partitions for those that are led here."""

import asyncio
from collections.abc import Sequence
from functools import partial

import msgspec

from tenure.master.core.command import TakeMessage
from tenure.master.core.effect import Reply, Taken
from tenure.master.core.message import Message
from tenure.master.core.outbox import Numbered, payload_bytes
from tenure.master.node.roster import Roster
from tenure.master.node.term import Term
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason
from tenure.protocol.token_wire import token_of
from tenure.v1 import partition_pb2

#: Messages in one request.
MESSAGES_MAX = 64

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Message)


class PartitionApi:
    """The masters' service for each other, without gRPC.

    Args:
        roster: Finds the term of a partition, or says who leads it.
    """

    def __init__(self, *, roster: Roster) -> None:
        self._roster = roster

    async def deliver(self, request: partition_pb2.DeliverRequest) -> partition_pb2.DeliverResponse:
        """Takes messages for a partition that is led here; returns when they are durable.

        Raises:
            Rejected: The request is malformed.
            Fenced: A later term of the source has been heard of.
            Unavailable: Another master leads the target, or it takes no messages now.
        """
        term = self._roster.term(request.target)
        if not 0 < len(request.messages) <= MESSAGES_MAX or request.source == request.target:
            raise Rejected(
                f"expected 1 to {MESSAGES_MAX} messages of another partition than "
                f"{request.target}, got {len(request.messages)} of {request.source}",
                reason=Reason.INVALID_ARGUMENT,
                field="messages",
            )
        token = token_of(request.token)
        rows = [_decoded(wire) for wire in request.messages]
        taken = await take(term, request.source, token, rows)
        return partition_pb2.DeliverResponse(taken_number=taken)


def request_of(
    source: int, target: int, token: Token, rows: Sequence[Numbered]
) -> partition_pb2.DeliverRequest:
    """What a courier sends to another master."""
    request = partition_pb2.DeliverRequest(source=source, target=target)
    request.token.epoch, request.token.revision = token
    for number, message in rows:
        request.messages.add(number=number, body=_encode(message))
    return request


async def take(term: Term, source: int, token: Token, rows: Sequence[Numbered]) -> int:
    """Has a term take messages, in order; returns when those that it took have committed.

    Returns:
        The number up to which all have been taken.

    Raises:
        TenureError: Not even the first of them was taken.
    """
    replies: dict[int, Reply | TenureError] = {}
    answered = asyncio.Event()

    def answer(number: int, reply: Reply | TenureError) -> None:
        replies[number] = reply
        if len(replies) == len(rows):
            answered.set()

    # Each names the one before it, so that nothing is taken behind one that was turned away.
    after = 0
    for number, message in rows:
        command = TakeMessage(
            source=source, token=token, number=number, after=after, message=message
        )
        term.post(command, partial(answer, number), size=payload_bytes(message))
        after = number
    await answered.wait()
    taken = 0
    for number, _ in rows:
        reply = replies[number]
        if isinstance(reply, Taken):
            taken = reply.number
        elif taken:
            break
        elif isinstance(reply, TenureError):
            raise reply
    return taken


def _decoded(wire: partition_pb2.PartitionMessage) -> Numbered:
    try:
        return Numbered(wire.number, _decoder.decode(wire.body))
    except msgspec.DecodeError as error:
        raise Unavailable(
            f"expected to read message {wire.number} of another partition, but {error}; it was "
            "written by a newer release: upgrade this master",
            reason=Reason.OUT_OF_ORDER,
            metadata={"number": str(wire.number)},
            retry_after_ms=2_000,
        ) from error
