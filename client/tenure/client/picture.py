"""A workflow's graph as text that draws it: Graphviz, and Mermaid."""

from collections.abc import Iterable
from typing import Final

from tenure.protocol.vocabulary import JobState
from tenure.v1 import workflows_pb2

_COLOURS: Final = {
    JobState.COMPLETED: "#b7e1cd",
    JobState.FAILED: "#f4c7c3",
    JobState.CANCELLED: "#d9d9d9",
    JobState.RUNNING: "#c9daf8",
}
_OTHERS: Final = "#ffffff"


def to_dot(name: str, members: Iterable[workflows_pb2.WorkflowMember]) -> str:
    """For ``dot -Tsvg``: a node for each job with its state, an edge from each parent."""
    given = [*members]
    nodes = {member.job_id: f"n{index}" for index, member in enumerate(given)}
    lines = [f'digraph "{name}" {{', "  rankdir=LR;", '  node [shape=box, style="rounded,filled"];']
    for member in given:
        state = JobState(member.state)
        colour = _COLOURS.get(state, _OTHERS)
        label = f"{member.name}\\n{state.name}"
        lines.append(f'  {nodes[member.job_id]} [label="{label}", fillcolor="{colour}"];')
    lines += [f"  {parent} -> {child};" for parent, child in _edges(given, nodes)]
    return "\n".join([*lines, "}"])


def to_mermaid(members: Iterable[workflows_pb2.WorkflowMember]) -> str:
    """For pages that draw Mermaid, as GitHub's do."""
    given = [*members]
    nodes = {member.job_id: f"n{index}" for index, member in enumerate(given)}
    lines = ["flowchart LR"]
    shown: set[JobState] = set()
    for member in given:
        state = JobState(member.state)
        shown.add(state)
        text = f'{nodes[member.job_id]}["{member.name}<br/>{state.name}"]:::{state.name}'
        lines.append(f"  {text}")
    lines += [f"  {parent} --> {child}" for parent, child in _edges(given, nodes)]
    for state in sorted(shown):
        lines.append(f"  classDef {state.name} fill:{_COLOURS.get(state, _OTHERS)}")
    return "\n".join(lines)


def _edges(
    members: Iterable[workflows_pb2.WorkflowMember], nodes: dict[str, str]
) -> list[tuple[str, str]]:
    """Edges inside the graph; a parent that is no member has no node."""
    return [
        (nodes[parent], nodes[member.job_id])
        for member in members
        for parent in member.parents
        if parent in nodes
    ]
