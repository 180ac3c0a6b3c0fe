"""How a workflow does, by what its home and its members' partitions tell."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tenure.client.workflow import state_of
from tenure.protocol.vocabulary import JobState, WorkflowState
from tenure.v1 import workflows_pb2

J, W = JobState, WorkflowState


@pytest.mark.parametrize(
    ("members", "counts", "state"),
    [
        (2, {J.COMPLETED: 1, J.RUNNING: 1}, W.RUNNING),
        (3, {J.FAILED: 1, J.BLOCKED: 1}, W.RUNNING),
        (2, {J.COMPLETED: 1, J.CANCELLED: 1}, W.COMPLETED),
        (2, {J.COMPLETED: 1, J.FAILED: 1}, W.FAILED),
        (3, {J.COMPLETED: 1, J.FAILED: 1}, W.FAILED),
        (3, {J.COMPLETED: 2}, W.ENDED),
        (3, {}, W.ENDED),
        (0, {}, W.COMPLETED),
    ],
)
def test_how_a_workflow_does(
    members: int, counts: Mapping[JobState, int], state: WorkflowState
) -> None:
    """It has COMPLETED only if each member is known and none is FAILED; else nothing is made up."""
    workflow = workflows_pb2.Workflow(members=members)
    assert state_of(workflow, counts) is W.OPEN
    workflow.sealed_at.FromMilliseconds(1)
    assert state_of(workflow, counts) is state
    workflow.cancelled_at.FromMilliseconds(2)
    assert state_of(workflow, counts) is W.CANCELLED
