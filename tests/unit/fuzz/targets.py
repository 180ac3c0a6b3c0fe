"""What is fuzzed: each target takes any bytes, and raises only if the product did what it may not.

Hypothesis drives them in ``test_fuzz``, and atheris by coverage in ``python -m tests.unit.fuzz``.
"""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from tenure.master.backend.errors import CorruptJournal, FormatTooNew
from tenure.master.journal import frame
from tenure.master.journal.codec import decode_events
from tenure.master.journal.port import SealedBatch, SnapshotRef
from tenure.master.node import filter as filters
from tenure.protocol.errors import Rejected
from tenure.testing.loop import run_virtual
from tenure.v1 import worker_pb2
from tests.encoded import encode_events
from tests.unit.master.node.term_rig import leading
from tests.unit.worker.rig import Rig

#: What a decoder may take besides a multiple of its input: classes that are made at first use.
_MEMORY_BYTES: Final = 2 * 1024 * 1024
_MEMORY_FACTOR: Final = 200


class Unbounded(AssertionError):
    """A decoder took more memory than its input explains."""


class Hidden(AssertionError):
    """An error that was caught and logged is a crash that nobody sees."""


def bounded(work: Callable[[bytes], None], data: bytes) -> None:
    """Runs a decoder and looks at what memory it took at its peak.

    Raises:
        Unbounded: Too much.
    """
    tracemalloc.start()
    try:
        work(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if peak > _MEMORY_BYTES + _MEMORY_FACTOR * len(data):
        raise Unbounded(f"{peak} bytes for an input of {len(data)}")


def journal(data: bytes) -> None:
    """A batch at rest, a snapshot's parts, and the events of a batch whose checksum is right."""
    body = data[: -min(len(data), 5)]
    for stored in (data, body + frame._trailer_tag(frame.journal_pb2.JournalBatch()) + _crc(body)):
        try:
            record = frame.Chain.start(0).follow(SealedBatch(number=0, data=stored))
            decode_events(record.events)
        except (CorruptJournal, FormatTooNew):
            pass
        try:
            frame.open_snapshot(0, SnapshotRef(manifest=stored, slices=(stored,)))
        except (CorruptJournal, FormatTooNew):
            pass
    try:
        events = decode_events(data)
    except (CorruptJournal, FormatTooNew):
        return
    if decode_events(encode_events(events)) != events:
        raise Hidden(f"{events} come back as others")


def _crc(body: bytes) -> bytes:
    return frame.crc32c(body).to_bytes(4, "little")


def master_session(data: bytes) -> None:
    """A worker's envelope at a leader that has granted a job: afterwards it still serves."""
    try:
        request = worker_pb2.SessionRequest.FromString(data)
    except DecodeError:
        return

    async def main() -> None:
        async with leading() as rig:
            rig.submit(count=2)
            await rig.commit()
            link = rig.connect()
            await rig.commit()
            rig.workers._take(link, request)
            await rig.commit()
            other = rig.connect("sound")
            rig.submit()
            await rig.commit()
            if not rig.term.open:
                raise Hidden("the term has ended")
            rig.hub.disconnect(other)

    with _Listener() as listener:
        run_virtual(main)
    listener.judge()


def worker_session(data: bytes) -> None:
    """A master's envelope at a worker that holds a job: afterwards it still speaks."""
    try:
        said = worker_pb2.SessionResponse.FromString(data)
    except DecodeError:
        return
    rig = Rig()
    session = rig.leading()
    rig.grant(session, 1)
    rig.begin()
    rig.tell(session, said)
    rig.run_all()
    for _ in range(4):
        rig.wait(5_000)
        rig.hear(session)


def text_filter(data: bytes) -> None:
    """A filter as anybody may send it."""
    try:
        filters.parse(data.decode("utf-8", "replace"))
    except Rejected:
        return


class _Listener(logging.Handler):
    """Errors that were logged with their traceback."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._found: list[str] = []

    def __enter__(self) -> _Listener:
        logging.getLogger("tenure").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("tenure").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(self.format(record))

    def judge(self) -> None:
        """Raises what was found."""
        if self._found:
            raise Hidden("\n".join(self._found))


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "journal": journal,
    "master_session": master_session,
    "worker_session": worker_session,
    "text_filter": text_filter,
}
