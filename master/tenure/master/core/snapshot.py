"""Snapshots: the persistent state in slices, taken between other events; and the state's hash.

A snapshot is *fuzzy*: its slices show the partition at different times. That is no harm, because
each record carries the seq of the event that last wrote it, and the replay of all events since the
snapshot began skips what a record has seen already. Two orders matter: the head (counters) comes
first, tombstones come after jobs (see ``control.apply_purged``).

A slice is a list that msgpack can carry: its kind, then its content.
"""

from collections.abc import Callable, Iterator
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final, TypeAlias

import msgspec

from tenure.master.core.bulk import BatchRecord
from tenure.master.core.chunk import BYTES_MAX
from tenure.master.core.dependency import Foreign, Registration
from tenure.master.core.format import NEWEST
from tenure.master.core.key import KeyRecord
from tenure.master.core.message import Message
from tenure.master.core.outbox import Numbered, payload_bytes
from tenure.master.core.record import JobRecord, Policy
from tenure.master.core.settings import AnySettings, SettingsKind
from tenure.master.core.state import State, footprint
from tenure.master.core.timetable import ScheduleRecord
from tenure.master.core.workflows import WorkflowRecord
from tenure.protocol.fence import Token

Slice: TypeAlias = list[Any]

#: Tombstones are small: as many as make a slice of a few hundred KiB.
_TOMBSTONES_MAX: Final = 4_096
_POLICY: Final = JobRecord.__struct_fields__.index("policy")
#: Kinds that a release knows that reads the journal's first format only.
_FIRST_KINDS: Final = frozenset({"head", "jobs", "keys", "tombstones"})


class UnknownSlice(Exception):
    """A slice is of a kind that this release does not know."""


