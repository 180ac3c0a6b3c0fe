"""What a running job knows of itself: ``current_job()``.

Outside a worker it is an inert context, so that job functions stay plain functions in tests.
"""

import logging
from collections.abc import AsyncIterable, Callable, Iterable, MutableMapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TypeVar

from tenure.client.checkpoint import Iteration, SavedState
from tenure.client.errors import Cancelled, LeaseLost, invalid
from tenure.protocol.fence import NO_TOKEN, Lease

T = TypeVar("T")

_LOGGER: Final = logging.getLogger("tenure.job")


def _ignore(pct: float) -> None:
    pass


def _never() -> bool:
    return False


#: Takes what a job's code says: the number of its stream, how grave it is (0: unknown), the text.
Listener = Callable[[int, int, str], None]


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records name the job and the attempt."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


class JobContext:
    """One attempt of one job, as its own code sees it.

    Attributes:
        id: The job's id.
        name: The job's name.
        attempt: 1 for the first attempt of a run.
    """

    __slots__ = (
        "_deadline_ms",
        "_is_cancelled",
        "_is_lost",
        "_is_superseded",
        "_is_wanted_back",
        "_lease",
        "_made",
        "_on_checkpoint",
        "_on_output",
        "_on_progress",
        "_saved",
        "attempt",
        "id",
        "name",
    )

    def __init__(
        self,
        *,
        id: str,
        name: str,
        attempt: int,
        lease: Lease,
        deadline_ms: int | None = None,
        on_progress: Callable[[float], None] = _ignore,
        is_cancelled: Callable[[], bool] = _never,
        is_lost: Callable[[], bool] = _never,
        is_superseded: Callable[[], bool] = _never,
        saved: bytes = b"",
        on_checkpoint: Callable[[bytes], None] | None = None,
        is_wanted_back: Callable[[], bool] = _never,
        on_output: Listener | None = None,
    ) -> None:
        """Used by workers.

        Args:
            id: The job's id.
            name: The job's name.
            attempt: 1 for the first attempt of a run.
            lease: The lease under which the attempt runs.
            deadline_ms: When the attempt must have ended, milliseconds since the Unix epoch.
            on_progress: Takes a percentage; called in the thread that runs the job.
            is_cancelled: Whether someone has cancelled the job.
            is_lost: Whether the lease is lost.
            is_superseded: Whether it is lost because the master has taken it away.
            saved: The last checkpoint of the job, as it travels; empty: it has none.
            on_checkpoint: Takes a checkpoint as it travels, in the thread that saves it; None: they
                go nowhere.
            is_wanted_back: Whether the job is to go on elsewhere, for its worker is draining.
            on_output: Takes what the job logs and prints; called in any thread.
        """
        self.id = id
        self.name = name
        self.attempt = attempt
        self._lease = lease
        self._deadline_ms = deadline_ms
        self._on_progress = on_progress
        self._is_cancelled = is_cancelled
        self._is_lost = is_lost
        self._is_superseded = is_superseded
        self._is_wanted_back = is_wanted_back
        self._saved = saved
        self._on_checkpoint = on_checkpoint
        self._made: SavedState | None = None
        self._on_output = on_output

    @property
    def fence(self) -> str:
        """The lease's fixed-width text. It rises with each lease of the job, whichever master
        granted it: store it with what you write, and refuse writes that carry a lower one.
        """
        return self._lease.fence

    @property
    def deadline(self) -> datetime | None:
        """When this attempt must have ended (UTC), or None."""
        if self._deadline_ms is None:
            return None
        return datetime.fromtimestamp(self._deadline_ms / 1000, UTC)

    @property
    def cancelled(self) -> bool:
        """Whether someone has cancelled the job. Never raises."""
        return self._is_cancelled()

    @property
    def log(self) -> JobLog:
        """A logger whose records carry ``job_id``, ``job_name`` and ``attempt``."""
        extra = {"job_id": self.id, "job_name": self.name, "attempt": self.attempt}
        return JobLog(_LOGGER, extra)

    def progress(self, pct: float) -> None:
        """Says how far the job has come, and is a checkpoint.

        Args:
            pct: 0 to 100.

        Raises:
            Cancelled: The job was cancelled.
            LeaseLost: The lease is lost.
            Rejected: ``pct`` is out of range.
        """
        if not 0 <= pct <= 100:
            raise invalid("pct", f"from 0 to 100, got {pct}")
        self.checkpoint()
        self._on_progress(pct)

    @property
    def _state(self) -> SavedState:
        """What is saved; most jobs never ask."""
        if self._made is None:
            self._made = SavedState(self.id, self._saved, self._on_checkpoint)
        return self._made

    @property
    def last_checkpoint(self) -> Any:
        """What the job has saved last, in an earlier attempt, on whatever worker that ran; None if
        it has saved nothing in this run. It does not change while the attempt runs.
        """
        return self._state.last

    def checkpoint(self, data: Any = None) -> None:
        """Saves how far the job is, for its next attempt, and is a point at which it may stop.

        This returns at once. The newest data goes to the master at most every 200 ms (64 KiB: every
        1.2 s), and before the attempt ends or its job is handed back; a worker that is killed loses
        what it had not sent. Saving something new forgives the job its lost attempts
        (``max_lost``). Inside a loop of ``iterate``, the data is saved with the loop's cursor, when
        the item is finished.

        Args:
            data: Plain data: None, bool, numbers, text, bytes, lists, dicts. None saves nothing.

        Raises:
            LeaseLost: The lease is lost; this wins over a cancel.
            Cancelled: The job was cancelled.
            Rejected: INVALID_ARGUMENT with the path of what would not come back as it is;
                PAYLOAD_TOO_LARGE if it is more than 64 KiB encoded.
        """
        if self._is_lost():
            raise LeaseLost(self.id, superseded=self._is_superseded())
        if self._is_cancelled():
            raise Cancelled(self.id)
        if data is not None:
            self._state.save(data)

    def iterate(self, items: Iterable[T] | AsyncIterable[T], *, name: str = "") -> Iteration[T]:
        """A loop that goes on where the job's last attempt has left it.

        ``for item in current_job().iterate(items)``, or ``async for``: when an item is finished,
        the loop's cursor is saved as ``checkpoint`` saves data, and the next attempt skips what is
        finished. The item at which an attempt was lost runs again. Between items the job may be
        stopped. When its worker drains, the loop ends there with ``Cancelled``: the attempt is not
        charged, and another worker goes on with the next item.

        Args:
            items: The same ones in the same order in each attempt. Those that are finished are
                taken and skipped, so what makes them should be cheap.
            name: Tells a job's loops apart [""].

        Raises:
            Rejected: The attempt has had a loop of this name.
        """
        return Iteration(
            items,
            name,
            job_id=self.id,
            state=self._state,
            look=self.checkpoint,
            is_wanted_back=self._is_wanted_back,
        )


