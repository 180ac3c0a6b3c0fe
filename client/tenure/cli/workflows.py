"""``tenure workflows``: jobs that wait for each other, as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import click

from tenure.cli import exits
from tenure.cli.command import Group, Takes, argument, command, option
from tenure.cli.explain_view import explanation_data, kind_text
from tenure.cli.invocation import Invocation
from tenure.cli.job_view import when
from tenure.cli.output import (
    Format,
    View,
    message_data,
    print_fields,
    print_json,
    print_json_line,
    print_table,
)
from tenure.protocol.vocabulary import JobState, WorkflowState

if TYPE_CHECKING:
    from tenure.client import AsyncClient, Explanation, Frontier
    from tenure.v1 import workflows_pb2

app = Group(
    "workflows",
    help="Workflows: jobs that wait for each other, as a whole.",
    no_args_is_help=True,
    examples=[
        ("tenure workflows list", "what there is, and how it does"),
        ("tenure workflows get ID -o mermaid", "its graph with states, as a picture's text"),
        ("tenure workflows explain ID", "how far it is, and what keeps it"),
        ("tenure workflows retry ID", "run again what failed, and what waited for it"),
    ],
)

WorkflowId = Annotated[str, argument(metavar="ID", help="The workflow's id.")]


class _Seen(NamedTuple):
    """A workflow, and its members counted by state."""

    workflow: workflows_pb2.Workflow
    counts: Mapping[JobState, int]

    @property
    def state(self) -> WorkflowState:
        from tenure.client.workflow import state_of

        return state_of(self.workflow, self.counts)

    def data(self) -> dict[str, object]:
        """As JSON values."""
        data = message_data(self.workflow)
        counts = {state.name: number for state, number in sorted(self.counts.items())}
        return {"workflow": data, "state": self.state.name, "counts": counts}


@command(
    "list",
    group=app,
    takes=Takes.OUTPUT | Takes.LIMIT | Takes.WATCH,
    examples=[
        ("tenure workflows list", "newest first in each partition"),
        ("tenure workflows list -o name", "ids only"),
    ],
)
def list_workflows(
    cli: Invocation,
    tenant: Annotated[
        str, option("--tenant", metavar="TENANT", help="Only this tenant's workflows.")
    ] = "",
) -> int:
    """Lists workflows, and how each does."""

    async def fetch(client: AsyncClient) -> Sequence[_Seen]:
        found: list[_Seen] = []
        async for workflow, counts in client.workflows.list(tenant=tenant):
            if len(found) == cli.limit:
                cli.say(f"showing {cli.limit}, and there are more: --limit")
                break
            found.append(_Seen(workflow, counts))
        if not found and cli.watch_s is None:
            cli.hint("there are no workflows")
        return found

    return cli.answer(fetch, lambda found: cli.show(WORKFLOWS, found))


@command(
    "get",
    group=app,
    takes=Takes.WATCH,
    examples=[
        ("tenure workflows get ID", "its state, its members and theirs"),
        ("tenure workflows get ID -o dot | dot -Tsvg > order.svg", "a picture"),
        ("tenure workflows get ID -o mermaid", "for a page that draws Mermaid"),
    ],
)
def get(
    cli: Invocation,
    workflow_id: WorkflowId,
    output: Annotated[
        str,
        option(
            "--output",
            "-o",
            metavar="FORMAT",
            help="table, json, jsonl, or a picture: dot, mermaid.",
            type=click.Choice(["table", "json", "jsonl", "dot", "mermaid"]),
        ),
    ] = "table",
) -> int:
    """Shows a workflow and its graph."""
    from tenure.client.frontier import counts_of

    async def fetch(
        client: AsyncClient,
    ) -> tuple[_Seen, Sequence[workflows_pb2.WorkflowMember]]:
        workflow = await client.workflows.get(workflow_id)
        members = [member async for member in workflow.members()]
        return _Seen(await workflow.describe(), counts_of(members)), members

    return cli.answer(fetch, lambda found: _show(*found, output))


@command(
    "explain",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[
        ("tenure workflows explain ID", "what runs, what is next, and what keeps that"),
        ("tenure workflows explain ID -o name | xargs -n 1 tenure jobs explain", "in full"),
    ],
)
def explain(
    cli: Invocation,
    workflow_id: WorkflowId,
    first: Annotated[
        int,
        option(
            "--first",
            metavar="N",
            help="Of how many to say what keeps them.  [default: 10]",
            type=click.IntRange(1, 100),
        ),
    ] = 10,
) -> int:
    """Says how far a workflow is: which of its jobs run, and what keeps those that are next."""

    async def fetch(client: AsyncClient) -> Frontier:
        workflow = await client.workflows.get(workflow_id)
        found = await workflow.explain(first=first)
        if len(found.next) > first:
            cli.say(f"{len(found.next) - first} more are next: --first")
        return found

    return cli.answer(fetch, lambda found: _show_frontier(found, cli.form))


@command(
    "cancel",
    group=app,
    takes=Takes.CONFIRM,
    examples=[("tenure workflows cancel ID --reason 'bad input'", "all that has not ended")],
)
def cancel(
    cli: Invocation,
    workflow_id: WorkflowId,
    reason: Annotated[str, option("--reason", metavar="TEXT", help="For the record.")] = "",
) -> int:
    """Cancels all of a workflow's jobs that have not ended."""
    cli.confirm(f"Cancel workflow {workflow_id}?", "all its jobs that have not ended are cancelled")

    async def work(client: AsyncClient) -> int:
        workflow = await client.workflows.get(workflow_id)
        await workflow.cancel(reason)
        cli.show(WORKFLOWS, [_Seen(await workflow.describe(), await workflow.counts())])
        return exits.OK

    return cli.with_client(work)


