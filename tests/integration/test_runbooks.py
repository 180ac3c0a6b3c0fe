"""The runbooks do what they say: each is followed, as it stands, through the trouble it is for.

The long ones on three members of etcd are for nightly. What masters do in the same trouble is
tested at once: with a full etcd in ``tests/conformance/test_etcd_journal.py``, with a lost past in
``test_etcd_client.py`` there, with a full one and a lost member in random runs (``make simulate``).
"""

from __future__ import annotations

import base64
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.master.etcd_store import EtcdUrl
from tenure.testing.etcd import EtcdCluster, EtcdMember
from tests.chaos.cluster import REPOSITORY
from tests.integration.page import Block, Reader

pytestmark = pytest.mark.timeout(180)

RUNBOOKS = "docs/runbooks/"
QUOTA_BYTES = 16 * 1024 * 1024
APP = """# app/jobs.py
import os
import time

from tenure.client import job


@job
def echo(text: str) -> str:
    return text


@job
def until_told() -> str:
    while not os.path.exists("told"):
        time.sleep(0.05)
    return "told"
"""


class Scene(Reader):
    """A reader whose cluster is in trouble."""

    def __init__(self, folder: Path, page: str) -> None:
        super().__init__(folder, RUNBOOKS + page)
        self.write(Block("python", APP))

    def do(self, command: str) -> str:
        """A command that must succeed."""
        said = self.run(f"{command}\necho $?")
        lines = said.strip().splitlines()
        if lines[-1] != "0":
            raise AssertionError(f"expected `{command}` to succeed:\n{said}\n{self._logs()}")
        return "\n".join(lines[:-1])

    def until(self, condition: str) -> None:
        """Waits for a command of the shell to succeed."""
        self.do(f"until {condition}; do sleep 0.1; done")

    def stand_on(self, etcd: EtcdCluster) -> str:
        """Its members are the machines of the page; the URL of the store there."""
        machines = []
        for number, member in enumerate(etcd.members, 1):
            machines.append(f"10.0.0.{number}:2379")
            self.place(machines[-1], member.address)
        return f"etcd://{','.join(machines)}"

    def start_master(self, number: int, store: str, flags: str = "") -> None:
        """``$m1`` and so on."""
        self.do(
            f"tenure master --name m{number} --store {store} --listen 10.0.0.{number}:7400"
            f" {flags} > m{number}.log 2>&1 & m{number}=$!"
        )


@pytest.fixture
def etcd() -> Iterator[EtcdCluster]:
    """Three members with a small quota."""
    with EtcdCluster(3, quota_bytes=QUOTA_BYTES) as started:
        yield started


