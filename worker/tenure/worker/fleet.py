"""How many worker processes there are to be, and what becomes of those that end: without I/O.

```
          start              registered             drain               ended
 (free) ───────► STARTING ──────────────► READY ──────────► DRAINING ──────────► (free)
                    ▲ │                     │ │
                    │ └──────── crash ──────┘ └─ "start me again": STARTING at once
                    │             ▼
                    └──────── RESTING   after a backoff; after five crashes within a minute
                                        after five minutes (quarantined), until it is well again
```
The shell (``supervisor``) passes the time and what it hears, and carries out the orders.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol, assert_never

from tenure.worker.exits import EXIT_RESTART
from tenure.worker.pulse import Phase, Pulse, Refusal

#: Jobs must have waited, with all slots taken, for so long before processes are added.
GROW_MS: Final = 3_000
#: There must have been a process too many for so long before one is taken away.
SHRINK_MS: Final = 60_000
#: All slots count as taken above this share: between two jobs a slot is free for a moment.
BUSY_SHARE: Final = 0.9
#: The first rest after a crash, doubled with each further one.
BACKOFF_MS: Final = 500
BACKOFF_MS_MAX: Final = 30_000
#: Rests are this much shorter or longer, so that processes do not start in step.
BACKOFF_JITTER: Final = 0.2
#: So many crashes within this time are a loop.
LOOP_CRASHES: Final = 5
LOOP_MS: Final = 60_000
#: How long a place rests then.
QUARANTINE_MS: Final = 300_000
#: A process that was ready for so long is well: what was before is forgotten.
WELL_MS: Final = 60_000
#: One that has said nothing for so long stands still: it is killed. Imports may take longer.
SILENT_MS_MAX: Final = 60_000
#: The supervisor itself stood still if so much time passed between two looks.
GAP_MS: Final = 10_000
#: A rolling restart waits so long for a new process to be ready.
COME_UP_MS_MAX: Final = 120_000
#: Beyond its drain timeout, a process may take so long for its last words before it is killed.
LAST_WORDS_MS_MAX: Final = 20_000


class Rng(Protocol):
    """Randomness (``random.Random`` fits). Not the worker's port: that one brings gRPC along."""

    def random(self) -> float:
        """Uniform in [0, 1)."""


class State(Enum):
    """What a place's process does."""

    STARTING = "starting"  #: its Pulse moves it out, or its end
    READY = "ready"  #: a drain or its end moves it out
    DRAINING = "draining"  #: only its end moves it out
    RESTING = "resting"  #: there is none; time moves it out


class Act(Enum):
    """What the shell is to do with a process."""

    START = "start"
    DRAIN = "drain"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Order:
    """One thing to do, in order.

    Attributes:
        act: What.
        number: With which place's process.
    """

    act: Act
    number: int


@dataclass(frozen=True, slots=True)
class News:
    """What people and programs are told.

    Attributes:
        event: Its name, as on stdout.
        text: For the log.
        loud: Whether somebody should do something about it.
        number: The place that it is about, or None for all.
        fields: Further ones of the event.
    """

    event: str
    text: str
    loud: bool = False
    number: int | None = None
    fields: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Place:
    """One number and what runs under it.

    Attributes:
        number: From 1; given again when nothing is left under it.
        generation: Of how many rolling restarts its process has been told.
        state: What it does.
        pulse: The last that it said; None: nothing yet.
        quarantined: It is in a crash loop.
    """

    number: int
    generation: int
    state: State
    since_ms: int
    heard_ms: int | None = None
    pulse: Pulse | None = None
    failures: int = 0
    crashes: deque[int] = field(default_factory=deque)
    quarantined: bool = False
    #: When its rest is over, or when its drain takes too long.
    due_ms: int = 0