@command(
    "retry",
    group=app,
    examples=[("tenure workflows retry ID", "what failed, and what waited for it")],
)
def retry(cli: Invocation, workflow_id: WorkflowId) -> int:
    """Runs a workflow's jobs again that are FAILED or CANCELLED, parents first."""

    async def work(client: AsyncClient) -> int:
        workflow = await client.workflows.get(workflow_id)
        count = await workflow.retry()
        cli.say(f"{count} jobs of workflow {workflow_id} got a new run")
        return exits.OK

    return cli.with_client(work)


def _row(seen: _Seen) -> Sequence[object]:
    workflow = seen.workflow
    return (
        workflow.workflow_id,
        workflow.name,
        workflow.tenant,
        seen.state.name,
        _told(seen.counts),
        when(workflow.created_at),
    )


WORKFLOWS: View[_Seen] = View(
    ("ID", "NAME", "TENANT", "STATE", "MEMBERS", "CREATED"),
    row=_row,
    data=_Seen.data,
    name=lambda seen: seen.workflow.workflow_id,
)


def _show(seen: _Seen, members: Sequence[workflows_pb2.WorkflowMember], output: str) -> None:
    from tenure.client.picture import to_dot, to_mermaid

    match output:
        case "dot":
            print(to_dot(seen.workflow.name, members))
        case "mermaid":
            print(to_mermaid(members))
        case "json":
            print_json({**seen.data(), "members": [message_data(each) for each in members]})
        case "jsonl":
            for member in members:
                print_json_line(message_data(member))
        case _:
            print_fields(_details(seen))
            print()
            rows = [
                (each.job_id, each.name, JobState(each.state).name, ", ".join(each.parents))
                for each in members
            ]
            print_table(("JOB", "NAME", "STATE", "PARENTS"), rows, headers=True)


def _show_frontier(found: Frontier, form: Format) -> None:
    match form:
        case Format.JSON:
            print_json(_frontier_data(found))
        case Format.JSONL:
            for explanation in found.explanations:
                print_json_line(explanation_data(explanation))
        case Format.NAME:
            for explanation in found.explanations:
                print(explanation.job_id)
        case Format.TABLE:
            print_fields(
                [
                    ("id", found.workflow_id),
                    ("state", found.state.name),
                    ("members", _told(found.counts)),
                    ("next", f"{len(found.next)} wait for no other member" if found.next else ""),
                ]
            )
            names = {each.job_id: each.name for each in found.next}
            rows = [(each.job_id, each.name, "RUNNING", "") for each in found.running]
            rows += [
                (each.job_id, names[each.job_id], each.state.name, _kept_by(each))
                for each in found.explanations
            ]
            if rows:
                print()
                print_table(("JOB", "NAME", "STATE", "BLOCKED BY"), rows, headers=True)


def _kept_by(explanation: Explanation) -> str:
    return "; ".join(f"{kind_text(each)}: {each.text}" for each in explanation.blockers)


def _frontier_data(found: Frontier) -> dict[str, object]:
    return {
        "workflowId": found.workflow_id,
        "state": found.state.name,
        "counts": {state.name: number for state, number in sorted(found.counts.items())},
        "running": [message_data(each) for each in found.running],
        "next": [message_data(each) for each in found.next],
        "explanations": [explanation_data(each) for each in found.explanations],
    }


def _told(counts: Mapping[JobState, int]) -> str:
    """Counts in words."""
    return ", ".join(f"{n} {state.name}" for state, n in sorted(counts.items()))


def _details(seen: _Seen) -> list[tuple[str, object]]:
    workflow = seen.workflow
    return [
        ("id", workflow.workflow_id),
        ("name", workflow.name),
        ("tenant", workflow.tenant),
        ("state", seen.state.name),
        ("members", _told(seen.counts)),
        ("created", when(workflow.created_at)),
        ("sealed", when(workflow.sealed_at)),
        ("seal by", "" if workflow.HasField("sealed_at") else when(workflow.seal_by)),
        ("cancelled", when(workflow.cancelled_at)),
        ("cancel reason", workflow.cancel_reason),
    ]