_INERT: Final = JobContext(id="", name="", attempt=1, lease=Lease(NO_TOKEN, 0, 0))
#: The context, or what makes it.
_current: Final[ContextVar[JobContext | Callable[[], JobContext]]] = ContextVar(
    "tenure_current_job", default=_INERT
)


def current_job() -> JobContext:
    """The context of the job that runs here, or an inert one outside a worker."""
    current = _current.get()
    if not isinstance(current, JobContext):
        current = current()
        _current.set(current)
    return current


def listener() -> Listener | None:
    """Who listens to what the running code says; None: it is no job's, or nobody does."""
    if _current.get() is _INERT:
        return None
    return current_job()._on_output  # pyright: ignore[reportPrivateUsage]


def enter_job(make: Callable[[], JobContext]) -> None:
    """Gives the running ``contextvars.Context``, which must be the job's own, to a job for good.

    Args:
        make: Makes what ``current_job()`` returns. Called when it is first asked for: the code of
            most small jobs never does.
    """
    _current.set(make)


class activate:  # noqa: N801  (reads as a verb: `with activate(context):`)
    """Makes a context the current one for a ``with`` block, in this thread or task."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._token: Token[JobContext | Callable[[], JobContext]] | None = None

    def __enter__(self) -> JobContext:
        self._token = _current.set(self._context)
        return self._context

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
