"""Bootstrap, offices and members in etcd: lost answers, late transactions, a restored backup."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.errors import (
    CorruptJournal,
    OfficeLost,
    StoreMismatch,
    StoreUnavailable,
)
from tenure.master.backend.etcd import operation as op
from tenure.master.election.etcd import EtcdElection
from tenure.master.election.port import Member
from tenure.master.etcd_store import EtcdUrl, open_etcd_store
from tenure.protocol.errors import Rejected
from tenure.protocol.fence import Token
from tests.conformance.etcd_site import Site
from tests.conformance.lossy_etcd import (
    ALICE,
    BOB,
    LossyClient,
    batch,
    numbers,
    opened,
    won,
)

# ---- Bootstrap ----------------------------------------------------------------------------


def test_masters_that_bootstrap_at_once_agree(site: Site) -> None:
    """One record wins, everybody sees the same cluster, and each partition has its batch 0."""

    async def main() -> None:
        stores = await asyncio.gather(
            *(
                open_etcd_store(site.url, ALICE, partitions=3, wall_ms=now, dial=site.dial)
                for now in range(4)
            )
        )
        assert len({store.cluster_id for store in stores}) == 1
        for partition in range(3):
            assert await numbers(stores[0].journal(partition)) == [0]
        for store in stores:
            await store.close()

    site.run(main)


def test_another_number_of_partitions_is_refused(site: Site) -> None:
    """The count is fixed at bootstrap; None takes what there is."""

    async def main() -> None:
        async with opened(site, partitions=2):
            with pytest.raises(StoreMismatch, match="--partitions 2"):
                await open_etcd_store(site.url, BOB, partitions=3, wall_ms=1, dial=site.dial)
        async with opened(site) as store:
            assert store.partitions == 2

    site.run(main)


def test_bootstrap_is_never_repeated_over_a_truncated_journal(site: Site) -> None:
    """Opening a store whose batch 0 is gone does not write it again."""

    async def main() -> None:
        async with opened(site) as store:
            office = await won(store.election(0))
            await store.journal(0).append(office.token, batch(1))
            assert await store.journal(0).truncate(office.token, 1) == 1
        async with opened(site, BOB) as store:
            assert await store.journal(0).last_number() == 1
            assert await numbers(store.journal(0), 1) == [1]
            with pytest.raises(CorruptJournal):
                await numbers(store.journal(0), 0)

    site.run(main)


def test_a_restored_etcd_is_refused(site: Site) -> None:
    """A store whose etcd has another cluster id comes from a backup: only a restore opens it."""

    async def main() -> None:
        async with opened(site), LossyClient(site) as client:
            record = (await client.range(client.keys.record)).kvs[0].value
            moved = record.replace(f"{client.cluster_id:x}".encode(), b"feed")
            await client.txn(success=[op.put(client.keys.record, moved)])
        with pytest.raises(StoreMismatch, match="restored"):
            await open_etcd_store(site.url, BOB, partitions=None, wall_ms=1, dial=site.dial)

    site.run(main)


@pytest.mark.parametrize(
    "wrong",
    [
        "etcd://",
        "etcd:///tenure",
        "sqlite:///x",
        "etcd://h1:1?user=me",
        "etcd://h1:1?cert=/x&key=/y",
    ],
)
def test_a_wrong_url_is_refused(wrong: str) -> None:
    """Each mistake is named before anything is dialled."""
    with pytest.raises(Rejected, match="store URL"):
        EtcdUrl.parse(wrong)


def test_a_url_is_taken_apart() -> None:
    """Ports and prefix have their defaults."""
    parsed = EtcdUrl.parse("etcd://h1,h2:79,[::1]:80/a/b/")
    assert parsed.endpoints == ("h1:2379", "h2:79", "[::1]:80")
    assert parsed.prefix == "/a/b"
    assert EtcdUrl.parse("etcd://h1").prefix == "/tenure"


# ---- The office -----------------------------------------------------------------------------


def test_the_office_passes_on_and_tokens_rise(site: Site) -> None:
    """One holder at a time; a resignation frees it at once; the next token is greater."""

    async def main() -> None:
        async with opened(site) as mine, opened(site, BOB) as yours:
            first = await won(mine.election(0))
            assert await yours.election(0).campaign() is None
            led = await yours.election(0).leader()
            assert led is not None
            assert (led.candidate, led.token) == (ALICE, first.token)
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(yours.election(0).vacancy(30_000))
                await asyncio.sleep(0)
                await first.resign()
                await first.resign()
                await waiting
            second = await won(yours.election(0))
            assert second.token > first.token
            for call in (first.renew, first.verify):
                with pytest.raises(OfficeLost):
                    await call()
            await second.verify()

    site.run(main)


def test_an_office_ends_without_keepalives_and_lives_with_them(site: Site) -> None:
    """The unrenewed office of one partition falls vacant; the renewed one of another does not."""

    async def main() -> None:
        async with opened(site, partitions=2, ttl_s=2) as mine, opened(site, BOB) as yours:
            kept, dropped = await won(mine.election(0)), await won(mine.election(1))
            async with asyncio.TaskGroup() as tasks:
                expiry = tasks.create_task(yours.election(1).vacancy(30_000))
                while not expiry.done():
                    await kept.renew()
                    await asyncio.wait([expiry], timeout=0.5)
            await kept.verify()
            for call in (dropped.renew, dropped.verify):
                with pytest.raises(OfficeLost):
                    await call()
            assert await yours.election(0).campaign() is None
            assert await yours.election(1).campaign() is not None

    site.run(main)


def test_a_second_term_of_one_master_gets_a_token_of_its_own(site: Site) -> None:
    """A campaign never hands out the token of an office that the same election won before."""

    async def main() -> None:
        async with opened(site) as store:
            first = await won(store.election(0))
            assert await store.election(0).campaign() is None
            await first.resign()
            second = await won(store.election(0))
            assert second.token > first.token
            with pytest.raises(OfficeLost):
                await store.journal(0).append(first.token, batch(1))

    site.run(main)


@pytest.mark.parametrize("word", ["mute", "drop"])
def test_a_campaign_without_an_answer_is_resolved(site: Site, word: str) -> None:
    """Applied or not, the campaign ends in exactly one office, and its token is the key's."""

    async def main() -> None:
        async with opened(site), LossyClient(site) as client:
            keys = client.keys.partition(0)
            election = EtcdElection(client, keys, ALICE, 1)
            client.script = [word]
            office = await won(election)
            held = (await client.range(keys.office)).kvs[0]
            assert office.token == Token(1, held.create_revision)
            await office.verify()

    site.run(main)


