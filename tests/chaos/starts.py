"""When jobs of a partition started, and when some waited to: how long a change of leaders held up.

A pause ends with the first start under a newer token than the one that it is about, be it of the
next term or of a later one. It begins when it should have begun to be noticed: with a kill, or, in
a change that is made in order, with the last start before it, for the former leader grants until it
ends its term, and what it has done by then is no pause. It counts from where some job waited: one
whose submit had begun and that did not start before the pause was over. A job that starts at once
beside older ones that wait hides none of them, and a term that starts nothing is passed over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable
from math import inf
from typing import NamedTuple

from tenure.protocol.ids import partition_of
from tests.oracles.facts import token_of
from tests.oracles.history import START, SUBMIT, Row


class Pause(NamedTuple):
    """From when on a job waited for its start, and when one started; infinity: none ever did."""

    since_ms: float
    until_ms: float

    @property
    def length_ms(self) -> float:
        """How long; 0: nobody waited."""
        return max(0.0, self.until_ms - self.since_ms) if self.since_ms < inf else 0.0


class _Waiting(NamedTuple):
    """A job that nothing but a leader and a worker can hold up."""

    asked_ms: float
    started_ms: float
    client: str


class Starts:
    """All starts of a run, and all jobs that were submitted to run at once.

    Args:
        rows: The history, in order.
        clients: Whose jobs wait for nothing else than a worker.
    """

    def __init__(self, rows: Iterable[Row], clients: Collection[str]) -> None:
        self._starts: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
        self._jobs: defaultdict[int, list[_Waiting]] = defaultdict(list)
        first: dict[str, float] = {}
        asked: dict[tuple[str, int], float] = {}
        jobs: dict[str, tuple[float, str, float]] = {}
        for row in rows:
            if row.f == START:
                self._starts[partition_of(row.job)].append((row.boottime, token_of(row.lease)))
                first.setdefault(row.job, row.boottime)
            elif row.f == SUBMIT and row.process in clients:
                name = (row.incarnation, row.call)
                if row.type == "invoke":
                    asked[name] = row.boottime
                elif row.job and row.type in ("ok", "info"):
                    # If nobody knows whether it is there, only its start can tell.
                    never_ms = inf if row.type == "ok" else -inf
                    jobs[row.job] = (asked[name], row.process, never_ms)
        for job, (asked_ms, client, never_ms) in jobs.items():
            waiting = _Waiting(asked_ms, first.get(job, never_ms), client)
            self._jobs[partition_of(job)].append(waiting)
        for found in self._jobs.values():
            found.sort()

    def after_kill(
        self, partition: int, token: str, at_ms: float, hurt: Collection[str] = ()
    ) -> Pause:
        """The pause from a kill on to the first start under a token or a newer one.

        Args:
            partition: Which.
            token: Of the term that came next.
            at_ms: When the leader was killed.
            hurt: Clients that could not submit as they wanted to.
        """
        until_ms = self._first_under(partition, token, at_ms)
        return self._pause(partition, at_ms, until_ms, hurt)

    def around(self, partition: int, token: str, at_ms: float, hurt: Collection[str] = ()) -> Pause:
        """The pause around an orderly change to a token: since the last start under an older one.

        Args:
            partition: Which.
            token: Of the term that came next.
            at_ms: When its predecessor had ended.
            hurt: Clients that could not submit as they wanted to.
        """
        until_ms = self._first_under(partition, token, at_ms)
        starts = self._starts[partition]
        before = starts[: bisect_left(starts, (until_ms, ""))]
        since_ms = next((ms for ms, under in reversed(before) if under < token), -inf)
        return self._pause(partition, since_ms, until_ms, hurt)

    def _first_under(self, partition: int, token: str, at_ms: float) -> float:
        starts = self._starts[partition]
        later = starts[bisect_left(starts, (at_ms, "")) :]
        return next((ms for ms, under in later if under >= token), inf)

    def _pause(
        self, partition: int, since_ms: float, until_ms: float, hurt: Collection[str]
    ) -> Pause:
        for job in self._jobs[partition]:
            if job.asked_ms >= until_ms:
                break
            if job.started_ms >= until_ms and job.client not in hurt:
                return Pause(max(since_ms, job.asked_ms), until_ms)
        return Pause(inf, until_ms)
