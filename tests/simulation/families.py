"""What users do with jobs that depend on each other: children, heirs, callbacks, workflows, flows.

Of a workflow each member has its row of a submit; what is done to it as a whole has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from tenure.client import (
    AsyncJobHandle,
    AsyncStartedFlow,
    AsyncWorkflow,
    Flow,
    JobDef,
    Rejected,
    TenureError,
    chain,
    chord,
    group,
    result_of,
    results_of,
)
from tenure.client.flow import lay
from tenure.client.picture import to_dot, to_mermaid
from tenure.protocol.ids import mint
from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.testing.process import elapse
from tests.oracles.history import SUBMIT, Fields
from tests.simulation.ledger import asked_of, check_explanation
from tests.simulation.load import Handle, NotTaken, Visit, script
from tests.simulation.restoring import insist

_RUN_IFS = ("all_succeeded", "all_succeeded", "any_failed", "always")


def _fate(visit: Visit) -> tuple[str, int]:
    """How a job ends: it mostly works, or fails for good at its first run, or at all of them."""
    return visit.rng.choice((("", 0), ("", 0), ("permanent", 9), ("fail", 9)))


@script(9, "families")
async def bear_children(visit: Visit) -> None:
    """Jobs that wait for others, in any queue, and for what they come to."""
    rng = visit.rng
    family = [await visit.submit(visit.hold_s() / 4, *_fate(visit))]
    held: list[Handle] = []
    for _ in range(rng.randint(1, 5)):
        policy = rng.choice(("fail", "fail", "ignore", "hold"))
        child = await visit.desk.submit(
            visit.works.act,
            *(visit.text(), visit.hold_s() / 4, *_fate(visit)),
            **visit.options(),
            after=rng.sample(family, rng.randint(1, min(3, len(family)))),
            run_if=rng.choice(_RUN_IFS),
            on_parent_failure=policy,
        )
        if child is None:
            break
        family.append(child)
        if policy == "hold":
            held.append(child)
        await elapse(rng.choice((0, 0, rng.uniform(0, 3))))
    others = [_relieve(visit, family, held)] if held else []
    if rng.random() < 0.3:
        others.append(visit.cancel(rng.choice(family)))
    await visit.see_all(family, *others)
    if held:
        # What was requeued ends once more.
        await visit.see_all([visit.handle(each.id) for each in family])


async def _relieve(visit: Visit, family: Sequence[Handle], held: Sequence[Handle]) -> None:
    """Requeues what has failed, as held children wait for it; in the end they are cancelled."""
    for _ in range(visit.rng.randint(1, 2)):
        await elapse(visit.rng.uniform(4, 10))
        for parent in family:
            if parent not in held:
                await visit.desk.requeue(parent.id)
    for child in held:
        await visit.give_up(child, 5)


@script(5, "families")
async def inherit(visit: Visit) -> None:
    """Jobs whose arguments are what others come to: they get exactly that."""
    rng, desk, works = visit.rng, visit.desk, visit.works
    texts, parents = [], []
    for _ in range(rng.randint(1, 3)):
        text = visit.text()
        hold_s, options = visit.hold_s() / 4, visit.options()
        handle = await desk.submit(works.act, text, hold_s, "", 0, **options)
        if handle is None:
            break
        texts.append(text)
        parents.append(handle)
    if not parents:
        return
    child = await desk.submit(
        works.inherit, visit.text(), results_of(parents), texts, **visit.options()
    )
    heirs = [] if child is None else [child]
    relay = await desk.submit(works.relay, result_of(parents[0]), **visit.options())
    heirs += [] if relay is None else [relay]
    await visit.see_all([*parents, *heirs])


@script(3, "families")
async def call_back(visit: Visit) -> None:
    """Jobs that are submitted with one, to run when it has succeeded, or when it has failed."""
    works, options = visit.works, visit.options()
    texts = visit.text(), visit.text()
    well, badly = (works.act.bind(text, 0.1, "", 0) for text in texts)
    job = works.act.options(**options, on_success=well, on_failure=badly)
    # The SDK submits them, and tells of the job alone: of these nobody knows.
    ledger = visit.desk.ledger
    asked = [asked_of(works.act, (text,)) for text in texts]
    calls = [ledger.invoke(SUBMIT, **row) for row in asked]
    handle = await visit.desk.submit(job, visit.text(), visit.hold_s() / 4, *_fate(visit))
    for call, row in zip(calls, asked, strict=True):
        ledger.write("info", SUBMIT, call, **row)
    if handle is not None:
        await visit.see(handle)


@script(2, "families")
async def be_orphan(visit: Visit) -> None:
    """A job after one that there never was: it is refused, or taken out again."""
    now_ms = WALL_ORIGIN_MS + round(visit.now_s() * 1000)
    partition = visit.rng.randrange(visit.cluster.partitions)
    nobody = mint(partition, now_ms, visit.rng.getrandbits(62))
    args = visit.text(), 0.0, "", 0
    handle = await visit.desk.submit(visit.works.act, *args, **visit.options(), after=[nobody])
    if handle is not None:
        raise RuntimeError(f"expected that {handle} is refused, for it has an unknown parent")


# ---- workflows ----------------------------------------------------------------------------------


class Loom:
    """Adds members to a workflow, and notes what is asked for each."""

    def __init__(self, visit: Visit, workflow: AsyncWorkflow) -> None:
        self.workflow = workflow
        #: By id: those that were not submitted.
        self.asked: dict[str, Fields] = {}
        #: Those that were taken for certain.
        self.members: list[AsyncJobHandle[Any]] = []
        #: Whether they were to run again.
        self.retried = False
        self._visit = visit

    def add(self, job: JobDef[..., Any], /, *args: Any, **kwargs: Any) -> AsyncJobHandle[Any]:
        """As the workflow does."""
        if not job.settings.after and job.settings.queue == "default":
            job = job.options(**self._visit.options())
        handle = self.workflow.add(job, *args, **kwargs)
        self.asked[handle.id] = asked_of(job, args, self.workflow.id)
        return handle

    async def flush(self) -> None:
        """Submits what was added."""
        asked, self.asked = self.asked, {}
        if asked:
            self.members += await self._visit.desk.flush(self.workflow, asked)

    async def seal(self) -> bool:
        """Lets it run."""
        await self.flush()
        return await self._visit.desk.seal(self.workflow)


async def _open(visit: Visit) -> Loom:
    """Begins a workflow; one that nobody seals ends soon."""
    name = f"flow-{visit.number}"
    within = timedelta(seconds=visit.rng.choice((3, 20, 30)))
    tenant = visit.options()["tenant"]
    workflow = visit.client.workflow(name, tenant=tenant, seal_within=within)
    try:
        return Loom(visit, await workflow.open())
    except TenureError:
        raise NotTaken from None


@script(8, "workflows")
async def build(visit: Visit) -> None:
    """A workflow in parts: members that depend on each other, flushed now and then, and sealed."""
    rng = visit.rng
    loom = await _open(visit)
    added: list[AsyncJobHandle[Any]] = []
    for _ in range(rng.randint(1, 3)):
        for _ in range(rng.randint(1, 3)):
            job = visit.works.act.options(**visit.options(), run_if=rng.choice(_RUN_IFS))
            if added and rng.random() < 0.7:
                after = rng.sample(added, rng.randint(1, min(2, len(added))))
                job = job.options(after=after, on_parent_failure=rng.choice(("fail", "ignore")))
            added.append(loom.add(job, visit.text(), visit.hold_s() / 4, *_fate(visit)))
        await loom.flush()
        # A member that was refused is nobody's parent.
        added = [*loom.members]
        await elapse(rng.choice((0, rng.uniform(0, 4))))
    if rng.random() < 0.85:
        await loom.seal()
    await _see(visit, loom)


@script(6, "workflows")
async def weave(visit: Visit) -> None:
    """A chain, a group, a chord, or some of them in each other."""
    works, rng = visit.works, visit.rng

    def step() -> Flow[str]:
        fate = rng.choice((("", 0), _fate(visit)))
        return works.act.bind(visit.text(), visit.hold_s() / 8, *fate)

    flows: list[Flow[Any]] = [
        chain(step(), works.relay, works.relay),
        group([step() for _ in range(rng.randint(1, 3))]),
        chord([step() for _ in range(rng.randint(1, 4))], works.relay),
        chord([step(), chain(step(), works.relay)], works.fold),
        chain(chord([step(), step()], works.relay), works.relay),
    ]
    loom = await _open(visit)
    started = AsyncStartedFlow(loom.workflow, lay(rng.choice(flows), loom))
    if not await loom.seal():
        await visit.see_all(loom.members)
        return
    await _see(visit, loom)
    try:
        await started.result(timeout=60)
    except TenureError:
        # Members fail, and others cancel them.
        return


async def _see(visit: Visit, loom: Loom) -> None:
    """Sees what becomes of the members, whatever is done to all of them meanwhile."""
    await visit.see_all(loom.members, _meddle(visit, loom))
    if loom.retried:
        await visit.see_all([visit.handle(each.id) for each in loom.members])


async def _meddle(visit: Visit, loom: Loom) -> None:
    """What one does with a workflow as a whole, and sees of it."""
    rng, workflow = visit.rng, loom.workflow
    for _ in range(rng.choice((0, 1, 1, 2))):
        await elapse(rng.uniform(0, 6))
        try:
            match rng.randrange(6):
                case 0:
                    await workflow.cancel("enough")
                case 1:
                    loom.retried = True
                    await workflow.retry()
                case 2:
                    await workflow.state()
                case 3:
                    members = [member async for member in workflow.members()]
                    drawn = to_dot("flow", members).count("[label")
                    if not drawn == to_mermaid(members).count('["') == len(members):
                        raise RuntimeError(f"expected all of {members} in its pictures")
                case 4:
                    for found in (await workflow.explain(first=5)).explanations:
                        check_explanation(found)
                case _:
                    await (await visit.client.workflows.get(workflow.id)).wait(timeout=5)
        except Rejected:
            # It was never sealed, or it is cancelled.
            continue
        except TenureError:
            await insist(workflow.describe)
