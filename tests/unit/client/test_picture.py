"""Pictures of workflows: one node a member, one edge a parent, for both tools."""

from tenure.client.picture import to_dot, to_mermaid
from tenure.protocol.ids import mint
from tenure.protocol.vocabulary import JobState
from tenure.v1 import workflows_pb2

STRANGER = mint(0, 1, 9)


def members() -> list[workflows_pb2.WorkflowMember]:
    """Two that have ended and one that waits for both of them, and for a job of elsewhere."""
    ids = [mint(0, 1, number) for number in range(3)]
    states = [JobState.COMPLETED, JobState.FAILED, JobState.BLOCKED]
    parents = [[], [], [ids[0], ids[1], STRANGER]]
    return [
        workflows_pb2.WorkflowMember(
            job_id=job_id,
            name=f"app.step-{index}",
            state=state.value,  # type: ignore[arg-type]
            parents=parents[index],
        )
        for index, (job_id, state) in enumerate(zip(ids, states, strict=True))
    ]


def test_dot() -> None:
    """A digraph with the name, each member with its state, and the edges between members."""
    assert to_dot("order", members()).splitlines() == [
        'digraph "order" {',
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled"];',
        '  n0 [label="app.step-0\\nCOMPLETED", fillcolor="#b7e1cd"];',
        '  n1 [label="app.step-1\\nFAILED", fillcolor="#f4c7c3"];',
        '  n2 [label="app.step-2\\nBLOCKED", fillcolor="#ffffff"];',
        "  n0 -> n2;",
        "  n1 -> n2;",
        "}",
    ]


def test_mermaid() -> None:
    """A flowchart with each member and its state, the edges, and a colour for each state."""
    assert to_mermaid(members()).splitlines() == [
        "flowchart LR",
        '  n0["app.step-0<br/>COMPLETED"]:::COMPLETED',
        '  n1["app.step-1<br/>FAILED"]:::FAILED',
        '  n2["app.step-2<br/>BLOCKED"]:::BLOCKED',
        "  n0 --> n2",
        "  n1 --> n2",
        "  classDef BLOCKED fill:#ffffff",
        "  classDef COMPLETED fill:#b7e1cd",
        "  classDef FAILED fill:#f4c7c3",
    ]
