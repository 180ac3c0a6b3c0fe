"""The text of a filter: what the SDK is given is what the master selects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.client.filter import filter_text
from tenure.master.core.query import Filter
from tenure.master.node.selection import select_jobs
from tenure.protocol.errors import Rejected
from tenure.protocol.vocabulary import JobState

NAMES = st.text(min_size=1, max_size=8)


@given(st.sets(st.sampled_from(JobState)), NAMES, NAMES, NAMES)
def test_names_are_taken_as_they_are(
    states: set[JobState], queue: str, name: str, tenant: str
) -> None:
    """Quotes, backslashes and stars in a name mean themselves, and the master may use its index."""
    text = filter_text("", states, queue, name, tenant)

    assert select_jobs(text) == Filter(frozenset(states), queue, name, tenant)


def test_nothing_given_is_no_filter() -> None:
    """A list of everything has an empty filter."""
    assert filter_text("  ", (), "", "", "") == ""


def test_positions_are_those_of_the_callers_text() -> None:
    """An error points into what the caller wrote."""
    text = filter_text("priority = 1 OR colour = red", [JobState.FAILED], "mail", "", "")

    with pytest.raises(Rejected) as refused:
        select_jobs(text)
    assert refused.value.metadata["position"] == "17"


def test_the_callers_text_keeps_its_meaning() -> None:
    """AND binds least, so what is joined by it needs no parentheses."""
    text = filter_text("state = FAILED OR state = CANCELLED", (), "mail", "", "")

    assert select_jobs(text) == Filter(frozenset({JobState.FAILED, JobState.CANCELLED}), "mail")
