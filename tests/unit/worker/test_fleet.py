"""How many worker processes there are, and what becomes of those that end, on a test's clock."""

from __future__ import annotations

import random

import pytest

from tenure.worker.exits import EXIT_RESTART
from tenure.worker.fleet import (
    COME_UP_MS_MAX,
    GROW_MS,
    LAST_WORDS_MS_MAX,
    LOOP_CRASHES,
    QUARANTINE_MS,
    SHRINK_MS,
    SILENT_MS_MAX,
    WELL_MS,
    Act,
    Fleet,
    State,
)
from tenure.worker.pulse import Phase, Pulse, Refusal

DRAIN_MS = 30_000
SLOTS = 10


class Stage:
    """A fleet, the processes that it believes in, and a clock."""

    def __init__(self, least: int, most: int, *, seed: int = 1) -> None:
        self.fleet = Fleet(least, most, DRAIN_MS, random.Random(seed))
        self.now_ms = 0
        self.running: dict[int, int] = {}
        self.drains: list[int] = []
        self.kills: list[int] = []
        self.events: list[str] = []
        self.started = 0
        self.load: dict[int, tuple[int, int]] = {}
        self.tick()

    def tick(self, ms: int = 0, *, silent: tuple[int, ...] = ()) -> None:
        """Lets time pass, a second at a time; processes that are ready say how they are."""
        left = ms
        while True:
            step = min(left, 1_000)
            self.now_ms += step
            left -= step
            for number in list(self.running):
                place = self.fleet.places[number]
                if place.state is State.READY and number not in silent:
                    self.says(number)
            self.fleet.tick(self.now_ms)
            self._obey()
            if not left:
                return

    def says(self, number: int, phase: Phase = Phase.READY, **fields: object) -> None:
        """A process says how it is."""
        busy, backlog = self.load.get(number, (0, 0))
        pulse = Pulse(phase=phase, slots=SLOTS, busy=busy, backlog=backlog, **fields)  # type: ignore[arg-type]
        self.fleet.heard(number, pulse, self.now_ms)
        self._obey()

    def ready(self, *numbers: int) -> None:
        """Processes are welcomed by a master; without numbers, all that start."""
        for number in numbers or [*self.running]:
            self.says(number)

    def ends(self, number: int, code: int = 0) -> None:
        """A process is gone."""
        del self.running[number]
        self.fleet.ended(number, code, self.now_ms)
        self._obey()

    def all_busy(self, backlog: int) -> None:
        """Every slot is taken, and so many jobs wait."""
        self.load = dict.fromkeys(range(1, 100), (SLOTS, backlog))

    def _obey(self) -> None:
        for order in self.fleet.take_orders():
            match order.act:
                case Act.START:
                    assert order.number not in self.running
                    self.started += 1
                    self.running[order.number] = self.started
                case Act.DRAIN:
                    self.drains.append(order.number)
                case Act.KILL:
                    self.kills.append(order.number)
        self.events += [news.event for news in self.fleet.take_news()]


def test_as_many_as_are_wanted_start_at_once() -> None:
    """The least number runs from the beginning, numbered from one."""
    stage = Stage(3, 8)
    assert list(stage.running) == [1, 2, 3]
    assert stage.fleet.ready == 0
    stage.ready()
    assert stage.fleet.ready == 3


def test_a_backlog_that_persists_adds_processes_up_to_the_most() -> None:
    """With all slots taken and jobs waiting for three seconds, there are twice as many."""
    stage = Stage(1, 5)
    stage.ready()
    stage.all_busy(backlog=1_000)
    sizes = []
    for _ in range(4):
        stage.tick(GROW_MS + 1_000)
        stage.ready()
        sizes.append(len(stage.running))
    assert sizes == [2, 4, 5, 5]
    assert stage.events.count("scaled") == 3


def test_no_more_are_added_than_the_backlog_fills() -> None:
    """Five jobs that wait are worth one process of ten slots, not a doubling."""
    stage = Stage(4, 8)
    stage.ready()
    stage.all_busy(backlog=5)
    stage.tick(GROW_MS + 1_000)
    assert len(stage.running) == 5


