"""S21: what a job has saved is what its next attempt begins with, and nothing older or foreign.

- An attempt begins with what the journal's last checkpoint of the job's run had when its lease was
  given out, and that was saved in an earlier attempt: its code had said so. (An attempt whose grant
  the journal does not have was the first of its run as far as anybody knew: it begins with nothing
  that was not saved before.)
- A checkpoint is journaled under the lease that stands, and goes forward in its numbers.
- What a worker was told to be safe is in the journal, or a later one of that lease is: so it is
  among those that the next attempt may begin with, and no older one is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tests.oracles.facts import Adopted, Granted, JobFact, Requeued, Saved, Settled, run_of
from tests.oracles.history import SAVE, START, Row
from tests.oracles.verdict import Violation
from tests.oracles.word import Word

Lives = Mapping[str, Sequence[JobFact]]


def check_checkpoints(
    rows: Iterable[Row], lives: Lives, words: Iterable[Word] = ()
) -> list[Violation]:
    """Compares what attempts began with, what was saved, and what workers were told.

    Args:
        rows: What jobs saw: ``START`` with what they found, ``SAVE`` with what they saved.
        lives: The journals' facts about each job, in order.
        words: What masters said: of kind ``saved``.
    """
    violations = _check_order(lives)
    known = {job: _Life(life) for job, life in lives.items()}
    said: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        if row.f == SAVE:
            said[row.job].add((row.lease, row.hash))
        elif row.f == START and row.job in known:
            wrong = known[row.job].begins(row, said[row.job])
            if wrong:
                violations.append(Violation("S21", row.job, f"lease {row.lease} {wrong}"))
    for word in words:
        if word.kind == "saved":
            for job, lease in word.leases:
                if job in known and known[job].last_number(lease) < word.number:
                    detail = (
                        f"{word.master} said that checkpoint {word.number} of lease {lease} is"
                        " safe, and the journal does not have it"
                    )
                    violations.append(Violation("S21", job, detail))
    return violations


class _Life:
    """What the journal says of one job."""

    def __init__(self, life: Sequence[JobFact]) -> None:
        #: By lease: what its attempt has to begin with.
        self._expected: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        #: By run: its last lease, and the one by whose report it ended.
        self._newest: dict[str, str] = {}
        self._ended: dict[str, str] = {}
        last = ""
        for fact in life:
            match fact:
                case Saved():
                    last = fact.content
                    self._numbers[fact.lease] = fact.number
                case Granted():
                    self._expected[fact.lease] = last
                    self._newest[run_of(fact.lease)] = fact.lease
                case Requeued():
                    last = ""
                case Settled():
                    self._ended[f"{fact.run:08x}"] = fact.lease
                case _:
                    pass

    def last_number(self, lease: str) -> int:
        """Of the checkpoints of a lease; 0: it has none."""
        return self._numbers.get(lease, 0)

    def begins(self, row: Row, said: Iterable[tuple[str, str]]) -> str:
        """What is wrong with how an attempt began, or nothing."""
        found = row.saved
        earlier = {
            content
            for lease, content in said
            if lease < row.lease and run_of(lease) == run_of(row.lease)
        }
        if found and found not in earlier:
            return "began with what no earlier attempt of its run had saved"
        expected = self._expected.get(row.lease)
        if expected is None or found == expected:
            return ""
        # A job that has ended meanwhile has nothing saved: its grant comes too late anyway.
        run = run_of(row.lease)
        if not found and self._newest[run] == row.lease != self._ended.get(run, row.lease):
            return ""
        return f"began with {found or 'nothing'}, though {expected or 'nothing'} had been saved"


def _check_order(lives: Lives) -> list[Violation]:
    violations = []
    for job, life in lives.items():
        stands, last = "", ("", 0)
        for fact in life:
            if isinstance(fact, Granted | Adopted):
                stands = fact.lease
            elif isinstance(fact, Saved):
                if fact.lease != stands:
                    wrong = f"saved under lease {fact.lease}, while {stands or 'none'} stood"
                elif (fact.lease, fact.number) <= last:
                    wrong = f"saved number {fact.number} of lease {fact.lease} after {last[1]}"
                else:
                    last = fact.lease, fact.number
                    continue
                violations.append(Violation("S21", job, f"seq {fact.seq}: {wrong}"))
    return violations
