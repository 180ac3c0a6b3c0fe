"""What workers are told of the jobs that they get."""

from tenure.master.core.record import Policy, RetryPolicy
from tenure.protocol.vocabulary import Backoff
from tenure.testing.loop import run_virtual
from tenure.v1 import common_pb2
from tests.unit.master.node.fakes import settle
from tests.unit.master.node.term_rig import leading


def test_grants_share_what_their_worker_goes_by() -> None:
    """Jobs of any queue and retry policy have one row of options, if they run alike."""
    alike = [
        Policy(name="job", queue=f"q{n}", tenant=f"t{n}", labels=(("n", "1"),)) for n in (1, 2)
    ]
    alike.append(Policy(name="job", retry=RetryPolicy(backoff=Backoff.FIXED), deadline_ms=60_000))
    others = {
        Policy(name="job", timeout_ms=2_000): common_pb2.JobOptions(timeout={"seconds": 2}),
        Policy(name="job", at_most_once=True): common_pb2.JobOptions(at_most_once=True),
        Policy(name="job", content_type="text/x"): common_pb2.JobOptions(content_type="text/x"),
        Policy(name="job", retry=RetryPolicy(non_retryable=("ValueError",))): common_pb2.JobOptions(
            retry={"non_retryable": ["ValueError"]}
        ),
    }

    async def main() -> None:
        async with leading() as rig:
            of = {rig.submit(policy)[0]: policy for policy in (*alike, *others)}
            await rig.commit()
            link = rig.connect(credit=len(of))
            await settle()
            await rig.commit()
            parts = [part.assignment for part in rig.heard(link) if part.HasField("assignment")]
            for assignment in parts:
                told = [options.SerializeToString() for options in assignment.options]
                assert len(told) == len(set(told))
                for grant in assignment.grants:
                    policy = of.pop(grant.job_id)
                    wanted = common_pb2.JobOptions(name="job", content_type=policy.content_type)
                    wanted.MergeFrom(others.get(policy, common_pb2.JobOptions()))
                    assert assignment.options[grant.options] == wanted
            assert not of

    run_virtual(main)
