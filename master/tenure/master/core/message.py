"""What partitions say to each other through their outboxes: plain data, journaled as it is.

A message travels at least once and takes effect exactly once (``outbox``, ``intake``). Fields are
only ever added at the end, with a default, and a change of meaning gets a new tag: masters of two
releases talk to each other.
"""

import msgspec

from tenure.master.core.record import Policy
from tenure.protocol.ids import JobId


class SubmitFrom(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="submit_from"
):
    """A job for a queue of the receiver. Nobody waits for an answer, so it is never refused.

    Its id may be of any age: the sender's outbox keeps it from coming twice.
    """

    policy: Policy
    priority: int
    #: When it is due; a time that has passed is now.
    ready_ms: int
    job_id: JobId
    payload: bytes
    key: str = ""
    limit_key: str = ""
    sticky_key: str = ""


class RegisterChild(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="register_child"
):
    """A child of the sender waits for a parent of the receiver: keep the parent, tell its state."""

    parent: JobId
    child: JobId
    #: The child's run that asks.
    run: int


class ParentState(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="parent_state"
):
    """What has become of a parent of the sender, for a child of the receiver."""

    parent: JobId
    child: JobId
    #: The child's run that asked.
    run: int
    #: A code of ``dependency``.
    state: int


class ReleaseParent(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="release_parent"
):
    """A child of the sender has ended: a parent of the receiver need not be kept for it."""

    parent: JobId
    child: JobId
    run: int


class CancelFrom(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="cancel_from"
):
    """A job of the receiver is to be cancelled, if it has not ended."""

    job_id: JobId
    reason: str


Message = SubmitFrom | RegisterChild | ParentState | ReleaseParent | CancelFrom