@pytest.mark.parametrize(("busy", "backlog"), [(SLOTS, 0), (SLOTS // 2, 100)])
def test_busy_alone_or_waiting_alone_adds_nothing(busy: int, backlog: int) -> None:
    """Jobs that wait while slots are free wait for something else than for slots."""
    stage = Stage(1, 5)
    stage.ready()
    stage.load = {1: (busy, backlog)}
    stage.tick(60_000)
    assert list(stage.running) == [1]


def test_a_backlog_that_goes_in_between_begins_anew() -> None:
    """What lasts less than three seconds at a time adds nothing, however often it comes."""
    stage = Stage(1, 5)
    stage.ready()
    for _ in range(20):
        stage.all_busy(backlog=100)
        stage.tick(GROW_MS - 1_000)
        stage.load = {}
        stage.tick(1_000)
    assert list(stage.running) == [1]


def test_what_starts_is_waited_for_before_more_is_added() -> None:
    """While a process comes up, nobody knows yet whether one more is needed."""
    stage = Stage(1, 8)
    stage.ready()
    stage.all_busy(backlog=1_000)
    stage.tick(60_000)
    assert len(stage.running) == 2


def test_an_idle_process_goes_after_a_minute_and_never_below_the_least() -> None:
    """One at a time, the newest first, drained and not killed."""
    stage = Stage(1, 3)
    stage.ready()
    stage.all_busy(backlog=100)
    stage.tick(4_000)
    stage.ready()
    stage.tick(4_000)
    stage.ready()
    assert stage.fleet.target == 3
    stage.load = {}
    stage.tick(SHRINK_MS - 2_000)
    assert stage.drains == []
    stage.tick(4_000)
    assert stage.drains == [3]
    stage.ends(3)
    stage.tick(SHRINK_MS + 2_000)
    assert stage.drains == [3, 2]
    stage.ends(2)
    stage.tick(10 * SHRINK_MS)
    assert list(stage.running) == [1]
    assert stage.kills == []


def test_only_a_process_that_runs_nothing_is_taken_away() -> None:
    """There is one too many, but each has a job: all stay until one is idle."""
    stage = Stage(1, 2)
    stage.ready()
    stage.all_busy(backlog=50)
    stage.tick(GROW_MS + 1_000)
    stage.ready()
    stage.load = {1: (1, 0), 2: (1, 0)}
    stage.tick(2 * SHRINK_MS)
    assert stage.drains == []
    stage.load = {1: (0, 0), 2: (1, 0)}
    stage.tick(2_000)
    assert stage.drains == [1]


def test_a_crashed_process_is_started_again_after_growing_rests() -> None:
    """Half a second, then twice as long each time, by a fifth longer or shorter."""
    stage = Stage(1, 1)
    rests = []
    for _ in range(LOOP_CRASHES - 1):
        stage.ready()
        crashed_ms = stage.now_ms
        stage.ends(1, -11)
        while not stage.running:
            stage.tick(10)
        rests.append(stage.now_ms - crashed_ms)
    for rest_ms, middle_ms in zip(rests, [500, 1_000, 2_000, 4_000], strict=True):
        assert 0.8 * middle_ms <= rest_ms <= 1.2 * middle_ms + 10
    assert stage.fleet.crashes == stage.fleet.restarts == 4


def test_rests_differ_from_supervisor_to_supervisor() -> None:
    """After a crash that strikes all, not all come back at the same moment."""
    dues = set()
    for seed in range(20):
        stage = Stage(1, 1, seed=seed)
        stage.ends(1, 1)
        dues.add(stage.fleet.places[1].due_ms)
    assert len(dues) > 10


def test_a_minute_of_health_forgets_crashes() -> None:
    """The next rest is as short as the first, and no quarantine is near."""
    stage = Stage(1, 1)
    for _ in range(20):
        stage.ready()
        stage.tick(WELL_MS + 1_000)
        stage.ends(1, 1)
        assert stage.fleet.places[1].due_ms - stage.now_ms <= 600
        stage.tick(1_000)
    assert "quarantined" not in stage.events


def _crash_loop(stage: Stage, number: int) -> None:
    for _ in range(LOOP_CRASHES):
        while number not in stage.running:
            stage.tick(1_000)
        stage.ends(number, -6)


def test_a_crash_loop_is_quarantined_and_the_others_stay() -> None:
    """Five crashes within a minute: it is tried again every five minutes only, and that is told."""
    stage = Stage(3, 3)
    stage.ready()
    _crash_loop(stage, 2)
    assert stage.events.count("quarantined") == 1
    assert stage.fleet.places[2].quarantined
    assert list(stage.running) == [1, 3]
    starts = stage.started
    stage.tick(QUARANTINE_MS - 1_000)
    assert stage.started == starts
    stage.tick(1_000)
    assert stage.started == starts + 1
    stage.ends(2, -6)
    stage.tick(QUARANTINE_MS - 1_000)
    assert stage.started == starts + 1
    assert stage.events.count("quarantined") == 2
    assert stage.drains == stage.kills == []


def test_a_quarantined_process_that_gets_well_is_free() -> None:
    """After a minute it is as all others."""
    stage = Stage(1, 1)
    _crash_loop(stage, 1)
    stage.tick(QUARANTINE_MS)
    stage.ready()
    stage.tick(WELL_MS)
    assert not stage.fleet.places[1].quarantined


def test_hangup_ends_a_quarantine() -> None:
    """Who sends it has mended something: it is tried at once, and counted anew."""
    stage = Stage(1, 1)
    _crash_loop(stage, 1)
    stage.fleet.restart(stage.now_ms)
    stage.tick(0)
    assert list(stage.running) == [1]
    assert not stage.fleet.places[1].quarantined
    assert stage.fleet.places[1].failures == 0


def test_start_me_again_is_no_crash() -> None:
    """A process that exits with 75 is replaced in the same moment, as often as it likes."""
    stage = Stage(2, 2)
    stage.ready()
    for _ in range(3 * LOOP_CRASHES):
        stage.ends(1, EXIT_RESTART)
        assert 1 in stage.running
        stage.ready(1)
    assert stage.fleet.crashes == 0
    assert stage.fleet.restarts == 3 * LOOP_CRASHES
    assert not {"crashed", "quarantined"} & {*stage.events}


def test_start_me_again_before_the_start_is_a_crash() -> None:
    """Else a process that can do nothing else would be started as fast as the machine can."""
    stage = Stage(1, 1)
    stage.ends(1, EXIT_RESTART)
    assert stage.fleet.crashes == 1
    assert not stage.running


def test_one_that_drains_by_itself_is_replaced_while_it_drains() -> None:
    """Whoever asked it to end, and however it says goodbye: no crash, and no slot is missing."""
    stage = Stage(2, 2)
    stage.ready()
    for code in (0, EXIT_RESTART):
        number = min(stage.running)
        stage.says(number, Phase.DRAINING)
        assert len(stage.running) == 3
        stage.ends(number, code)
        stage.ready()
        assert len(stage.running) == 2
    assert stage.fleet.crashes == 0
    assert stage.drains == []


@pytest.mark.parametrize("code", [0, 1, -9])
def test_an_end_without_a_word_is_a_crash(code: int) -> None:
    """Exit code 0 as well: a job may have called os._exit."""
    stage = Stage(1, 1)
    stage.ready()
    stage.ends(1, code)
    assert stage.fleet.crashes == 1


REFUSAL = Refusal(message="there is no module app", reason="APP_NOT_IMPORTABLE", code=2)


def test_what_cannot_start_at_all_ends_all_at_once() -> None:
    """The first refusal before anything was ready: nobody tries again, and the reason is kept."""
    stage = Stage(2, 4)
    stage.says(1, Phase.STARTING, refusal=REFUSAL)
    assert stage.fleet.refusal is REFUSAL
    stage.ends(1, 2)
    assert stage.drains == [1, 2]
    assert not stage.fleet.over
    stage.ends(2, 2)
    assert stage.fleet.over
    stage.tick(60_000)
    assert stage.started == 2


def test_a_refusal_later_is_a_crash_like_others() -> None:
    """Whoever deploys a broken module in place takes down what crashes, and nothing else."""
    stage = Stage(2, 2)
    stage.ready()
    stage.ends(1, -9)
    stage.tick(1_000)
    stage.says(1, Phase.STARTING, refusal=REFUSAL)
    stage.says(1, Phase.WAITING, refusal=REFUSAL)
    assert stage.events.count("refused") == 1
    stage.ends(1, 2)
    assert stage.fleet.refusal is None
    assert stage.fleet.crashes == 2
    assert list(stage.running) == [2]


def test_a_process_that_stands_still_is_killed_and_replaced() -> None:
    """One that says nothing for a minute holds slots for nothing. Imports may take as long."""
    stage = Stage(2, 2)
    stage.tick(10 * SILENT_MS_MAX)
    assert stage.kills == []
    stage.ready()
    stage.tick(SILENT_MS_MAX + 1_000, silent=(2,))
    assert stage.kills == [2]
    stage.ends(2, -9)
    stage.tick(1_000, silent=(2,))
    assert list(stage.running) == [1, 2]


def test_one_that_waits_for_its_files_is_not_killed() -> None:
    """With --reload it says once that its application does not import, and then nothing."""
    stage = Stage(1, 1)
    stage.ready()
    stage.ends(1, EXIT_RESTART)
    stage.says(1, Phase.WAITING, refusal=REFUSAL)
    stage.tick(10 * SILENT_MS_MAX)
    assert stage.kills == []
    stage.ends(1, EXIT_RESTART)
    assert list(stage.running) == [1]
    assert stage.fleet.crashes == 0


def test_who_stood_still_itself_blames_nobody() -> None:
    """After a supervisor was frozen, what its processes have said is still to be read."""
    stage = Stage(2, 2)
    stage.ready()
    stage.now_ms += 10 * SILENT_MS_MAX
    stage.fleet.tick(stage.now_ms)
    assert stage.fleet.take_orders() == []


def test_a_rolling_restart_never_has_less_than_wanted() -> None:
    """Each new process is ready before an old one is drained, and one goes after the other."""
    stage = Stage(3, 3)
    stage.ready()
    before = {*stage.running.values()}
    stage.fleet.restart(stage.now_ms)
    while stage.fleet.rolling:
        stage.tick(1_000)
        assert stage.fleet.ready >= 3 or stage.drains
        drained = [n for n in stage.running if stage.fleet.places[n].state is State.DRAINING]
        assert len(drained) <= 1
        assert stage.fleet.ready + len(drained) >= 3
        for number in drained:
            stage.ends(number)
        for number in list(stage.running):
            if stage.fleet.places[number].state is State.STARTING:
                stage.ready(number)
    assert len(stage.running) == 3
    assert not before & {*stage.running.values()}
    assert stage.events[-1] == "restarted"
    assert stage.fleet.crashes == 0
    assert stage.fleet.restarts == 3


def test_a_restart_amid_a_restart_replaces_all_that_are_older() -> None:
    """Also those that the first one has started."""
    stage = Stage(2, 2)
    stage.ready()
    stage.fleet.restart(stage.now_ms)
    stage.tick(0)
    stage.ready(3)
    stage.fleet.restart(stage.now_ms)
    for _ in range(20):
        stage.tick(1_000)
        for number in list(stage.running):
            match stage.fleet.places[number].state:
                case State.DRAINING:
                    stage.ends(number)
                case State.STARTING:
                    stage.ready(number)
    assert not stage.fleet.rolling
    assert min(stage.running.values()) > 3


@pytest.mark.parametrize("how", ["ends", "hangs"])
def test_a_restart_stops_at_the_first_that_does_not_come_up(how: str) -> None:
    """A broken deployment costs nothing: the old processes go on."""
    stage = Stage(2, 2)
    stage.ready()
    stage.fleet.restart(stage.now_ms)
    stage.tick(0)
    assert list(stage.running) == [1, 2, 3]
    if how == "ends":
        stage.ends(3, 2)
    else:
        stage.tick(COME_UP_MS_MAX + 1_000)
        assert stage.drains == [3]
        stage.ends(3)
    stage.tick(60_000)
    assert list(stage.running) == [1, 2]
    assert {*stage.drains} <= {3}
    assert stage.events.count("restart_failed") == 1
    assert not stage.fleet.rolling


def test_a_drain_asks_all_and_a_second_one_asks_again() -> None:
    """All end, also those that rest; nothing is started any more."""
    stage = Stage(3, 3)
    stage.ready()
    stage.ends(2, 1)
    stage.fleet.drain(stage.now_ms)
    stage.tick(0)
    assert stage.drains == [1, 3]
    stage.fleet.drain(stage.now_ms)
    stage.tick(0)
    assert stage.drains == [1, 3, 1, 3]
    stage.ends(1)
    stage.tick(10_000)
    assert not stage.fleet.over
    stage.ends(3)
    assert stage.fleet.over
    assert stage.started == 3


def test_what_does_not_end_in_time_is_killed() -> None:
    """Its drain's time, and as long as last words may take; less after a second request."""
    stage = Stage(2, 2)
    stage.ready()
    stage.fleet.drain(stage.now_ms)
    stage.tick(DRAIN_MS)
    stage.ends(1)
    stage.tick(LAST_WORDS_MS_MAX - 1_000)
    assert stage.kills == []
    stage.tick(1_000)
    assert stage.kills == [2]
    hurried = Stage(1, 1)
    hurried.ready()
    hurried.fleet.drain(hurried.now_ms)
    hurried.fleet.drain(hurried.now_ms)
    hurried.tick(LAST_WORDS_MS_MAX)
    assert hurried.kills == [1]


def test_numbers_are_unique_and_given_again() -> None:
    """Whatever happens, no two processes have one number, and numbers stay small."""
    rng = random.Random(7)
    stage = Stage(2, 4)
    for step in range(3_000):
        stage.load = {n: (rng.choice([0, SLOTS]), rng.choice([0, 40])) for n in range(1, 20)}
        for number in list(stage.running):
            place, chance = stage.fleet.places[number], rng.random()
            if place.state is State.STARTING and chance < 0.5:
                stage.ready(number)
            elif place.state is State.DRAINING and chance < 0.5:
                stage.ends(number)
            elif chance < 0.02:
                stage.ends(number, rng.choice([-9, 1, 0, EXIT_RESTART]))
            elif chance < 0.03:
                stage.says(number, Phase.DRAINING)
        if step % 100 == 50:
            stage.fleet.restart(stage.now_ms)
        stage.tick(rng.choice([100, 1_000, 5_000]))
        kept = [p for p in stage.fleet.places.values() if p.state is not State.DRAINING]
        assert 2 <= stage.fleet.target <= 4
        assert stage.fleet.target <= len(kept) <= stage.fleet.target + 1
        assert max(stage.fleet.places) <= 12
