"""What a failed call to etcd means: told from its status and text, and never too sure."""

import grpc
import pytest

from tenure.master.backend.etcd.errors import (
    Compacted,
    EtcdError,
    FutureRevision,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    OutcomeUnknown,
    Refused,
    Unavailable,
    error_of,
)

S = grpc.StatusCode

DEFINITE: list[tuple[grpc.StatusCode, str, type[EtcdError]]] = [
    (S.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Compacted),
    (S.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", FutureRevision),
    (S.NOT_FOUND, "etcdserver: requested lease not found", LeaseNotFound),
    (S.FAILED_PRECONDITION, "etcdserver: lease already exists", LeaseExists),
    (S.INVALID_ARGUMENT, "etcdserver: request is too large", Refused),
    (S.PERMISSION_DENIED, "etcdserver: permission denied", Refused),
    (S.UNAUTHENTICATED, "etcdserver: invalid auth token", Refused),
    (S.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 8)", Refused),
    (S.UNAVAILABLE, "etcdserver: no leader", Unavailable),
    (S.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Unavailable),
]

IN_THE_DARK = [
    (S.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    (S.UNAVAILABLE, "Socket closed"),
    (S.UNAVAILABLE, "failed to connect to all addresses"),
    (S.UNAVAILABLE, "etcdserver: request timed out"),
    (S.UNAVAILABLE, "etcdserver: leader changed"),
    (S.UNAVAILABLE, "etcdserver: server stopped"),
    (S.UNKNOWN, "raft proposal dropped"),
    (S.CANCELLED, "context canceled"),
    (S.INTERNAL, "stream reset"),
    (S.DATA_LOSS, "etcdserver: corrupt cluster"),
]


@pytest.mark.parametrize(("code", "detail", "kind"), DEFINITE)
def test_what_etcd_turned_down_changed_nothing(
    code: grpc.StatusCode, detail: str, kind: type[EtcdError]
) -> None:
    """A refusal that comes before the proposal is definite, for reads and mutations alike."""
    for mutates in (True, False):
        error = error_of(code, detail, mutates=mutates)
        assert type(error) is kind
        assert not error.outcome_unknown
        assert detail in str(error)


@pytest.mark.parametrize(("code", "detail"), IN_THE_DARK)
def test_a_mutation_without_a_clear_answer_is_unknown(code: grpc.StatusCode, detail: str) -> None:
    """Whatever is not known to be a refusal may have been applied; a read just has no answer."""
    assert type(error_of(code, detail, mutates=True)) is OutcomeUnknown
    assert type(error_of(code, detail, mutates=False)) is Unavailable


def test_no_space_is_no_refusal() -> None:
    """Etcd says so of the very transaction that it has applied last."""
    detail = "etcdserver: mvcc: database space exceeded"
    error = error_of(S.RESOURCE_EXHAUSTED, detail, mutates=True)
    assert type(error) is NoSpace
    assert error.outcome_unknown
