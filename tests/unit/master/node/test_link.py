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


def test_a_limit_is_acknowledged_behind_the_grants_by_the_one_before() -> None:
    """A worker that takes no more may end when its last limit is acknowledged: nothing follows."""
    link = WorkerLink(1, worker_pb2.Hello())
    link.take_credit(worker_pb2.CreditLimit(number=1, limit=4))
    assert link._envelopes.pop().credit_acked == 1
    link.spend(3)
    link.take_credit(worker_pb2.CreditLimit(number=2, limit=0))
    link.take_credit(worker_pb2.CreditLimit(number=3, limit=1))
    link.settle(1)
    assert not link._envelopes
    link.refund(1)
    link.spend(1)
    assert not link._envelopes
    link.settle(1)
    assert link._envelopes.pop().credit_acked == 3


def test_limits_that_wait_for_the_same_grant_are_kept_as_one() -> None:
    """A worker may change its mind as often as it likes while a grant waits for its commit."""
    link = WorkerLink(1, worker_pb2.Hello())
    link.spend(1)
    for number in range(1, 1_001):
        link.take_credit(worker_pb2.CreditLimit(number=number, limit=number))
    assert len(link._unacked) == 1
    link.settle(1)
    assert link._envelopes.pop().credit_acked == 1_000
