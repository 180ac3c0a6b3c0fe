"""What a master knows of another one's clocks, whatever happens to their keys on the way."""

import statistics
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.election.port import Candidate, Member
from tenure.master.node.peer_clock import KEY_AGE_MS_MAX, PeerClock
from tenure.master.node.roster import Roster
from tests.unit.master.node.test_clock import Machine

#: Each clock is read in whole milliseconds.
ROUNDING_MS = 2


def key(wall_ms: int, *, boot_ms: int | None = None, heard_ms: int | None = None) -> Member:
    """What master b has written of itself; it has heard of a's boot clock, or not."""
    return Member(
        candidate=Candidate(incarnation="b", name="b", address="b:1"),
        version="1",
        wall_ms=wall_ms,
        boot_ms=boot_ms,
        heard_ms={} if heard_ms is None else {"a": heard_ms},
    )


def test_a_wall_counts_as_what_is_nearest_to_ones_own() -> None:
    """A key was written after what it has heard, and before it was read."""
    peer = PeerClock("a", 9_000)
    peer.read(key(1_000_000, heard_ms=7_000), 9_000)
    # It was 1,000,000 between 7,000 and 9,000: now, at 10,000, it is 1,001,000 to 1,003,000.
    walls_ms = [1_000_500, 1_002_000, 1_009_000]
    assert [peer.nearest_ms(ms, 10_000) for ms in walls_ms] == [1_001_000, 1_002_000, 1_003_000]


def test_bounds_only_get_closer() -> None:
    """Of several readings the highest lower bound and the lowest upper bound count."""
    peer = PeerClock("a", 9_000)
    peer.read(key(1_000_000, heard_ms=7_000), 9_000)
    peer.read(key(1_002_000, heard_ms=6_000), 9_500)
    assert [peer.nearest_ms(ms, 10_000) for ms in (0, 2_000_000)] == [1_002_500, 1_003_000]


def test_one_key_is_one_reading_however_often_it_is_read() -> None:
    """A key that was not renewed says nothing new."""
    peer = PeerClock("a", 9_000)
    for boot_ms in (9_000, 11_000, 13_000):
        peer.read(key(1_000_000, boot_ms=5_000, heard_ms=8_000), boot_ms)
    assert peer.readings == 1
    assert peer.nearest_ms(0, 13_000) == 1_004_000


def test_a_release_without_boot_clocks_is_taken_to_be_recent() -> None:
    """Its wall shows no less than it said, and no more than a live key is old."""
    peer = PeerClock("a", 9_000)
    peer.read(key(1_000_000), 9_000)
    assert peer.nearest_ms(0, 9_000) == 1_000_000
    assert peer.nearest_ms(1_000_000 + KEY_AGE_MS_MAX - 1, 9_000) == 999_999 + KEY_AGE_MS_MAX
    assert peer.nearest_ms(9_000_000, 9_000) == 1_000_000 + KEY_AGE_MS_MAX
    assert peer.boot_ms(9_000) is None
    assert not peer.doubts(9_000_000, 9_000)


def test_who_has_not_heard_of_us_gives_no_upper_bound() -> None:
    """While etcd is away keys get older than their leases; a wall far ahead waits for answers."""
    peer = PeerClock("a", 9_000)
    peer.read(key(1_000_000, boot_ms=1), 9_000)
    assert peer.nearest_ms(0, 9_000) == 1_000_000
    assert peer.nearest_ms(9_000_000, 9_000) == 9_000_000
    assert not peer.doubts(1_000_000 + KEY_AGE_MS_MAX, 9_000)
    assert peer.doubts(1_000_001 + KEY_AGE_MS_MAX, 9_000)
    # The dead never answer.
    assert peer.doubts(9_000_000, 14_999)
    assert not peer.doubts(9_000_000, 15_000)
    peer.read(key(1_001_000, boot_ms=1_001, heard_ms=9_500), 10_000)
    assert not peer.doubts(9_000_000, 10_000)
    assert peer.nearest_ms(9_000_000, 10_000) == 1_001_500


def test_a_wall_that_jumps_is_believed_at_once() -> None:
    """Readings that contradict the newest one are of a clock that was set since."""
    for jump_ms in (-3_600_000, 3_600_000):
        peer = PeerClock("a", 9_000)
        peer.read(key(1_000_000, heard_ms=8_900), 9_000)
        peer.read(key(1_002_000 + jump_ms, heard_ms=10_900), 11_000)
        nearest_ms = peer.nearest_ms(1_002_000, 11_000)
        assert abs(nearest_ms - 1_002_000 - jump_ms) <= 100


@dataclass
class Exchange:
    """Masters, the true time, and the keys in the store."""

    #: How far each one's wall and boot clocks are ahead of the true time.
    walls_ms: list[int]
    boots_ms: list[int]
    now_ms: int = 10_000_000
    machines: list[Machine] = field(default_factory=list)
    rosters: list[Roster] = field(default_factory=list)
    keys: dict[int, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in range(len(self.walls_ms)):
            me = Candidate(incarnation=f"i{number}", name=f"m{number}", address=f"m{number}:1")
            self.machines.append(Machine())
            self.rosters.append(
                Roster(cluster_id="c", partitions=1, me=me, clock=self.machines[number])
            )

    def wait(self, ms: int) -> None:
        """Time goes on for all."""
        self.now_ms += ms
        for number, machine in enumerate(self.machines):
            machine.wall = self.now_ms + self.walls_ms[number]
            machine.boot = self.now_ms + self.boots_ms[number]

    def write(self, number: int) -> Member:
        """A master looks at its clocks; its key is in the store later."""
        roster, machine = self.rosters[number], self.machines[number]
        return Member(
            candidate=roster.me,
            version="1",
            wall_ms=machine.wall,
            boot_ms=machine.boot,
            heard_ms=roster.heard_ms(),
        )


_STEP = st.tuples(
    st.integers(0, 2), st.integers(0, 4_000), st.integers(0, 8_000), st.integers(0, 8_000)
)
_OFFSETS = st.lists(st.integers(-(10**7), 10**7), min_size=3, max_size=3)


@given(_OFFSETS, _OFFSETS, st.lists(_STEP, min_size=6, max_size=40))
def test_a_terms_time_is_between_the_masters_clocks_whatever_the_delays(
    walls_ms: list[int], boots_ms: list[int], steps: list[tuple[int, int, int, int]]
) -> None:
    """The median lies between the least and the greatest wall, whoever asks; equal ones are met."""
    site = Exchange(walls_ms, boots_ms)
    for number, pause_ms, on_its_way_ms, answered_ms in steps:
        site.wait(pause_ms)
        written = site.write(number)
        site.wait(on_its_way_ms)
        site.keys[number] = written
        found = list(site.keys.values())
        site.wait(answered_ms)
        roster = site.rosters[number]
        roster.meet(found)
        ahead_ms = statistics.median(roster.walls_ms()) - site.now_ms
        live = [walls_ms[one] for one in {*site.keys, number}]
        assert min(live) - ROUNDING_MS <= ahead_ms <= max(live) + ROUNDING_MS
