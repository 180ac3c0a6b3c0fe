"""S14, parents and children: a healthy family passes, and what its rules forbid is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import pytest

from tests.oracles.dependencies import Fate, check_dependencies, fate_of
from tests.oracles.facts import (
    BatchEnded,
    BatchMade,
    Fact,
    Freed,
    Granted,
    Message,
    Purged,
    Readied,
    Requeued,
    Sent,
    Settled,
    Submitted,
    TermBegan,
    Told,
    WorkflowIs,
)
from tests.oracles.history import SEAL
from tests.unit.oracles.sample import TERM_1, at, lease

HERE, THERE = "00000000-0000-7000-8000-00000000000", "00000000-0000-7001-8000-00000000000"
#: A job and its child, and a job of another partition.
A, B, FAR = f"{HERE}a", f"{HERE}b", f"{THERE}f"
FLOW = f"{HERE}c"


def submitted(
    seq: int, job: str, *parents: str, run_if: str = "ALL_SUCCEEDED", then: str = "FAIL"
) -> Submitted:
    """A job, which waits for its parents."""
    alone = Submitted(seq, job, job, 1, 0, seq, pending=not parents)
    return alone._replace(parents=parents, run_if=run_if, on_parent_failure=then)


def settled(seq: int, job: str, state: str, *outcomes: str) -> Settled:
    """A job has ended, by a worker's word or by its parents."""
    return Settled(seq, job, 0, "", state, "", at_ms=seq, outcomes=outcomes)


def wrong(facts: Sequence[Fact] | Mapping[int, Sequence[Fact]], *, drained: bool = True) -> int:
    """How much is wrong."""
    by_partition = facts if isinstance(facts, Mapping) else {0: facts}
    found = check_dependencies(by_partition, [], drained=drained)
    assert {violation.invariant for violation in found} <= {"S14"}
    return len(found)


def granted(seq: int, job: str) -> Granted:
    """A worker has it."""
    return Granted(seq, job, lease(TERM_1, seq), 1, seq)


def family(outcome: str = "COMPLETED") -> list[Fact]:
    """A child that runs when its parent is done, and once more when it was requeued."""
    return [
        TermBegan(1, TERM_1, at_ms=1),
        submitted(2, A),
        submitted(3, B, A, run_if="ALWAYS"),
        granted(4, A),
        settled(5, A, outcome),
        Freed(6, B, 6, True, 6, (outcome,)),
        granted(7, B),
        settled(8, B, "FAILED"),
        Purged(9, A),
        Requeued(10, B, 1, 10, pending=False),
        Freed(11, B, 11, True, 11, (outcome,)),
        granted(12, B),
    ]


def test_a_healthy_family_passes() -> None:
    """Whatever becomes of the parent, which is purged before the child's second run."""
    for outcome in ("COMPLETED", "FAILED", "CANCELLED"):
        assert wrong(family(outcome)) == 0


def test_a_lost_or_reordered_fact_is_found() -> None:
    """The parent's end, or what lets the child run, is missing or comes too late."""
    for lost in (4, 5, 10):
        facts = family()
        del facts[lost]
        assert wrong(facts) > 0, lost
    for place in (4, 5):
        facts = family()
        facts[place : place + 2] = reversed(facts[place : place + 2])
        assert wrong(facts) > 0, place


def test_outcomes_that_are_not_true_are_found() -> None:
    """A child is let run by an outcome that its parent never had, or by one that is none."""
    for outcome in ("FAILED", "GONE", "OPEN"):
        facts = family()
        facts[5] = Freed(6, B, 6, True, 6, (outcome,))
        assert wrong(facts) > 0, outcome


def test_a_child_that_becomes_ready_by_its_time_is_found() -> None:
    """Only its parents let it run."""
    facts = family()
    facts[3:3] = [Readied(4, B, 4)]
    assert wrong(facts) == 1


def test_fates_are_those_of_the_policies() -> None:
    """By every policy and every pair of outcomes; what else is done to the child is found."""
    ends = ("COMPLETED", "FAILED", "CANCELLED")
    rules = product(("ALL_SUCCEEDED", "ANY_FAILED", "ALWAYS"), ("FAIL", "IGNORE", "HOLD"))
    for run_if, then in rules:
        for outcomes in product(ends, ends):
            child = submitted(4, B, A, FLOW, run_if=run_if, then=then)
            well = outcomes == ("COMPLETED", "COMPLETED")
            expected = {
                "ALWAYS": Fate.RUN,
                "ANY_FAILED": Fate.SKIP if well else Fate.RUN,
                "ALL_SUCCEEDED": Fate.RUN if well else Fate[then] if then != "IGNORE" else Fate.RUN,
            }[run_if]
            assert fate_of(child, outcomes) is expected
            before = [
                submitted(1, A),
                submitted(2, FLOW),
                child,
                settled(5, A, outcomes[0]),
                settled(6, FLOW, outcomes[1]),
            ]
            for fate, fact in (
                (Fate.RUN, Freed(7, B, 7, True, 7, outcomes)),
                (Fate.FAIL, settled(7, B, "FAILED", *outcomes)),
                (Fate.SKIP, settled(7, B, "CANCELLED", *outcomes)),
            ):
                assert (wrong([*before, fact]) == 0) is (fate is expected), (run_if, then, fact)


