"""Listens at the masters' ends of their workers' streams, for those who judge the run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from tenure.testing.call import Call
from tenure.testing.network import SimNetwork
from tenure.v1 import common_pb2
from tenure.v1.worker_pb2 import LeaseRef, SessionRequest, SessionResponse
from tests.oracles.word import Word

_LOST = common_pb2.ATTEMPT_OUTCOME_LOST
_Leases = tuple[tuple[str, str], ...]


class Wiretap:
    """Keeps what is read and said; what it means is asked for when all is over.

    Args:
        network: Where to listen.
    """

    def __init__(self, network: SimNetwork) -> None:
        self._network = network
        self._caught: list[tuple[float, Call, Any]] = []
        network.tap = self._catch

    def _catch(self, call: Call, message: Message) -> None:
        if isinstance(message, SessionRequest | SessionResponse):
            self._caught.append((self._network.now_s() * 1000, call, message))

    def words(self) -> list[Word]:
        """What was said of leases, in order."""
        numbers: dict[Call, int] = {}
        beats: dict[tuple[int, int, int], tuple[float, _Leases]] = {}
        words: list[Word] = []
        for at_ms, call, message in self._caught:
            number = numbers.setdefault(call, len(numbers))
            if isinstance(message, SessionRequest):
                for update in message.updates:
                    if update.HasField("heartbeat"):
                        beat = update.heartbeat
                        listed = _leases((row.lease for row in beat.held.leases), update.token)
                        beats[number, update.partition, beat.number] = at_ms, listed
                    lost = [row.lease for row in update.reports if row.outcome == _LOST]
                    if lost:
                        token = _digits(update.token)
                        read = at_ms, call.server, number, update.partition, token
                        words.append(Word(*read, "lost", _leases(lost, update.token)))
                continue
            for part in message.instructions:
                token = _digits(part.token)
                said = (at_ms, call.server, number, part.partition, token)
                for kind in ("heartbeat_ack", "hold"):
                    if part.HasField(kind):
                        answered = number, part.partition, getattr(part, kind).number
                        heard_ms, listed = beats.get(answered, (at_ms, ()))
                        name = "ack" if kind == "heartbeat_ack" else kind
                        words.append(Word(*said, name, listed, heard_ms))
                lost = [one.lease for one in part.revokes if not one.unless_started]
                if lost:
                    words.append(Word(*said, "revoke", _leases(lost, part.token)))
                for safe in part.checkpoint_acks:
                    lease = _leases([safe.lease], part.token)
                    words.append(Word(*said, "saved", lease, number=safe.number))
        return words


def _leases(refs: Iterable[LeaseRef], own: common_pb2.Token) -> _Leases:
    return tuple(
        (
            ref.job_id,
            f"{_digits(ref.token if ref.HasField('token') else own)}{ref.seq:016x}{ref.run:08x}",
        )
        for ref in refs
    )


def _digits(token: common_pb2.Token) -> str:
    return f"{token.epoch:08x}{token.revision:016x}"