def test_a_campaign_left_in_the_dark_is_resolved_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After StoreUnavailable the office may be mine: the next call finds my ballot, and I lead."""
    monkeypatch.setattr("tenure.master.backend.etcd.resolution.BUDGET_S", 0.0)

    async def main() -> None:
        async with opened(site), LossyClient(site) as client:
            keys = client.keys.partition(0)
            election = EtcdElection(client, keys, ALICE, 1)
            client.script = ["mute"] + ["drop"] * 99
            with pytest.raises(StoreUnavailable):
                await election.campaign()
            client.script = []
            held = (await client.range(keys.office)).kvs[0]
            office = await won(election)
            assert office.token.revision == held.create_revision
            await office.renew()

    site.run(main)


def test_a_lost_campaign_cannot_win_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign given up for lost is made void: arriving late, it fails for want of its lease."""
    monkeypatch.setattr("tenure.master.backend.etcd.resolution.BUDGET_S", 0.0)
    late: list[tuple[Sequence[pb.Compare], Sequence[pb.RequestOp]]] = []

    class Postponing(LossyClient):
        async def txn(
            self,
            compare: Sequence[pb.Compare] = (),
            success: Sequence[pb.RequestOp] = (),
            failure: Sequence[pb.RequestOp] = (),
        ) -> pb.TxnResponse:
            if not late:
                late.append((compare, success))
            return await super().txn(compare, success, failure)

    async def main() -> None:
        async with opened(site), Postponing(site) as client:
            election = EtcdElection(client, client.keys.partition(0), ALICE, 1)
            client.script = ["drop"] * 99
            with pytest.raises(StoreUnavailable):
                await election.campaign()
            client.script = []
            await (await won(election)).resign()
            with pytest.raises(Exception, match="lease not found"):
                await client.txn(*late[0])
            assert await election.leader() is None

    site.run(main)


def test_an_office_that_another_won_meanwhile_is_not_mine(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign of unknown outcome was lost after all, and a rival leads: None, not the office."""
    monkeypatch.setattr("tenure.master.backend.etcd.resolution.BUDGET_S", 0.0)

    async def main() -> None:
        async with opened(site, BOB) as rival, LossyClient(site) as client:
            election = EtcdElection(client, client.keys.partition(0), ALICE, 1)
            client.script = ["drop"]
            with pytest.raises(StoreUnavailable):
                await election.campaign()
            theirs = await won(rival.election(0))
            assert await election.campaign() is None
            assert await election.campaign() is None
            await theirs.verify()

    site.run(main)


def test_a_new_epoch_ends_every_term(site: Site) -> None:
    """After a restore has raised the epoch, no token of the old one is good for anything."""

    async def main() -> None:
        async with opened(site) as store, LossyClient(site) as client:
            office = await won(store.election(0))
            await client.txn(success=[op.put(client.keys.epoch, b"2")])
            with pytest.raises(OfficeLost):
                await store.journal(0).append(office.token, batch(1))
            with pytest.raises(OfficeLost):
                await office.verify()
            await office.resign()
            with pytest.raises(StoreMismatch, match="restored"):
                await store.election(0).campaign()
            with pytest.raises(StoreMismatch, match="restored"):
                await store.register(Member(candidate=ALICE, version="0", wall_ms=1))

    site.run(main)


def test_members_come_and_go(site: Site) -> None:
    """A registered master is listed with what it last said, and gone after it has closed."""

    async def main() -> None:
        async with opened(site) as mine:
            async with opened(site, BOB) as yours:
                await mine.register(Member(candidate=ALICE, version="1.0", wall_ms=1))
                await yours.register(Member(candidate=BOB, version="1.1", wall_ms=2))
                await mine.register(Member(candidate=ALICE, version="1.0", wall_ms=3))
                found = await yours.members()
                assert [(m.candidate, m.version, m.wall_ms) for m in found] == [
                    (ALICE, "1.0", 3),
                    (BOB, "1.1", 2),
                ]
            assert [member.candidate for member in await mine.members()] == [ALICE]

    site.run(main)