def fill(member: EtcdMember) -> int:
    """Writes one key over and over until etcd takes nothing any more; how often."""
    value = base64.b64encode(bytes(1024 * 1024)).decode()
    for times in range(2 * QUOTA_BYTES // (1024 * 1024)):
        try:
            member.post("/v3/kv/put", {"key": "b3RoZXI=", "value": value})
        except urllib.error.HTTPError as error:
            if "space exceeded" in error.read().decode():
                return times
            raise
    raise AssertionError("expected etcd to be full at some time, but it never was")


@pytest.mark.etcd
@pytest.mark.nightly
@pytest.mark.fault(45)
def test_row_45_a_full_etcd_is_got_going_again(etcd: EtcdCluster, tmp_path: Path) -> None:
    """Read-only; its leader is lost meanwhile and has no successor; the runbook mends it all.

    The job that ran all the time is not run again, and what was waiting is done.
    """
    with Scene(tmp_path, "nospace.md") as scene:
        store = scene.stand_on(etcd)
        scene.do("export TENURE_ADDRESS=10.0.0.1:7400,10.0.0.2:7400")
        scene.start_master(1, store, "--store-quota 16MiB")
        scene.until("tenure cluster status -q 2>/dev/null | grep -q 'm1 .*SERVING'")
        scene.start_master(2, store, "--store-quota 16MiB")
        scene.do("tenure worker app.jobs > worker.log 2>&1 &")
        job = scene.do("tenure submit app.jobs.until_told").strip()
        scene.until("tenure jobs list --state running -o name | grep -q .")
        fill(etcd.members[0])

        refused = scene.run("tenure submit app.jobs.echo refused --timeout 3")
        assert "STORE_FULL" in refused or "OUTCOME_UNKNOWN" in refused
        scene.until("tenure cluster status -q 2>/dev/null | grep -q FULL")
        scene.do("kill -9 $m1; wait $m1 2>/dev/null; true")
        scene.until("grep -q 'Cannot campaign' m2.log")
        assert "SERVING" not in scene.run("tenure cluster status -q 2>/dev/null")

        # Its supervisor starts it again; a full etcd does not keep it from waiting.
        scene.start_master(1, store, "--store-quota 16MiB")
        scene.until("tenure cluster status -q")
        scene.follow()
        scene.do("touch told")
        assert "told" in scene.do(f"tenure jobs wait {job}")
        told = scene.do(f"tenure jobs get {job} -o json")
        assert told.count('"startTime"') <= 1


@pytest.mark.etcd
@pytest.mark.nightly
@pytest.mark.fault(23)
def test_row_23_a_member_that_lost_its_data_is_replaced(tmp_path: Path) -> None:
    """Removed, added with an empty disk; nothing is lost, and then another one may die."""
    with Scene(tmp_path, "replace-a-member.md") as scene:
        script = f"env PYTHONPATH={REPOSITORY} {sys.executable} -m tests.integration.etcdctl"
        scene.offer("etcdctl", script)
        peers = ",".join(f"e{n}=http://10.0.0.{n}:2380" for n in (1, 2, 3))
        for n in (1, 2, 3):
            own = f"http://10.0.0.{n}:2380"
            clients = f"http://10.0.0.{n}:2379"
            scene.do(
                f"etcd --name e{n} --data-dir e{n} --initial-cluster {peers}"
                f" --listen-peer-urls {own} --initial-advertise-peer-urls {own}"
                f" --listen-client-urls {clients} --advertise-client-urls {clients}"
                f" > e{n}.log 2>&1 & e{n}=$!"
            )
        scene.start_master(1, "etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379")
        scene.do("export TENURE_ADDRESS=10.0.0.1:7400")
        scene.until("tenure cluster status -q 2>/dev/null | grep -q SERVING")
        jobs = [scene.do(f"tenure submit app.jobs.echo {text}").strip() for text in "abcde"]
        scene.do("kill -9 $e3; wait $e3 2>/dev/null; true")
        scene.do("tenure worker app.jobs > worker.log 2>&1 &")

        scene.follow()
        assert [scene.do(f"tenure jobs wait {job}").strip() for job in jobs] == list("abcde")
        scene.do("kill -9 $e1; wait $e1 2>/dev/null; true")
        assert scene.do("tenure submit app.jobs.echo two-are-enough --wait --timeout 30")


@pytest.mark.fault(4)
def test_a_site_is_restored_from_a_backup(tmp_path: Path) -> None:
    """Jobs that were waiting or had ended are there; the old masters' word counts no more."""
    with Scene(tmp_path, "restore-a-site.md") as scene:
        scene.do(
            "tenure master --store sqlite://$PWD/old.db > old.log 2>&1 & old=$!\n"
            "until tenure submit app.jobs.echo first -q; do sleep 0.1; done"
        )
        for text in ("second", "third"):
            scene.do(f"tenure submit app.jobs.echo {text}")
        scene.do("tenure cluster backup jobs.backup")
        scene.do("tenure submit app.jobs.echo lost")
        scene.do("kill -9 $old; wait $old 2>/dev/null; rm old.db*")
        scene.follow()


@pytest.mark.etcd
@pytest.mark.nightly
@pytest.mark.fault(24)
def test_row_24_an_etcd_restored_by_itself_is_refused_until_its_epoch_is_raised(
    tmp_path: Path,
) -> None:
    """What ``etcdctl snapshot restore`` leaves: the old keys in a cluster of another id.

    Its revisions are lower than those that tokens were made of.
    """
    with EtcdCluster(1) as first, Scene(tmp_path, "restore-etcd.md") as scene:
        store = scene.stand_on(first)
        scene.do("export TENURE_ADDRESS=10.0.0.1:7400")
        scene.start_master(1, store)
        scene.until("tenure cluster status -q 2>/dev/null | grep -q SERVING")
        kept = scene.do("tenure submit app.jobs.echo kept").strip()
        keys = everything(first.members[0])
        lost = scene.do("tenure submit app.jobs.echo lost").strip()
        scene.do("kill -9 $m1; wait $m1 2>/dev/null; true")
        first.stop()
        with EtcdCluster(1) as second:
            scene.stand_on(second)
            scene.do("export TENURE_ADDRESS=127.0.0.1:7400")
            for key, value in keys:
                second.members[0].post("/v3/kv/put", {"key": key, "value": value})
            scene.follow()
            found = scene.run("tenure jobs list -o name")
            assert (kept in found, lost in found) == (True, False)


def everything(member: EtcdMember) -> list[tuple[str, str]]:
    """All keys of Tenure but those that a lease ends, as an old snapshot would have them."""
    prefix = EtcdUrl.parse("etcd://here").prefix.encode()
    body = {
        "key": base64.b64encode(prefix).decode(),
        "range_end": base64.b64encode(prefix + b"0").decode(),
    }
    found = member.post("/v3/kv/range", body)["kvs"]
    return [(kv["key"], kv["value"]) for kv in found if not int(kv.get("lease", "0"))]


@pytest.mark.fault(3)
def test_row_03_a_halted_partition_is_cleared(tmp_path: Path) -> None:
    """A journal that kills whoever replays it halts its partition; a mended release goes on."""
    with Scene(tmp_path, "halted.md") as scene:
        sick = REPOSITORY / "tests" / "integration" / "sick_master.py"
        scene.do("store=sqlite://$PWD/jobs.db")
        start = "master --store $store --listen 127.0.0.1:7400 > master.log 2>&1"
        scene.do(
            f"tenure {start} & master=$!\nuntil tenure submit app.jobs.echo first -q; do :; done"
        )
        scene.do("kill -9 $master; wait $master 2>/dev/null; true")
        for _ in range(4):
            scene.run(f"{sys.executable} {sick} {start}")
        scene.do(f"{sys.executable} {sick} {start} & master=$!")
        scene.until("tenure cluster status -q 2>/dev/null | grep -q HALTED")
        assert "PARTITION_HALTED" in scene.run("tenure submit app.jobs.echo 2 --timeout 1")
        scene.do("kill $master; wait $master; true")
        scene.follow(first=0, last=1)
        scene.do(f"tenure {start} & master=$!")
        scene.follow(first=1)
        assert scene.do("tenure jobs list -o name").strip()


@pytest.mark.fault(39)
def test_clocks_that_agree_raise_no_alarm(tmp_path: Path) -> None:
    """What the runbook shows at its end; ``tests/simulation`` bends the clocks."""
    with Scene(tmp_path, "clocks.md") as scene:
        scene.do(
            "tenure master --store sqlite://$PWD/jobs.db > m.log 2>&1 & m=$!\n"
            "until tenure cluster status -q 2>/dev/null | grep -q SERVING; do sleep 0.1; done"
        )
        scene.follow()
