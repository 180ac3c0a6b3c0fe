"""A worker's stream: envelopes."""

from tenure.master.node.link import WorkerLink
from tenure.protocol.fence import Token
from tenure.v1 import worker_pb2


def test_terms_of_one_partition_do_not_share_an_instruction() -> None:
    """What a new term says travels under its own token, though the old one's has not been sent."""
    link = WorkerLink(1, worker_pb2.Hello())
    link.instruction(0, Token(1, 5)).heartbeat_ack.number = 1
    link.instruction(0, Token(1, 9)).hold.number = 2
    link.instruction(0, Token(1, 9)).backlog = 3
    (envelope,) = link._envelopes
    said = [(part.token.revision, part.hold.number) for part in envelope.instructions]
    assert said == [(5, 0), (9, 2)]
