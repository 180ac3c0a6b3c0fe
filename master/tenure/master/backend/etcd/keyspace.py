"""Where everything lives in etcd: one prefix a cluster, one branch of it a partition.

```
/tenure/cluster                              the bootstrap record, create-only
/tenure/epoch                                the cluster epoch; only a restore raises it
/tenure/members/INCARNATION                  a live master (leased)
/tenure/partitions/0000/office               who leads (leased); its create revision is the token
/tenure/partitions/0000/batch/NNNN           the journal
/tenure/partitions/0000/snapshot             the published snapshot: its id, 0x00, its manifest
/tenure/partitions/0000/slice/ID/NNNN        slices of that snapshot, and of unpublished ones
/tenure/partitions/0000/halted               why nobody may lead
/tenure/partitions/0000/replay               how far a recovery is that has not ended
```
The epoch has a key of its own because every transaction compares it.
"""

from __future__ import annotations

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.etcd import operation as op
from tenure.protocol.fence import Token

DEFAULT_PREFIX = "/tenure"

# Wide enough for any 64-bit number, so that the order of keys is the order of numbers.
_DIGITS = 20


class ClusterKeys:
    """The keys that partitions share.

    Args:
        prefix: what all keys start with; no slash at the end.
    """

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self._root = prefix.rstrip("/").encode()
        #: All of the cluster's keys start with it.
        self.prefix = self._root + b"/"
        self.record = self._root + b"/cluster"
        self.epoch = self._root + b"/epoch"
        self.members = self._root + b"/members/"

    def member(self, incarnation: str) -> bytes:
        """A master's key."""
        return self.members + incarnation.encode()

    def partition(self, partition: int) -> PartitionKeys:
        """The branch of one partition."""
        return PartitionKeys(partition, self._root, self.epoch)

    def epoch_is(self, epoch: int) -> pb.Compare:
        """True while the cluster's epoch is the one given."""
        return op.value_is(self.epoch, b"%d" % epoch)


class PartitionKeys:
    """One partition's keys, and the guard that every mutation of them carries."""

    def __init__(self, partition: int, cluster_root: bytes, epoch: bytes) -> None:
        root = cluster_root + b"/partitions/%04d" % partition
        self.partition = partition
        self.epoch = epoch
        self.office = root + b"/office"
        self.batches = root + b"/batch/"
        self.snapshot = root + b"/snapshot"
        self.slices = root + b"/slice/"
        self.halted = root + b"/halted"
        self.replay = root + b"/replay"

    def batch(self, number: int) -> bytes:
        """The key of a batch."""
        return self.batches + b"%0*d" % (_DIGITS, number)

    def batch_number(self, key: bytes) -> int:
        """The number in a batch's key."""
        return int(key.removeprefix(self.batches))

    def slices_of(self, snapshot_id: str) -> bytes:
        """What the keys of one snapshot's slices start with."""
        return self.slices + snapshot_id.encode() + b"/"

    def slice(self, snapshot_id: str, index: int) -> bytes:
        """The key of a slice."""
        return self.slices_of(snapshot_id) + b"%0*d" % (_DIGITS, index)

    def guard(self, token: Token) -> list[pb.Compare]:
        """True while ``token`` holds the office: the same key, not one that was won later."""
        return [
            # Without this, revision 0 would mean "nobody holds it".
            op.exists(self.office),
            op.created_at(self.office, token.revision),
            self.epoch_is(token.epoch),
        ]

    def epoch_is(self, epoch: int) -> pb.Compare:
        """True while the cluster's epoch is the one given."""
        return op.value_is(self.epoch, b"%d" % epoch)