@pytest.mark.parametrize("run_if", ["ALL_SUCCEEDED", "ALWAYS"])
def test_members_wait_for_their_workflow(run_if: str) -> None:
    """No policy lets one run before it is sealed, and none is accepted after."""
    member = submitted(2, B, FLOW, run_if=run_if)._replace(workflow=FLOW)
    opened, sealed = WorkflowIs(1, 1, FLOW, "OPEN"), WorkflowIs(3, 3, FLOW, "COMPLETED")
    cancelled = WorkflowIs(3, 3, FLOW, "CANCELLED")

    assert wrong([opened, member, sealed, Freed(4, B, 4, True, 4, ("COMPLETED",))]) == 0
    assert wrong([opened, member, cancelled, settled(4, B, "CANCELLED", "CANCELLED")]) == 0
    assert wrong([opened, member, Freed(4, B, 4, True, 4, ("OPEN",))]) > 0
    assert wrong([opened, member, Freed(4, B, 4, True, 4, ("COMPLETED",))]) > 0
    assert wrong([opened, member, cancelled, Freed(4, B, 4, True, 4, ("CANCELLED",))]) > 0
    assert wrong([opened, sealed, member._replace(seq=4)]) > 0


def test_an_acknowledged_seal_is_in_the_journal() -> None:
    """As any write."""
    row = at(1.0, "ok", SEAL, 1, workflow=FLOW)
    facts: dict[int, list[Fact]] = {0: [WorkflowIs(1, 1, FLOW, "OPEN")]}
    assert len(check_dependencies(facts, [row], drained=True)) == 1
    facts[0].append(WorkflowIs(2, 2, FLOW, "COMPLETED"))
    assert check_dependencies(facts, [row], drained=True) == []


def test_what_is_heard_of_a_parent_elsewhere_counts() -> None:
    """A child runs by what its partition was told, in this run."""
    child = submitted(1, B, FAR)
    told, freed = Told(2, 2, FAR, B, "COMPLETED"), Freed(3, B, 3, True, 3, ("COMPLETED",))

    assert wrong([child, told, freed]) == 0
    assert wrong([child, freed]) > 0
    assert wrong([child, told._replace(outcome="FAILED"), freed]) > 0
    again = [settled(4, B, "FAILED"), Requeued(5, B, 1, 5, pending=False), freed._replace(seq=6)]
    assert wrong([child, told, freed, *again]) > 0
    assert wrong([child, told, freed, *again[:2], told._replace(seq=6), freed]) == 0


def test_a_child_requeued_by_a_batch_waits_for_its_parents() -> None:
    """What is decided on it before the batch is over is found, whoever its parent is."""
    made = BatchMade(5, 5, "b", "REQUEUE")
    dead = [
        submitted(1, A),
        submitted(2, B, A),
        settled(3, A, "FAILED"),
        settled(4, B, "FAILED", "FAILED"),
    ]
    again = Requeued(6, B, 1, 6, pending=False)
    fails = settled(8, B, "FAILED", "FAILED")

    assert wrong([*dead, made, again, BatchEnded(7, 7, "b"), fails]) == 0
    assert wrong([*dead, made, again, fails]) == 1
    assert wrong([*dead, made, again, BatchEnded(7, 7, "other"), fails]) == 1
    assert wrong([*dead, again, made, fails]) == 1
    assert wrong([*dead, made._replace(kind="PURGE"), again, fails]) == 0
    assert wrong([made, *dead]) == 0
    revived = [Requeued(7, A, 1, 7), settled(8, A, "COMPLETED")]
    assert wrong([*dead, made, again, *revived, Freed(9, B, 9, True, 9, ("COMPLETED",))]) == 0


def test_what_is_told_is_true() -> None:
    """Another partition hears what a job is, not what it was or will be."""
    for outcome in ("OPEN", "COMPLETED", "GONE"):
        word = Sent(19, 19, 1, 1, Message("tell", A, FAR, 0, outcome))
        assert (wrong([submitted(1, A), word]) == 0) is (outcome == "OPEN")
        ended = [submitted(1, A), settled(2, A, "COMPLETED")]
        assert (wrong([*ended, word]) == 0) is (outcome == "COMPLETED")


def test_a_parent_that_was_never_there_is_found() -> None:
    """A job is accepted only with parents that exist, as far as its partition can see."""
    assert wrong([submitted(1, B, A)]) == 1
    assert wrong([submitted(1, B, FAR)]) == 0


def test_who_waits_for_nothing_is_found() -> None:
    """After the drain; not who is held, nor who waits for one that goes on, here or elsewhere."""
    end = TermBegan(9, TERM_1, at_ms=1), granted(60_000, A)

    def waits(state: str, then: str = "FAIL", *, drained: bool = True) -> int:
        facts = [submitted(1, A), submitted(2, B, A, then=then), settled(3, A, state), *end]
        return wrong(facts, drained=drained)

    assert waits("COMPLETED") == waits("FAILED") == 1
    assert waits("COMPLETED", drained=False) == 0
    assert waits("FAILED", "HOLD") == 0
    assert wrong([submitted(1, A), submitted(2, B, A), *end]) == 0
    child = [submitted(1, B, FAR), *end]
    assert wrong({0: child, 1: [submitted(1, FAR), settled(2, FAR, "COMPLETED")]}) == 1
    assert wrong({0: child, 1: [submitted(1, FAR)]}) == 0
