"""Why a PENDING job is not begun: what the connected workers run, and from which queues."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final

from tenure.client.router import CALL_TIMEOUT_S, Router
from tenure.protocol.errors import TenureError
from tenure.protocol.vocabulary import JobState
from tenure.v1 import cluster_pb2, jobs_pb2

#: The logger of those who wait in vain.
LOGGER: Final = "tenure.client.unserved"
_LOG: Final = logging.getLogger(LOGGER)

_SERVICE: Final = "/tenure.v1."
#: More names than this are counted, not listed.
_LISTED_MAX: Final = 8
_NEAR_MAX: Final = 3
#: Jobs that one look at a silent wait asks for.
_SAMPLE: Final = 8


async def unserved(router: Router, job: jobs_pb2.Job, timeout_s: float) -> str | None:
    """Why no worker can take a job, in words; None: some can, or it does not wait for one.

    Args:
        router: Finds the leader, which every worker that may get the job is connected to.
        job: As the cluster describes it.
        timeout_s: How long to try.

    Raises:
        TenureError: The leader did not answer.
    """
    if int(job.state) != JobState.PENDING:
        return None
    status = await router.call(
        job.partition,
        _SERVICE + "ClusterService/GetStatus",
        cluster_pb2.GetStatusRequest(),
        cluster_pb2.GetStatusResponse,
        timeout_s,
    )
    return why_unserved(status.workers, job.options.name, job.options.queue)


def why_unserved(workers: Iterable[cluster_pb2.WorkerStatus], name: str, queue: str) -> str | None:
    """Why none of these workers takes jobs of a name from a queue; None: one does."""
    connected = list(workers)
    if not connected:
        return "no worker is connected"
    able = [worker for worker in connected if name in worker.job_names]
    if not able:
        return f"no connected worker runs {name}{_known_instead(connected, name)}"
    serving = [worker for worker in able if not worker.queues or queue in worker.queues]
    if not serving:
        queues = sorted({served for worker in able for served in worker.queues})
        return (
            f"no connected worker that runs {name} serves the queue {queue}; "
            f"they serve: {_listed(queues)}"
        )
    if all(worker.draining for worker in serving):
        return f"every connected worker that runs {name} is draining"
    return None


class Lookout:
    """Says in the log why jobs that are waited for are not begun.

    Asked by lanes whose streams are silent, so it costs nothing while results come.

    Args:
        router: Finds leaders.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._told: dict[int, str] = {}

    async def look(self, partition: int, job_ids: Sequence[str]) -> None:
        """Some of the jobs are described; what keeps workers from one of them is told once."""
        step = -(-len(job_ids) // _SAMPLE)
        try:
            for job_id in job_ids[:: max(step, 1)]:
                job = await self._describe(partition, job_id)
                why = await unserved(self._router, job, CALL_TIMEOUT_S)
                if why is not None:
                    self._tell(job, why)
                    return
        except TenureError as error:
            # The wait itself is told of what is wrong with the cluster, and judges it.
            _LOG.debug("cannot tell why job %s waits: %s", job_ids[0], error)
        else:
            self._told.pop(partition, None)

    async def _describe(self, partition: int, job_id: str) -> jobs_pb2.Job:
        response = await self._router.call(
            partition,
            _SERVICE + "JobService/GetJob",
            jobs_pb2.GetJobRequest(job_id=job_id, without_payload=True),
            jobs_pb2.GetJobResponse,
            CALL_TIMEOUT_S,
        )
        return response.job

    def _tell(self, job: jobs_pb2.Job, why: str) -> None:
        if self._told.get(job.partition) == why:
            return
        self._told[job.partition] = why
        _LOG.warning(
            "job %s waits: %s",
            job.job_id,
            why,
            extra={"action": "job_unserved", "job_id": job.job_id, "partition": job.partition},
        )


def _known_instead(workers: Sequence[cluster_pb2.WorkerStatus], name: str) -> str:
    known = sorted({served for worker in workers for served in worker.job_names})
    if not known:
        return "; they run no jobs at all"
    near = _nearest(name, known)
    question = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{question} They run: {_listed(known)}"


def _nearest(name: str, known: Sequence[str]) -> Sequence[str]:
    """Names that somebody may have meant: the same function of another module comes first."""
    function = name.rpartition(".")[2]
    same = [each for each in known if each.rpartition(".")[2] == function]
    if same:
        return same[:_NEAR_MAX]
    import difflib

    # Modules are alike where functions are not, so functions are compared first.
    by_function = {each.rpartition(".")[2]: each for each in known}
    near = difflib.get_close_matches(function, by_function, n=_NEAR_MAX)
    if near:
        return [by_function[each] for each in near]
    return difflib.get_close_matches(name, known, n=_NEAR_MAX)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED_MAX
    text = ", ".join(names[:_LISTED_MAX])
    return f"{text} and {more} more" if more > 0 else text
