"""What a job saves of itself, and loops that remember how far they are.

The state of a job is the array ``[data, cursors]``: what its code has saved, and for each of its
loops how many items are finished. Both are saved together, so a loop that is resumed begins with
the data that belongs to its cursor:

```
 for item in loop:  ──►  code  ──checkpoint(data)──►  noted  ──next item──►  saved [data, cursors]
```
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import msgspec

from tenure.client.content_type import MSGPACK, format_of
from tenure.client.errors import Cancelled, invalid
from tenure.client.fidelity import TOO_DEEP, Flaw, first_unencodable, flaw_of
from tenure.protocol.errors import Rejected
from tenure.protocol.limits import CHECKPOINT_BYTES_MAX
from tenure.protocol.refusal import Reason

T = TypeVar("T")

_FORM: Final = format_of(MSGPACK)
_unpack: Final[Callable[[bytes | msgspec.Raw], Any]] = _FORM.unpacker(Any)
_pack_state: Final = msgspec.msgpack.Encoder().encode
_unpack_state: Final = msgspec.msgpack.Decoder(tuple[msgspec.Raw, dict[str, int]]).decode
_NOTHING: Final = _FORM.pack(None)
#: What values raise that cannot be packed.
_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)


class SavedState:
    """A job's state: what the last attempt has saved, and what this one does.

    Args:
        job_id: The job, for errors.
        packed: What the last attempt has saved; empty: nothing.
        keep: Takes the state whenever it has changed; None: nobody wants to know.
    """

    __slots__ = ("_cursors", "_data", "_job_id", "_keep", "_last", "_loops", "_names", "_noted")

    def __init__(self, job_id: str, packed: bytes, keep: Callable[[bytes], None] | None) -> None:
        self._job_id = job_id
        self._keep = keep
        self._last = _NOTHING
        self._cursors: dict[str, int] = {}
        if packed:
            try:
                data, self._cursors = _unpack_state(packed)
            except msgspec.DecodeError as error:
                raise invalid("the job's checkpoint", f"one of this SDK, but {error}") from None
            self._last = bytes(data)
        self._data = self._last
        #: Data that belongs to the item which a loop is at.
        self._noted: bytes | None = None
        self._names: set[str] = set()
        #: The loops that were begun; one that was left early is gone.
        self._loops: list[weakref.ref[Iteration[Any]]] = []

    @property
    def last(self) -> Any:
        """What the last attempt has saved, anew each time."""
        return None if self._last == _NOTHING else _unpack(self._last)

    def save(self, value: Any) -> None:
        """Saves data: now, or inside a loop when the item that it is at is finished.

        Raises:
            Rejected: As ``JobContext.checkpoint`` has it.
        """
        data = _packed(self._job_id, value)
        state = self._state(data)
        if self._keep is None:
            return
        self._loops = [known for known in self._loops if _is_amid(known())]
        if self._loops:
            self._noted = data
        else:
            self._data = data
            self._keep(state)

    def begin(self, loop: Iteration[Any], name: str) -> int:
        """A loop begins. Returns how many of its items are finished.

        Raises:
            Rejected: There was one of this name in this attempt.
        """
        if self._keep is None:
            return 0
        if name in self._names:
            raise invalid(
                "name", f"one that no other loop of the job has, got {name!r} a second time"
            )
        self._names.add(name)
        self._loops.append(weakref.ref(loop))
        return self._cursors.get(name, 0)

    def advance(self, name: str, cursor: int) -> None:
        """A loop has finished so many items.

        Raises:
            Rejected: PAYLOAD_TOO_LARGE: there are too many loops.
        """
        if self._keep is None:
            return
        self._cursors[name] = cursor
        if self._noted is not None:
            self._data, self._noted = self._noted, None
        self._keep(self._state(self._data))

    def _state(self, data: bytes) -> bytes:
        state = _pack_state((msgspec.Raw(data), self._cursors))
        if len(state) > CHECKPOINT_BYTES_MAX:
            raise Rejected(
                f"expected the checkpoint of job {self._job_id} to be at most "
                f"{CHECKPOINT_BYTES_MAX} bytes encoded, got {len(state)}; put large data into an "
                "object store and save its address",
                reason=Reason.PAYLOAD_TOO_LARGE,
                metadata={
                    "job_id": self._job_id,
                    "limit": str(CHECKPOINT_BYTES_MAX),
                    "bytes": str(len(state)),
                },
                field="data",
            )
        return state


class Iteration(Generic[T]):
    """What ``JobContext.iterate`` returns: use it in one ``for`` or ``async for``."""

    __slots__ = (
        "__weakref__",
        "_async_items",
        "_cursor",
        "_is_wanted_back",
        "_items",
        "_job_id",
        "_look",
        "_name",
        "_source",
        "_state",
        "amid",
    )

    def __init__(
        self,
        source: Iterable[T] | AsyncIterable[T],
        name: str,
        *,
        job_id: str,
        state: SavedState,
        look: Callable[[], None],
        is_wanted_back: Callable[[], bool],
    ) -> None:
        """Used by ``JobContext``.

        Args:
            source: The items.
            name: Of the loop.
            job_id: The job, for errors.
            state: Where its cursor is.
            look: Raises if the job is to stop.
            is_wanted_back: Whether the job is to go on elsewhere.
        """
        self._source = source
        self._name = name
        self._job_id = job_id
        self._state = state
        self._look = look
        self._is_wanted_back = is_wanted_back
        self._items: Iterator[T] | None = None
        self._async_items: AsyncIterator[T] | None = None
        #: Whether an item is being worked on.
        self.amid = False
        self._cursor = state.begin(self, name)

    def __iter__(self) -> Iterator[T]:
        if self._items is None:
            if not isinstance(self._source, Iterable):
                raise TypeError("expected `async for` over items that come asynchronously")
            self._items = islice(self._source, self._cursor, None)
        return self

    def __next__(self) -> T:
        if self._items is None:
            iter(self)
        self._finish()
        item = next(self._items)  # type: ignore[arg-type]
        self._begin()
        return item

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if not isinstance(self._source, AsyncIterable):
            try:
                return next(self)
            except StopIteration:
                raise StopAsyncIteration from None
        if self._async_items is None:
            self._async_items = aiter(self._source)
            for _ in range(self._cursor):
                await anext(self._async_items)
        self._finish()
        item = await anext(self._async_items)
        self._begin()
        return item

    def _finish(self) -> None:
        """The item that was given out is finished, if there was one."""
        if self.amid:
            self.amid = False
            self._cursor += 1
            self._state.advance(self._name, self._cursor)
        self._look()

    def _begin(self) -> None:
        """There is one more item, if it is to be worked on here."""
        if self._is_wanted_back():
            raise Cancelled(self._job_id)
        self.amid = True


def _is_amid(loop: Iteration[Any] | None) -> bool:
    return loop is not None and loop.amid


def _packed(job_id: str, value: Any) -> bytes:
    """Data as bytes.

    Raises:
        Rejected: It would not come back as it is.
    """
    try:
        packed = _FORM.pack(value)
    except _UNENCODABLE as error:
        flaw = first_unencodable(value, _FORM.pack) or Flaw("", str(error))
        raise _refused(job_id, flaw) from None
    if type(value) not in _FORM.scalars:
        try:
            changed = flaw_of(value, _unpack(packed))
        except RecursionError:
            changed = Flaw("", TOO_DEEP)
        if changed is not None:
            raise _refused(job_id, changed)
    return packed


def _refused(job_id: str, flaw: Flaw) -> Rejected:
    path = f"data{flaw.path}"
    return Rejected(
        f"expected a checkpoint of job {job_id} that comes back as it is, plain data without "
        f"types of its own, but {path}: {flaw.why}",
        reason=Reason.INVALID_ARGUMENT,
        metadata={"job_id": job_id, "path": path},
        field=path,
    )