class SnapshotCursor:
    """Walks through a partition while it goes on changing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._rows_max = 1
        self._slices = self._walk()

    def next_slice(self, rows_max: int) -> Slice | None:
        """The next part of about ``rows_max`` rows, fewer large ones; None: that was all."""
        self._rows_max = max(rows_max, 1)
        return next(self._slices, None)

    def _walk(self) -> Iterator[Slice]:
        state = self._state
        yield ["head", state.next_seq, state.next_ordinal, state.stamp_ms, list(state.token)]
        yield from self._walk_jobs()
        names = state.keys.standing(state.stamp_ms)
        at = 0
        while at < len(names):
            keys = names[at : at + self._rows_max]
            at += len(keys)
            yield ["keys", [[*name, *record] for name, record in keys]]
        settings = [
            [key, *entry] for kind in SettingsKind for key, entry in state.settings.entries(kind)
        ]
        for at in range(0, len(settings), self._rows_max):
            yield ["settings", settings[at : at + self._rows_max]]
        batches = list(state.batches.values())
        if batches:
            yield ["batches", [list(msgspec.structs.astuple(batch)) for batch in batches]]
        yield from self._walk_schedules()
        yield from self._walk_workflows()
        yield from self._walk_dependencies()
        yield from self._walk_outbox()
        rows: list[bytes] = []
        for prefix in state.tombstones.prefixes():
            rows += state.tombstones.rows(prefix)
            # A bucket holds whatever ids clients have minted in its span.
            while len(rows) >= self._rows_max:
                yield ["tombstones", rows[:_TOMBSTONES_MAX]]
                rows = rows[_TOMBSTONES_MAX:]
        if rows:
            yield ["tombstones", rows]

    def _walk_schedules(self) -> Iterator[Slice]:
        records = self._state.timetable.records
        rows: list[list[Any]] = []
        size = 0
        for key in list(records):
            record = records.get(key)
            if record is None:
                continue
            rows.append(list(msgspec.structs.astuple(record)))
            size += record.footprint
            if len(rows) >= self._rows_max or size >= BYTES_MAX:
                yield ["schedules", rows]
                rows, size = [], 0
        if rows:
            yield ["schedules", rows]

    def _walk_workflows(self) -> Iterator[Slice]:
        records = list(self._state.workflows.records.values())
        for at in range(0, len(records), self._rows_max):
            part = records[at : at + self._rows_max]
            yield ["workflows", [list(msgspec.structs.astuple(record)) for record in part]]

    def _walk_dependencies(self) -> Iterator[Slice]:
        """What is known of jobs elsewhere: after the jobs here, which the events write first."""
        dependencies = self._state.dependencies
        children = list(dependencies.foreign)
        for at in range(0, len(children), self._rows_max):
            part = children[at : at + self._rows_max]
            known = [(child, dependencies.foreign.get(child)) for child in part]
            yield [
                "foreign",
                [[c, msgspec.structs.astuple(entry)] for c, entry in known if entry is not None],
            ]
        pairs = [(p, c) for p, children in dependencies.registered.items() for c in children]
        for at in range(0, len(pairs), self._rows_max):
            rows = []
            for parent, child in pairs[at : at + self._rows_max]:
                entry = dependencies.registered.get(parent, {}).get(child)
                if entry is not None:
                    rows.append([parent, child, *msgspec.structs.astuple(entry)])
            yield ["registered", rows]

    def _walk_outbox(self) -> Iterator[Slice]:
        state = self._state
        marks = [[source, *mark] for source, mark in state.inbox.rows()]
        if marks:
            yield ["inbox", marks]
        for target, next_number, _ in list(state.outbox.lines()):
            # What is appended from now on is replayed.
            at = 0
            while at < next_number - 1:
                size, part = 0, []
                for row in state.outbox.waiting(target, at, self._rows_max):
                    if row.number >= next_number or size >= BYTES_MAX:
                        break
                    size += payload_bytes(row.message)
                    part.append(row)
                at = part[-1].number if part else next_number - 1
                yield ["outbox", target, at + 1, [list(row) for row in part]]

    def _walk_jobs(self) -> Iterator[Slice]:
        jobs = self._state.jobs
        job_ids = list(jobs)
        at = 0
        while at < len(job_ids):
            end = at + self._rows_max
            policies: dict[Policy, int] = {}
            policy, place = None, 0
            rows = []
            size = 0
            while at < min(end, len(job_ids)) and size < BYTES_MAX:
                record = jobs.get(job_ids[at])
                at += 1
                if record is not None:
                    if record.policy is not policy:
                        # Telling equal ones takes long.
                        policy = record.policy
                        if policy not in policies:
                            policies[policy] = len(policies)
                            size += len(msgspec.msgpack.encode(policy))
                        place = policies[policy]
                    row = list(msgspec.structs.astuple(record))
                    row[_POLICY] = place
                    rows.append(row)
                    size += footprint(record)
            if rows:
                yield ["jobs", list(policies), rows]


def load_slice(state: State, part: Slice) -> None:
    """Takes over one slice, of any snapshot cursor, decoded or not.

    Raises:
        UnknownSlice: It is of no known kind.
    """
    kind, *content = part
    if kind not in _FIRST_KINDS:
        state.format = NEWEST
    match kind:
        case "head":
            state.next_seq, state.next_ordinal, state.stamp_ms = content[:3]
            state.token = Token(*content[3])
        case "jobs":
            policies = [state.intern(msgspec.convert(p, Policy)) for p in content[0]]
            for row in content[1]:
                values = list(row)
                values[_POLICY] = policies[values[_POLICY]]
                record = msgspec.convert(values, JobRecord)
                record.ties = state.intern_ties(record.ties)
                state.jobs[record.job_id] = record
        case "keys":
            for tenant, queue, key, *record in content[0]:
                state.keys.put((tenant, queue, key), KeyRecord(*record))
        case "settings":
            for key, settings, seq in content[0]:
                state.settings.put(tuple(key), msgspec.convert(settings, AnySettings), seq)
        case "schedules":
            for row in content[0]:
                schedule = msgspec.convert(row, ScheduleRecord)
                spec = schedule.spec
                policy = state.intern(spec.policy)
                schedule.spec = msgspec.structs.replace(spec, policy=policy)
                state.timetable.records[schedule.key] = schedule
        case "workflows":
            for row in content[0]:
                workflow = msgspec.convert(row, WorkflowRecord)
                state.workflows.records[workflow.workflow_id] = workflow
        case "batches":
            for row in content[0]:
                batch = msgspec.convert(row, BatchRecord)
                state.batches[batch.batch_id] = batch
        case "foreign":
            for child, entry in content[0]:
                state.dependencies.foreign[child] = msgspec.convert(entry, Foreign)
        case "registered":
            for parent, child, *entry in content[0]:
                children = state.dependencies.registered.setdefault(parent, {})
                children[child] = msgspec.convert(entry, Registration)
        case "inbox":
            for source, number, token in content[0]:
                state.inbox.raise_to(source, number, Token(*token))
        case "outbox":
            target, next_number, rows = content
            messages = [Numbered(number, msgspec.convert(m, Message)) for number, m in rows]
            state.outbox.load(target, next_number, messages)
        case "tombstones":
            for row in content[0]:
                state.tombstones.load(row)
        case _:
            raise UnknownSlice(f"expected a slice of a known kind, got {kind!r}")


def state_hash(state: State) -> bytes:
    """BLAKE2b-128 over all that is persistent, in one order whatever the way to it was.

    Keys and tombstones that do not stand at the stamp are left out: when they are physically
    dropped is no part of the state.
    """
    digest = blake2b(digest_size=16)
    encode = msgspec.msgpack.Encoder().encode
    digest.update(encode([state.next_seq, state.next_ordinal, state.stamp_ms, state.token]))
    for record in sorted(state.jobs.values(), key=lambda record: record.ordinal):
        digest.update(encode(record))
    for item in sorted(state.keys.standing(state.stamp_ms)):
        digest.update(encode(item))
    for kind in SettingsKind:
        for key, entry in sorted(state.settings.entries(kind), key=itemgetter(0)):
            digest.update(encode([key, *entry]))
    for _, schedule in sorted(state.timetable.records.items()):
        digest.update(encode(schedule))
    for _, workflow in sorted(state.workflows.records.items()):
        digest.update(encode(workflow))
    for _, batch in sorted(state.batches.items()):
        digest.update(encode(batch))
    _add_dependencies(state, digest, encode)
    for row in sorted(state.tombstones.standing(state.stamp_ms)):
        digest.update(row)
    return digest.digest()


def _add_dependencies(state: State, digest: blake2b, encode: Callable[[Any], bytes]) -> None:
    """What is known of other partitions; a partition that never met one adds nothing."""
    dependencies = state.dependencies
    for child, foreign in sorted(dependencies.foreign.items()):
        digest.update(encode([child, foreign.seq, foreign.run, foreign.settled]))
        digest.update(encode(sorted(foreign.states.items())))
    for parent, children in sorted(dependencies.registered.items()):
        for child, known in sorted(children.items()):
            digest.update(encode([parent, child, known]))
    for source, mark in state.inbox.rows():
        digest.update(encode([source, mark]))
    for target, next_number, messages in state.outbox.lines():
        digest.update(encode([target, next_number, messages]))
