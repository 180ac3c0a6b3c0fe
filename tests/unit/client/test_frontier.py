"""The frontier of a workflow: what waits for no other member."""

from hypothesis import given
from hypothesis import strategies as st

from tenure.client.frontier import counts_of, next_of
from tenure.protocol.ids import mint
from tenure.protocol.vocabulary import TERMINAL, JobState
from tenure.v1 import workflows_pb2

#: A member: its state, and how far back its parents were added.
ROWS = st.lists(
    st.tuples(st.sampled_from(JobState), st.frozensets(st.integers(1, 6), max_size=3)), max_size=12
)


def added(index: int) -> str:
    """The id of the member that was added then; below 0, of a job that is no member."""
    return mint(index % 3, 1_000_000 + index, 0)


def graph(
    rows: list[tuple[JobState, frozenset[int]]],
) -> list[workflows_pb2.WorkflowMember]:
    """Members, each with parents among those before it, or elsewhere."""
    return [
        workflows_pb2.WorkflowMember(
            job_id=added(index),
            state=state.value,  # type: ignore[arg-type]
            parents=[added(index - back) for back in sorted(backs)],
        )
        for index, (state, backs) in enumerate(rows)
    ]


@given(ROWS)
def test_what_is_next_waits_for_no_other_member(
    rows: list[tuple[JobState, frozenset[int]]],
) -> None:
    """Exactly the members that neither run nor have ended, and whose parents in the workflow have
    all ended; in the order in which they were added, wherever they live.
    """
    members = graph(rows)
    has_ended = {each.job_id: JobState(each.state) in TERMINAL for each in members}
    expected = [
        each.job_id
        for each in members
        if not has_ended[each.job_id]
        and JobState(each.state) is not JobState.RUNNING
        and all(has_ended.get(parent, True) for parent in each.parents)
    ]
    assert [each.job_id for each in next_of(members[::-1])] == expected
    assert sum(counts_of(members).values()) == len(members)


def test_the_frontier_of_a_large_workflow_is_found_at_once() -> None:
    """Ten thousand members, each of which waits for the two before it: the first one is next."""
    rows = [(JobState.BLOCKED, frozenset({1, 2}))] * 10_000
    assert [each.job_id for each in next_of(graph(rows))] == [added(0)]
