"""How far a workflow is: ``workflow.explain()``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenure.client.explain import Explanation
from tenure.protocol.ids import time_ms_of
from tenure.protocol.vocabulary import TERMINAL, JobState, WorkflowState
from tenure.v1 import workflows_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """How far a workflow is, as the leaders of its members knew when they were asked.

    Attributes:
        workflow_id: The workflow.
        state: How it does.
        counts: Its members by state.
        running: Members that run.
        next: Members that wait for no other member, in the order in which they were added, to the
            millisecond: what keeps these keeps the workflow.
        explanations: Why the first of those do not run.
    """

    workflow_id: str
    state: WorkflowState
    counts: Mapping[JobState, int]
    running: Sequence[workflows_pb2.WorkflowMember]
    next: Sequence[workflows_pb2.WorkflowMember]
    explanations: Sequence[Explanation]


def counts_of(members: Sequence[workflows_pb2.WorkflowMember]) -> dict[JobState, int]:
    """Members by state."""
    counts: dict[JobState, int] = {}
    for member in members:
        state = JobState(member.state)
        counts[state] = counts.get(state, 0) + 1
    return counts


def next_of(
    members: Sequence[workflows_pb2.WorkflowMember],
) -> list[workflows_pb2.WorkflowMember]:
    """Members that neither run nor have ended, and none of whose parents among them has to end."""
    open_ids = {member.job_id for member in members if JobState(member.state) not in TERMINAL}
    found = [
        member
        for member in members
        if member.job_id in open_ids
        and JobState(member.state) is not JobState.RUNNING
        and open_ids.isdisjoint(member.parents)
    ]
    return sorted(found, key=lambda member: time_ms_of(member.job_id))
