"""S14: a job runs after its parents, and only if what they came to lets it.

A partition's journal tells what became of its jobs and workflows, what it told other partitions of
them, and what it heard of others' (that it had been said is for ``post`` to see). So, one partition
at a time:

- While a job waits for its parents it is neither ready nor granted. When they let it run, or end
  it, all of them have ended; each outcome that this rests on is what the journal says that parent
  was by then, or what was heard of it (of an earlier run, if it was purged since); and what comes
  of them is what the job's policy says: ``fate_of``.
- While a batch requeues jobs, nothing is decided on a job that was requeued and has a parent that
  is FAILED or CANCELLED: the batch may bring that one back, too.
- What is told of a job elsewhere is what it is.
- A workflow is a parent of its members that ends when it is sealed: no member runs before that, by
  whatever policy, and none is accepted after.
- A parent of a job's own partition is there when the job is accepted.
- Once all is well nobody waits for parents that have all ended, or are not known any more, unless
  its policy holds it for one that failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Final

from tests.oracles.facts import (
    Adopted,
    BatchEnded,
    BatchMade,
    Fact,
    Freed,
    Granted,
    Purged,
    Readied,
    Requeued,
    Sent,
    Settled,
    Submitted,
    TermBegan,
    Told,
    Withdrawn,
    WorkflowForgotten,
    WorkflowIs,
    last_ms,
)
from tests.oracles.history import SEAL, Row
from tests.oracles.verdict import Violation

#: So long after the last of its parents has ended, at most, a job's fate is decided.
DECIDED_WITHIN_MS: Final = 20_000
ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "GONE"})
#: What a requeue can bring back.
_REVIVABLE: Final = frozenset({"FAILED", "CANCELLED"})
#: What is told of a job may be decided on with what becomes of it then, a few events before.
_TOGETHER: Final = 4


class Fate(Enum):
    """What becomes of a job whose parents have all ended."""

    RUN = auto()
    FAIL = auto()
    SKIP = auto()
    HOLD = auto()


def fate_of(job: Submitted, outcomes: Sequence[str]) -> Fate:
    """What a job's policy makes of its parents' outcomes."""
    if job.workflow and outcomes[0] != "COMPLETED":
        # Its workflow was never sealed.
        return Fate.SKIP
    well = all(outcome == "COMPLETED" for outcome in outcomes)
    if job.run_if == "ANY_FAILED":
        return Fate.SKIP if well else Fate.RUN
    if well or job.run_if == "ALWAYS":
        return Fate.RUN
    return {"FAIL": Fate.FAIL, "IGNORE": Fate.RUN, "HOLD": Fate.HOLD}[job.on_parent_failure]


def check_dependencies(
    facts: Mapping[int, Sequence[Fact]], rows: Sequence[Row], *, drained: bool
) -> list[Violation]:
    """All jobs with parents, of all partitions.

    Args:
        facts: Of each partition, in journal order.
        rows: The history.
        drained: Whether all was well again at the end, for long enough.
    """
    families = {partition: _Family(partition) for partition in facts}
    violations = []
    sealed: set[str] = set()
    for partition, found in facts.items():
        family = families[partition]
        for fact in found:
            family.see(fact)
        violations += family.violations
        sealed |= family.sealed
    violations += [
        Violation("S14", row.workflow, "it was acknowledged to be sealed, and is not")
        for row in rows
        if row.f == SEAL and row.type == "ok" and row.workflow not in sealed
    ]
    if not drained:
        return violations
    ends: dict[str, tuple[str, int]] = {}
    for family in families.values():
        ends |= family.ends()
    for partition, family in families.items():
        violations += family.check_waiting(ends, last_ms(facts[partition]))
    return violations


class _Family:
    """The jobs of one partition, and what is known there of their parents."""

    def __init__(self, partition: int) -> None:
        self.violations: list[Violation] = []
        #: What each job and workflow is to its children.
        self.outcomes: dict[str, str] = {}
        #: Workflows that ever were sealed.
        self.sealed: set[str] = set()
        self._home = f"{partition:03x}"
        #: By which event that came, and when.
        self._since: dict[str, tuple[int, int]] = {}
        #: Jobs with parents, and those of them that wait for these.
        self._children: dict[str, Submitted] = {}
        self._waiting: set[str] = set()
        #: By (child, parent elsewhere), what was heard last; and what was known when the child's
        #: fate was decided on.
        self._heard: dict[tuple[str, str], str] = {}
        self._decided: dict[str, tuple[str, ...]] = {}
        self._heard_ms: dict[str, int] = {}
        self._term_ms = 0
        #: Jobs that ever were requeued, and batches under way that requeue some.
        self._requeued: set[str] = set()
        self._revivals: set[str] = set()
        self._revived_ms = 0

    def see(self, fact: Fact) -> None:
        """The next fact."""
        match fact:
            case Submitted():
                self._submit(fact)
            case Readied() | Granted() | Adopted():
                if fact.job in self._waiting:
                    what = type(fact).__name__.lower()
                    self._say(fact.job, f"seq {fact.seq}: {what} while it waits for its parents")
            case Freed():
                self._decide(fact.job, fact.outcomes, {Fate.RUN}, "runs")
            case Settled():
                if fact.outcomes:
                    fate = {"FAILED": Fate.FAIL, "CANCELLED": Fate.SKIP}.get(fact.state)
                    self._decide(fact.job, fact.outcomes, {fate}, f"is {fact.state}")
                self._waiting.discard(fact.job)
                self._set(fact.job, fact.state, fact.seq, fact.at_ms)
            case Requeued():
                self._requeue(fact)
            case Withdrawn() | Purged():
                self._waiting.discard(fact.job)
                self._set(fact.job, "GONE", fact.seq)
            case WorkflowIs():
                if fact.outcome == "COMPLETED":
                    self.sealed.add(fact.workflow)
                self._set(fact.workflow, fact.outcome, fact.seq, fact.at_ms)
            case WorkflowForgotten():
                self._set(fact.workflow, "GONE", fact.seq, fact.at_ms)
            case Told():
                self._heard[fact.child, fact.parent] = fact.outcome
                self._heard_ms[fact.child] = fact.at_ms
            case Sent() if fact.message.kind == "tell":
                self._tell(fact)
            case TermBegan():
                self._term_ms = fact.at_ms
            case BatchMade() if fact.kind == "REQUEUE":
                self._revivals.add(fact.batch)
            case BatchEnded() if fact.batch in self._revivals:
                self._revivals.remove(fact.batch)
                self._revived_ms = fact.at_ms
            case _:
                pass

    def _set(self, name: str, outcome: str, seq: int, at_ms: int = 0) -> None:
        if self.outcomes.get(name) != outcome:
            self.outcomes[name] = outcome
            self._since[name] = (seq, at_ms)

    def _submit(self, fact: Submitted) -> None:
        self._set(fact.job, "OPEN", fact.seq, fact.at_ms)
        if not fact.parents:
            return
        self._children[fact.job] = fact
        self._waiting.add(fact.job)
        for parent in fact.parents:
            if parent[15:18] != self._home:
                continue
            known = self.outcomes.get(parent, "GONE")
            if known == "GONE":
                self._say(fact.job, f"accepted, though its parent {parent} was not there")
            if parent == fact.workflow and known != "OPEN":
                self._say(fact.job, f"accepted by its workflow {parent}, which was {known}")

    def _requeue(self, fact: Requeued) -> None:
        self._set(fact.job, "OPEN", fact.seq, fact.at_ms)
        self._requeued.add(fact.job)
        child = self._children.get(fact.job)
        if child is not None and not fact.pending:
            self._waiting.add(fact.job)
            for parent in child.parents:
                self._heard.pop((fact.job, parent), None)

    def _decide(
        self, job: str, outcomes: tuple[str, ...], allowed: set[Fate | None], what: str
    ) -> None:
        """A job's parents have let it run, or ended it."""
        child = self._children.get(job)
        if child is None or job not in self._waiting or len(outcomes) != len(child.parents):
            self._say(job, f"{what} by parents {outcomes}, but it waits for none such")
            return
        self._waiting.discard(job)
        before = self._decided.get(job, ("",) * len(outcomes))
        self._decided[job] = outcomes
        for parent, outcome, known in zip(child.parents, outcomes, before, strict=True):
            true = self._outcome(job, parent)
            if outcome != true and not (true == "GONE" and outcome == known):
                self._say(job, f"{what}, as if its parent {parent} were {outcome}: it is {true}")
            if outcome not in ENDED:
                self._say(job, f"{what}, though its parent {parent} has not ended")
        if self._revivals and job in self._requeued and not _REVIVABLE.isdisjoint(outcomes):
            self._say(job, f"{what} by parents {outcomes} while jobs are requeued by a batch")
        fate = fate_of(child, outcomes)
        if fate not in allowed:
            self._say(job, f"{what}, but its policy says {fate.name}, with its parents {outcomes}")

    def _outcome(self, child: str, parent: str) -> str:
        """What a parent is, as far as the child's partition knows."""
        if parent[15:18] == self._home:
            return self.outcomes.get(parent, "GONE")
        return self._heard.get((child, parent), "UNASKED")

    def _tell(self, fact: Sent) -> None:
        """Another partition is told what a job or a workflow of this one is."""
        job, said = fact.message.job, fact.message.outcome
        true = self.outcomes.get(job, "GONE")
        fresh = self._since.get(job, (0, 0))[0] >= fact.seq - _TOGETHER
        if said != true and not (said == "OPEN" and fresh):
            self._say(job, f"partition {fact.target} was told that it is {said}: it is {true}")

    def ends(self) -> dict[str, tuple[str, int]]:
        """The jobs and workflows that have ended: as what, and when."""
        return {
            name: (outcome, self._since[name][1])
            for name, outcome in self.outcomes.items()
            if outcome in ENDED
        }

    def check_waiting(
        self, ends: Mapping[str, tuple[str, int]], now_ms: int
    ) -> Iterator[Violation]:
        """Nobody waits at the end for whom there is nothing to wait for.

        Args:
            ends: What jobs and workflows of all partitions have come to, and when.
            now_ms: When the journal ends.
        """
        for job in sorted(self._waiting):
            child = self._children[job]
            if not ends.keys() >= set(child.parents):
                continue
            outcomes, times = zip(*(ends[parent] for parent in child.parents), strict=True)
            known = self._decided.get(job, outcomes)
            found = [
                before if outcome == "GONE" else outcome
                for outcome, before in zip(outcomes, known, strict=True)
            ]
            known_ms = max(self._heard_ms.get(job, 0), self._term_ms, self._revived_ms)
            since_ms = max(*times, child.at_ms, known_ms)
            late = now_ms - since_ms > DECIDED_WITHIN_MS
            if late and fate_of(child, found) is not Fate.HOLD:
                yield Violation("S14", job, f"waits for parents that have all ended: {found}")

    def _say(self, job: str, wrong: str) -> None:
        self.violations.append(Violation("S14", job, wrong))
