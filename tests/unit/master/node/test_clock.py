"""The term clock."""

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.node.clock import SystemClock, TermClock


class Machine:
    """Clocks that a test sets."""

    def __init__(self) -> None:
        self.boot = 1_000
        self.wall = 1_000_000

    def boot_ms(self) -> int:
        return self.boot

    def wall_ms(self) -> int:
        return self.wall

    async def sleep(self, ms: int) -> None:
        self.boot += ms


def test_starts_no_earlier_than_the_journal() -> None:
    """A wall clock that is behind the last stamp does not take time back."""
    assert TermClock(Machine(), stamp_ms=2_000_000, walls_ms=[1_000_000]).now_ms() == 2_000_000


def test_starts_at_the_median_of_the_masters() -> None:
    """One master with a wrong clock does not decide."""
    walls_ms = [1_000_000, 1_000_010, 9_000_000]
    assert TermClock(Machine(), stamp_ms=0, walls_ms=walls_ms).now_ms() == 1_000_010


def test_a_jump_of_the_wall_moves_nothing() -> None:
    """The clock runs by the boot clock; a jump is followed by 1 % of the time at most."""
    machine = Machine()
    clock = TermClock(machine, stamp_ms=0, walls_ms=[1_000_000])
    assert clock.slew([1_000_000 + 3_600_000]) == 3_600_000
    assert clock.now_ms() == 1_000_000
    machine.boot += 10_000
    assert clock.now_ms() == 1_010_100


@given(
    st.lists(
        st.tuples(
            st.integers(min_value=0, max_value=10_000),
            st.integers(min_value=-(10**7), max_value=10**7),
        ),
        max_size=30,
    )
)
def test_never_runs_back_nor_stands_still(steps: list[tuple[int, int]]) -> None:
    """Whatever the walls say, time rises, by 99 % to 101 % of the time that passes."""
    machine = Machine()
    clock = TermClock(machine, stamp_ms=0, walls_ms=[machine.wall])
    for passed_ms, skew_ms in steps:
        before_ms = clock.now_ms()
        machine.boot += passed_ms
        machine.wall += passed_ms
        clock.slew([machine.wall + skew_ms])
        gone_ms = clock.now_ms() - before_ms
        assert passed_ms * 0.99 - 2 <= gone_ms <= passed_ms * 1.01 + 2


def test_the_system_clock_reads_the_machine() -> None:
    """Both clocks rise and are in milliseconds."""
    clock = SystemClock()
    assert clock.wall_ms() > 1_600_000_000_000
    assert clock.boot_ms() <= clock.boot_ms()