class Fleet:
    """The places, and what is to be done about them.

    Args:
        least: How many processes there are at least.
        most: How many at most.
        drain_timeout_ms: How long jobs may go on in a process that is asked to end.
        rng: For jitter.

    Attributes:
        places: By number.
        target: How many processes there are to be now.
        crashes: How many there have been.
        restarts: Processes that were started in place of others.
        refusal: Why nothing can start; set before any process was ready.
    """

    def __init__(self, least: int, most: int, drain_timeout_ms: int, rng: Rng) -> None:
        self.places: dict[int, Place] = {}
        self.target = least
        self.crashes = 0
        self.restarts = 0
        self.refusal: Refusal | None = None
        self._least = least
        self._most = most
        self._drain_timeout_ms = drain_timeout_ms
        self._rng = rng
        self._generation = 0
        self._rolling = False
        self._ending = False
        self._was_ready = False
        self._ticked_ms: int | None = None
        self._pressed_ms: int | None = None
        self._spare_ms: int | None = None
        self._orders: list[Order] = []
        self._news: list[News] = []

    # What the shell takes.

    def take_orders(self) -> list[Order]:
        """What is to be done, since the last call."""
        orders, self._orders = self._orders, []
        return orders

    def take_news(self) -> list[News]:
        """What is to be told, since the last call."""
        news, self._news = self._news, []
        return news

    @property
    def over(self) -> bool:
        """Whether it was asked to end, and no process is left."""
        return self._ending and not self.places

    @property
    def ending(self) -> bool:
        """Whether it was asked to end, or cannot begin."""
        return self._ending

    @property
    def rolling(self) -> bool:
        """Whether processes are being replaced, one after the other."""
        return self._rolling

    @property
    def ready(self) -> int:
        """Processes that take jobs."""
        return sum(1 for _ in self._in(State.READY))

    # What the shell hears.

    def heard(self, number: int, pulse: Pulse, now_ms: int) -> None:
        """A process has said how it is."""
        place = self.places.get(number)
        if place is None or place.state is State.RESTING:
            return
        known = place.pulse is not None and place.pulse.refusal is not None
        place.pulse = pulse
        place.heard_ms = now_ms
        if pulse.refusal is not None:
            if not known:
                self._refused(place, pulse.refusal, now_ms)
        elif pulse.phase is Phase.READY and place.state is State.STARTING:
            place.state = State.READY
            place.since_ms = now_ms
            self._was_ready = True
        elif pulse.phase is Phase.DRAINING and place.state is not State.DRAINING:
            # Somebody else has asked it to end, or it goes by itself. It is replaced meanwhile.
            self.restarts += 1
            self._drain(place, now_ms, order=False)
            self._fill(now_ms)

    def ended(self, number: int, code: int, now_ms: int) -> None:
        """A process is gone.

        Args:
            number: Its place.
            code: How it exited; negative: the signal that killed it.
            now_ms: The time.
        """
        place = self.places[number]
        phase = place.pulse.phase if place.pulse is not None else Phase.STARTING
        self._news.append(
            News("ended", f"ended with {_said(code)}", number=number, fields={"code": code})
        )
        if self._ending or place.state is State.DRAINING:
            del self.places[number]
        elif code == EXIT_RESTART and phase is not Phase.STARTING:
            self.restarts += 1
            self._start(place, now_ms)
        elif self._rolling and place.state is State.STARTING and self._has_spare():
            del self.places[number]
            self._give_up_roll(f"the new process ended with {_said(code)} before it was ready")
        else:
            self._crashed(place, code, now_ms)
        self._fill(now_ms)

    def drain(self, now_ms: int) -> None:
        """All are to end in order; asked again: at once."""
        again, self._ending, self._rolling = self._ending, True, False
        for place in list(self.places.values()):
            match place.state:
                case State.RESTING:
                    del self.places[place.number]
                case State.STARTING | State.READY:
                    self._drain(place, now_ms)
                case State.DRAINING:
                    if again:
                        self._orders.append(Order(Act.DRAIN, place.number))
                        place.due_ms = min(place.due_ms, now_ms + LAST_WORDS_MS_MAX)
                case _:
                    assert_never(place.state)

    def restart(self, now_ms: int) -> None:
        """All are to be replaced, one after the other: the new one is ready before the old goes."""
        if self._ending:
            return
        self._generation += 1
        self._rolling = True
        self._pressed_ms = self._spare_ms = None
        self._news.append(News("restarting", "replacing all processes, one after the other"))
        for place in self._in(State.RESTING):
            # Whatever made them crash may be mended now.
            place.failures = 0
            place.crashes.clear()
            place.quarantined = False
            place.due_ms = now_ms

    # Time.

    def tick(self, now_ms: int) -> None:
        """Lets time pass."""
        if self._ticked_ms is not None and now_ms - self._ticked_ms >= GAP_MS:
            # What they have said meanwhile has not been read yet.
            for place in self.places.values():
                place.heard_ms = now_ms if place.heard_ms is not None else None
        self._ticked_ms = now_ms
        for place in list(self.places.values()):
            self._look_at(place, now_ms)
        if self._ending:
            return
        self._fill(now_ms)
        if self._rolling:
            self._roll(now_ms)
        else:
            self._scale(now_ms)

    def _look_at(self, place: Place, now_ms: int) -> None:
        heard_ms = place.heard_ms
        match place.state:
            case State.RESTING:
                if now_ms >= place.due_ms:
                    self.restarts += 1
                    self._start(place, now_ms)
            case State.DRAINING:
                if now_ms >= place.due_ms:
                    self._kill(place, now_ms, "it did not end in time")
            case State.STARTING | State.READY:
                waits = place.pulse is not None and place.pulse.phase is Phase.WAITING
                if heard_ms is not None and not waits and now_ms - heard_ms >= SILENT_MS_MAX:
                    self._kill(place, now_ms, "it stands still")
                elif place.state is State.READY and now_ms - place.since_ms >= WELL_MS:
                    place.failures = 0
                    place.quarantined = False
            case _:
                assert_never(place.state)

    def _kill(self, place: Place, now_ms: int, why: str) -> None:
        self._orders.append(Order(Act.KILL, place.number))
        self._news.append(News("killed", f"is killed: {why}", loud=True, number=place.number))
        # Not again at once; its end is heard of in a moment.
        place.heard_ms = None
        place.due_ms = now_ms + LAST_WORDS_MS_MAX

    # Starts and ends.

    def _fill(self, now_ms: int) -> None:
        """Starts what is missing."""
        if self._ending:
            return
        missing = self.target - sum(1 for _ in self._kept())
        for _ in range(missing):
            self._start_new(now_ms)

    def _start_new(self, now_ms: int) -> None:
        number = next(n for n in range(1, len(self.places) + 2) if n not in self.places)
        self.places[number] = place = Place(number, self._generation, State.STARTING, now_ms)
        self._start(place, now_ms)

    def _start(self, place: Place, now_ms: int) -> None:
        place.state = State.STARTING
        place.generation = self._generation
        place.since_ms = now_ms
        place.heard_ms = place.pulse = None
        self._orders.append(Order(Act.START, place.number))

    def _drain(self, place: Place, now_ms: int, *, order: bool = True) -> None:
        place.state = State.DRAINING
        place.since_ms = now_ms
        place.due_ms = now_ms + self._drain_timeout_ms + LAST_WORDS_MS_MAX
        if order:
            self._orders.append(Order(Act.DRAIN, place.number))

    def _crashed(self, place: Place, code: int, now_ms: int) -> None:
        self.crashes += 1
        if self._others(place) >= self.target:
            # One too many, of a restart that was given up for example: nobody needs it.
            del self.places[place.number]
            return
        place.state = State.RESTING
        place.since_ms = now_ms
        place.heard_ms = place.pulse = None
        place.failures += 1
        place.crashes.append(now_ms)
        while now_ms - place.crashes[0] > LOOP_MS:
            place.crashes.popleft()
        if place.quarantined or len(place.crashes) >= LOOP_CRASHES:
            self._quarantine(place, code, now_ms)
            return
        spread = 1 + BACKOFF_JITTER * (2 * self._rng.random() - 1)
        rest_ms = min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** (place.failures - 1))
        place.due_ms = now_ms + int(rest_ms * spread)
        self._news.append(
            News(
                "crashed",
                f"crashed with {_said(code)}; it is started again in "
                f"{(place.due_ms - now_ms) / 1000:.1f} s",
                loud=True,
                number=place.number,
                fields={"code": code, "rest_ms": place.due_ms - now_ms},
            )
        )

    def _quarantine(self, place: Place, code: int, now_ms: int) -> None:
        why = (
            "has crashed again"
            if place.quarantined
            else f"is in a crash loop: {len(place.crashes)} crashes within {LOOP_MS // 1000} s"
        )
        place.quarantined = True
        place.due_ms = now_ms + QUARANTINE_MS
        self._news.append(
            News(
                "quarantined",
                f"{why}, with {_said(code)}. It is tried again in {QUARANTINE_MS // 60_000} "
                "minutes, or when this supervisor gets SIGHUP; look at what it has logged",
                loud=True,
                number=place.number,
                fields={"code": code, "rest_ms": QUARANTINE_MS},
            )
        )

    def _refused(self, place: Place, refusal: Refusal, now_ms: int) -> None:
        """It cannot start. If none ever could, all end: whoever started us is to know at once."""
        if self._was_ready or self._ending:
            self._news.append(
                News("refused", f"cannot start: {refusal.message}", True, place.number)
            )
            return
        self.refusal = refusal
        self.drain(now_ms)

    # A rolling restart.

    def _roll(self, now_ms: int) -> None:
        """The next step, when the last one is done."""
        starting = next(self._in(State.STARTING), None)
        if starting is not None:
            if now_ms - starting.since_ms >= COME_UP_MS_MAX and self._has_spare():
                self._drain(starting, now_ms)
                self._give_up_roll(
                    f"the new process was not ready within {COME_UP_MS_MAX // 1000} s"
                )
            return
        if any(True for _ in self._in(State.DRAINING)):
            return
        old = [place for place in self._in(State.READY) if place.generation < self._generation]
        if not old:
            self._rolling = False
            self._news.append(News("restarted", "all processes have been replaced"))
        elif self._has_spare():
            self.restarts += 1
            self._drain(old[0], now_ms)
        else:
            self._start_new(now_ms)

    def _give_up_roll(self, why: str) -> None:
        self._rolling = False
        self._news.append(
            News("restart_failed", f"{why}: the processes that are left go on as they are", True)
        )

    def _has_spare(self) -> bool:
        return sum(1 for _ in self._kept()) > self.target

    # How many there are to be.

    def _scale(self, now_ms: int) -> None:
        ready = [place.pulse for place in self._in(State.READY) if place.pulse is not None]
        slots = sum(pulse.slots for pulse in ready)
        busy = sum(pulse.busy for pulse in ready)
        backlog = max((pulse.backlog for pulse in ready), default=0)
        settled = len(ready) == len(self.places)
        if not settled or not slots:
            self._pressed_ms = self._spare_ms = None
            return
        pressed = backlog > 0 and busy >= BUSY_SHARE * slots
        # With one process less there would still be a free slot for every two that are taken.
        spare = backlog == 0 and 1.5 * busy <= slots * (len(ready) - 1) / len(ready)
        self._pressed_ms = _begun(self._pressed_ms, pressed, now_ms)
        self._spare_ms = _begun(self._spare_ms, spare, now_ms)
        if self._pressed_ms is not None and now_ms - self._pressed_ms >= GROW_MS:
            # What waits, in processes; no more than there are: each start takes from those.
            wanted = -(-backlog * len(ready) // slots)
            self._retarget(min(self._most, self.target + min(wanted, self.target)), now_ms)
        elif self._spare_ms is not None and now_ms - self._spare_ms >= SHRINK_MS:
            self._shrink(now_ms)

    def _retarget(self, target: int, now_ms: int) -> None:
        self._pressed_ms = self._spare_ms = None
        if target == self.target:
            return
        self._news.append(
            News(
                "scaled",
                f"{target} processes instead of {self.target}",
                fields={"processes": target, "before": self.target},
            )
        )
        self.target = target
        self._fill(now_ms)

    def _shrink(self, now_ms: int) -> None:
        """Lets one go that runs nothing; until there is one, all stay."""
        if self.target <= self._least:
            return
        idle = [p for p in self._in(State.READY) if p.pulse is not None and p.pulse.busy == 0]
        if idle:
            self._drain(idle[-1], now_ms)
            self._retarget(self.target - 1, now_ms)

    # Counting.

    def _in(self, state: State) -> Iterator[Place]:
        return (place for place in list(self.places.values()) if place.state is state)

    def _kept(self) -> Iterator[Place]:
        """Places that are not being given up."""
        return (place for place in self.places.values() if place.state is not State.DRAINING)

    def _others(self, place: Place) -> int:
        return sum(1 for other in self._kept() if other is not place)


def _begun(since_ms: int | None, so: bool, now_ms: int) -> int | None:
    """Since when something is so; None: it is not."""
    if not so:
        return None
    return now_ms if since_ms is None else since_ms


def _said(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"
